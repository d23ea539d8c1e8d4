"""A memory cgroup for each worker, so that what it does for a container has a bound.

The worker makes the container's mounts, and the kernel charges what they take to who makes them.
In the engine's cgroup that would be the engine's memory or the host's, without end; in the
container's own, the container's freezer, limits and end would be the worker's, too.

The worker looks at the usage, and refuses to add mounts above the bound (csrc/memory.c).  What
comes too fast for that ends at twice the bound, where the kernel ends the worker: the call is
undone, and the next worker goes on.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from eci_supervisor.supervisor.cgroups import ROOT

FILE = "memory"
"""In the state directory: the path of the cgroup, for csrc/cleanup.c."""


class Files(NamedTuple):
    """What one version of cgroups calls them: cgroups(7), Documentation/admin-guide/cgroup-v*."""

    limit: str
    usage: str
    reclaim: str
    """A write has the kernel drop what it can do without."""


V1 = Files("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.force_empty")
V2 = Files("memory.max", "memory.current", "memory.reclaim")


def _hierarchy() -> tuple[Path, Files] | None:
    """Return where memory cgroups are made; None where this host has none, nor limits by them."""
    if (ROOT / "memory/cgroup.procs").exists():
        return ROOT / "memory", V1
    controllers = ROOT / "cgroup.controllers"
    if not controllers.exists() or "memory" not in controllers.read_text().split():
        return None
    below = ROOT / "cgroup.subtree_control"
    if "memory" not in below.read_text().split():
        below.write_text("+memory")
    return ROOT, V2


def _name(state_dir: str, nonce: str) -> str:
    return f"eci-{os.path.abspath(state_dir).strip('/').replace('/', '-')}-{nonce}"


def _sweep(top: Path, state_dir: str) -> None:
    """Remove the cgroups of containers whose state is gone, with whoever would have cleared up."""
    containers = os.path.dirname(os.path.abspath(state_dir))
    prefix = f"eci-{containers.strip('/').replace('/', '-')}-"
    for path in top.glob(f"{prefix}*"):
        key = path.name[len(prefix) :].rpartition("-")[0]
        if not os.path.lexists(f"{containers}/{key}"):
            with contextlib.suppress(OSError):  # in use, or gone
                path.rmdir()


def remove(state_dir: str, nonce: str) -> None:
    """Remove a cgroup that was made after its state had been removed; nobody is in it any more."""
    for top in (ROOT, ROOT / "memory"):
        with contextlib.suppress(OSError):
            (top / _name(state_dir, nonce)).rmdir()


class Room:
    """The cgroup of one worker.  Owns two descriptors, which are for the worker: -1 for none."""

    def __init__(self, state_dir: str, nonce: str, most: int) -> None:
        """Make it, for the container of `state_dir` and `nonce`; `most`: bytes, 0 for no bound.

        OSError where it cannot be made.  It is removed by csrc/cleanup.c.
        """
        self.most = 0
        self.usage = self.reclaim = -1
        self._directory: Path | None = None
        found = _hierarchy() if most else None
        if found is None:
            return
        top, files = found
        _sweep(top, state_dir)
        directory = top / _name(state_dir, nonce)
        Path(state_dir, FILE).write_text(f"{directory}", encoding="utf-8")
        directory.mkdir(exist_ok=True)
        (directory / files.limit).write_text(f"{2 * most}")
        try:
            self.usage = os.open(directory / files.usage, os.O_RDONLY | os.O_CLOEXEC)
            self.reclaim = os.open(directory / files.reclaim, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise
        self.most = most
        self._directory = directory

    def take_in(self, pid: int) -> None:
        """Have the process `pid` (our PID namespace), and what it forks, charged here from now on.

        OSError where it cannot be moved.
        """
        if self._directory is not None:
            (self._directory / "cgroup.procs").write_text(f"{pid}")

    def close(self) -> None:
        """Close the descriptors; the cgroup stays."""
        for fd in (self.usage, self.reclaim):
            if fd >= 0:
                os.close(fd)
        self.usage = self.reclaim = -1
