"""What a session has left behind is found."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.place import Place
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def other(tmp_path: Path) -> Place:
    """A place that nobody else has."""
    found = Place(tmp_path / "place", "eci-of-nobody")
    (found.state_dir / "containers").mkdir(parents=True)
    return found


@pytest.fixture
def sleeper(other: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the place's state directory in its environment."""
    with subprocess.Popen(["sleep", "1000"], env=os.environ | other.environment) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_its_environment(
    other: Place, sleeper: subprocess.Popen[bytes]
) -> None:
    line = f"process: {sleeper.pid} (parent {os.getpid()}): sleep 1000 "
    wait_until(lambda: other.leftovers(patience=0) == [line], "it is not found")
    assert other.leftovers(patience=0, before=[line]) == []
    other.daemons.add(sleeper.pid)
    assert other.leftovers(patience=0) == []


def test_a_process_is_known_by_its_words(other: Place) -> None:
    script = f"read x # {other.root}/file"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as process:
        wait_until(lambda: len(other.left_processes()) == 1, "it is not found")
        process.kill()


def test_all_that_is_left_is_told_when_patience_ends(
    other: Place, sleeper: subprocess.Popen[bytes]
) -> None:
    """Before that one thing is enough to look again."""
    state = other.state_dir / "containers/one"
    state.touch()
    wait_until(other.left_processes, "it is not found")
    began = time.monotonic()
    found = other.leftovers(patience=0.2)
    assert time.monotonic() - began >= 0.2
    assert found[0] == f"state: {state}"
    assert found[1].startswith(f"process: {sleeper.pid} ")
    state.unlink()


def test_each_directory_is_new(other: Place) -> None:
    """Names that are there already, or begin like another one, are no obstacle."""
    (other.root / "v1").mkdir()
    made = [other.directory(name).name for name in ("v", "v", "v1", "v", "v1")]
    assert made == ["v0", "v2", "v10", "v3", "v11"]
