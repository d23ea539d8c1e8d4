"""Whether a runtime takes the flag for killable waits: asked of a made-up runc, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime.killable import CACHE, waits_killable
from eci_supervisor.runtime.seccomp import WAIT_KILLABLE

if TYPE_CHECKING:
    from pathlib import Path


def make_runc(path: Path, output: str, status: int = 0) -> Path:
    """Write a program that notes each call in `calls` beside it, and prints `output`."""
    path.unlink(missing_ok=True)
    path.write_text(
        f"#!/bin/sh\necho \"$@\" >> {path.parent}/calls\ncat <<'E'\n{output}\nE\nexit {status}\n"
    )
    path.chmod(0o755)
    return path


def features(*flags: str, key: str = "supportedFlags") -> str:
    """Return what runc prints that supports these flags."""
    words = ", ".join(f'"{flag}"' for flag in flags)
    return f'{{"linux": {{"seccomp": {{"enabled": true, "{key}": [{words}]}}}}}}'


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (features("SECCOMP_FILTER_FLAG_LOG", WAIT_KILLABLE), 0, True),
        (features("SECCOMP_FILTER_FLAG_LOG"), 0, False),
        (features(WAIT_KILLABLE, key="knownFlags"), 0, False),
        ('{"linux": {"seccomp": {"enabled": true}}}', 0, False),
        ('{"linux": []}', 0, False),
        ("No help topic for 'features'", 3, False),
        ("no JSON", 0, False),
    ],
)
def test_runc_is_asked_once(tmp_path: Path, output: str, status: int, *, expected: bool) -> None:
    runc = make_runc(tmp_path / "runc", output, status)
    for _ in range(3):
        assert waits_killable("runc", str(runc), str(tmp_path)) is expected
    assert (tmp_path / "calls").read_text() == "features\n"


def test_another_runc_is_asked_anew(tmp_path: Path) -> None:
    runc = make_runc(tmp_path / "runc", features())
    assert not waits_killable("runc", str(runc), str(tmp_path))
    make_runc(runc, features(WAIT_KILLABLE))
    assert waits_killable("runc", str(runc), str(tmp_path))
    (tmp_path / CACHE).write_text("torn")
    assert waits_killable("runc", str(runc), str(tmp_path))
    assert (tmp_path / "calls").read_text() == "features\n" * 3


def test_answer_without_a_state_directory(tmp_path: Path) -> None:
    runc = make_runc(tmp_path / "runc", features(WAIT_KILLABLE))
    assert waits_killable("runc", str(runc), str(tmp_path / "none"))


def test_crun_is_not_asked(tmp_path: Path) -> None:
    assert waits_killable("crun", "/no/such/program", str(tmp_path))
