"""Which cgroups are a container's, also when its first process has just died."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.supervisor import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.place import Place

pytestmark = pytest.mark.root


@pytest.fixture
def member(place: Place) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Return a cgroup path that exists in most hierarchies, and a process in it."""
    path = f"/{place.cgroup}/member"
    process = subprocess.Popen(["sleep", "infinity"])
    made = []
    try:
        for directory in cgroups.directories(path):
            # A cpuset takes nobody before it has been given processors.
            if _is_hierarchy(directory) and "/cpuset" not in directory:
                os.makedirs(directory, exist_ok=True)
                made.append(directory)
                with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(process.pid))
        yield path, process
    finally:
        process.kill()
        process.wait()
        cgroups.remove(made)


def _is_hierarchy(directory: str) -> bool:
    return os.path.exists(f"{os.path.dirname(os.path.dirname(directory))}/cgroup.procs")


def test_dead_process_hides_no_cgroup(
    place: Place, member: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """A zombie is in no cgroup of version 1: what the bundle names has to be removed as well."""
    path, process = member
    living = cgroups.delegate(process.pid, 0, 0)
    there = [path for path in cgroups.directories(path) if os.path.isdir(path)]
    resolved = {os.path.realpath(directory) for directory in there}
    assert {os.path.realpath(directory) for directory in living} == resolved
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # stays a zombie
    dead = cgroups.delegate(process.pid, 0, 0)
    assert set(dead) <= set(living)
    cgroups.remove([*dead, *cgroups.directories(path)])
    assert [line for line in place.left_cgroups() if line.endswith("/member")] == []
