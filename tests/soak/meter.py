"""What is recorded: numbers of our own processes, of the session's place, and of the kernel."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eci_supervisor.runtime.state import bin_path, start_path
from tests.soak.verdict import Series

if TYPE_CHECKING:
    from tests.support.place import Place

# A container of the load lives some seconds, so an hour sees some thousands of them: a bound of one
# an hour is one in thousands.  Of the kernel's objects, free ones count as used while they are in a
# processor's own slabs.
# Of a file's pages a process has the smaller share, the more others have mapped it: what else runs
# on the machine, other interpreters above all, moves that.
SERIES = (
    Series("memory", "memory of our processes (PSS, MiB)", per_hour=1.0, slack=2.0, shared=True),
    Series("anonymous", "the same, without files (MiB)", per_hour=1.0, slack=2.0),
    Series("processes", "our processes", per_hour=1.0),
    Series("descriptors", "their descriptors", per_hour=1.0),
    Series("mounts", "mounts on the host", per_hour=1.0),
    Series("ranges", "ID ranges in use", per_hour=1.0),
    Series("cgroups", "cgroups", per_hour=1.0),
    Series("files", "files of our state", per_hour=1.0),
    Series("others", "all processes of the session", per_hour=1.0),
    Series("slab", "mounts in the kernel (mnt_cache)", per_hour=60.0, slack=600.0, shared=True),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The numbers of one moment."""

    seconds: float
    """From the beginning of the load on."""
    rest: bool
    """Nothing was going on, and only the residents were there."""
    values: dict[str, float]
    """Name of a series -> number."""


class Meter:
    """Takes samples of one place."""

    def __init__(self, place: Place) -> None:
        """Begin to count the seconds."""
        self._place = place
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    def begin(self) -> None:
        """Begin to count the seconds anew."""
        self._began = time.monotonic()

    def take(self, *, rest: bool) -> Sample:
        """Take a sample, and keep it."""
        now = Sample(time.monotonic() - self._began, rest, read(self._place))
        self.samples.append(now)
        return now


def ours(place: Place) -> dict[int, str]:
    """Return pid -> program of each process of ours in the place: "python", or one of eci-*.

    Worker and view have no environment, and belong where their parent does, the keeper.
    """
    mark = f"ECI_STATE_DIR={place.state_dir}".encode()
    found = {}
    for proc in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            program = _program(proc)
            if program and (_has(proc, mark) or _has(Path(f"/proc/{_parent(proc)}"), mark)):
                found[int(proc.name)] = program
    return found


def _program(proc: Path) -> str | None:
    program = (proc / "exe").readlink()
    if program.parent == Path(bin_path("")):
        return program.name
    script = start_path().encode()
    return "python" if script in (proc / "cmdline").read_bytes().split(b"\0") else None


def _has(proc: Path, mark: bytes) -> bool:
    return mark in (proc / "environ").read_bytes().split(b"\0")


def _parent(proc: Path) -> int:
    return int((proc / "stat").read_text().rpartition(")")[2].split()[1])


def read(place: Place) -> dict[str, float]:
    """Return the number of each series, now."""
    pids = list(ours(place))
    state = place.state_dir
    return {
        "memory": sum(_pss(pid, {"Pss"}) for pid in pids) / 1024,
        "anonymous": sum(_pss(pid, {"Pss_Anon", "Pss_Shmem"}) for pid in pids) / 1024,
        "processes": len(pids),
        "descriptors": sum(map(_descriptors, pids)),
        "mounts": _mounts(place.root),
        "ranges": sum(len(files) for _, _, files in os.walk(state / "ranges")),
        "cgroups": len(place.left_cgroups()),
        "files": sum(len(names) + len(files) for _, names, files in os.walk(state)),
        "others": len(place.left_processes()),
        "slab": _slab("mnt_cache"),
    }


def _pss(pid: int, fields: set[str]) -> int:
    """Return a process's share of memory of these kinds, in KiB; 0 where it has gone."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in fields)
    return 0


def _descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _mounts(top: Path) -> int:
    """Count the mounts of this mount namespace at or below `top`, an engine's included."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(1 for line in lines if f"{line.split()[4]}/".startswith(f"{top}/"))


def _slab(name: str) -> int:
    """Count the objects in use of a cache of the kernel's: slabinfo(5)."""
    for line in Path("/proc/slabinfo").read_text().splitlines():
        words = line.split()
        if words[0] == name:
            return int(words[1])
    raise LookupError(f"/proc/slabinfo has no {name}")
