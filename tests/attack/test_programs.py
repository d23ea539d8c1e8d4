"""Programs of the container's that the kernel would run on the host, as root.

Whole escapes with a harmless program: it writes down who it runs as.  core_pattern is what
CVE-2022-0811, CVE-2025-31133 and CVE-2025-52881 end in, release_agent is CVE-2022-0492.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, PRIVILEGED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.place import Place
    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
SECONDS = 5.0
"""Within which the kernel has run a program."""

BY_CORE = """
    echo "|{program}" > /proc/sys/kernel/core_pattern
    sh -c 'kill -SEGV $$'
"""
BY_AGENT = """
    mkdir -p /mnt/c
    mount -t cgroup -o {hierarchy} none /mnt/c
    cd /mnt/c
    echo {program} > release_agent
    mkdir x && echo 1 > x/notify_on_release
    sh -c 'echo 0 > x/cgroup.procs'
    sleep 0.2
    rmdir x
    cd / && umount /mnt/c
"""
HIERARCHY = "pids"
AGENT = Path(f"/sys/fs/cgroup/{HIERARCHY}/release_agent")
# cgroup v2 has no release_agent.
WAYS = {"core_pattern": BY_CORE} | ({"release_agent": BY_AGENT} if AGENT.exists() else {})


class Canary:
    """A program of the host's directory that says who has run it."""

    def __init__(self, place: Place) -> None:
        """Write it."""
        top = place.directory("canary")
        self.program = top / "program"
        self._ran = top / "ran"
        self.program.write_text(f"#!/bin/sh\nid -u > {self._ran}\n")
        self.program.chmod(0o755)

    def script(self, way: str) -> list[str]:
        """Return the words that have the kernel run it."""
        script = WAYS[way].format(program=self.program, hierarchy=HIERARCHY)
        return ["sh", "-c", f"{{ {script} }} > /dev/null 2>&1; true"]

    def ran_as(self, seconds: float) -> str:
        """Return who has run it, or nothing when nobody has within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._ran.exists() and self._ran.read_text():
                return self._ran.read_text().strip()
            time.sleep(0.02)
        return ""


@pytest.fixture
def canary(place: Place) -> Iterator[Canary]:
    """A program; afterwards the kernel's files are as before."""
    before = {path: path.read_text() for path in (CORE_PATTERN, AGENT) if path.exists()}
    yield Canary(place)
    for path, text in before.items():
        if path.read_text() != text:
            path.write_text(text or "\n")


@pytest.mark.parametrize("way", WAYS)
def test_succeeds_without_protection(
    plain: Callable[[str, list[str]], str], canary: Canary, way: str
) -> None:
    plain(PRIVILEGED, canary.script(way))
    assert canary.ran_as(SECONDS) == "0"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_fails(protected: Protected, canary: Canary, kind: str, way: str) -> None:
    before = CORE_PATTERN.read_text()
    protected.run(kind, canary.script(way))
    assert CORE_PATTERN.read_text() == before
    assert canary.ran_as(0.3) == ""


def test_canary_is_not_run_by_a_crash_alone(canary: Canary) -> None:
    """It is the attack that has it run, and nothing else here."""
    subprocess.run(["sh", "-c", "kill -SEGV $$"], check=False)
    assert canary.ran_as(0.1) == ""
