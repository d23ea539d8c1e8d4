"""The directory, cgroup and environment that a session owns, and what it left behind.

A session is a run of the tests, or of a measurement.

Everything that it starts is recognisable as the session's: its processes carry
``ECI_STATE_DIR`` in their environment or live in a cgroup below ``Place.cgroup``, and its mounts
and files lie below ``Place.root``.  So the search for leftovers needs no snapshot of the machine
and is not disturbed by what else runs on it.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.fork_servers import end_fork_servers, fork_servers, standing_by

if TYPE_CHECKING:
    from collections.abc import Collection

CGROUP_ROOT = Path("/sys/fs/cgroup")


def _remove_cgroup(parent: Path) -> None:
    """Remove it and what is below, which podman's monitors may still be doing themselves."""
    deadline = time.monotonic() + 5
    while parent.exists():
        children = [path for path in parent.rglob("*") if path.is_dir()]
        try:
            for path in sorted(children, key=lambda path: -len(path.parts)):
                path.rmdir()
            parent.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@dataclass(slots=True)
class Place:
    """Where one session keeps all it makes.

    The path is short, because the sockets below it have 108 bytes, and open to everybody as far
    as the root file systems, because the mapped root of a container has to walk to them.
    """

    root: Path
    cgroup: str
    """Name of the session's cgroup in every hierarchy, without slashes."""
    daemons: set[int] = field(default_factory=set)
    """Pids that may live on between modules: the engines of the session's fixtures."""
    daemon_dirs: set[Path] = field(default_factory=set)
    """Directories below which those engines may keep mounts between modules."""

    engine_cgroups: set[str] = field(default_factory=set)
    """Names of cgroups that an engine keeps below the session's, for itself."""
    _numbers: dict[str, itertools.count[int]] = field(default_factory=dict)
    """By name, the numbers of the next directories; several threads may make some."""

    @classmethod
    def create(cls) -> Place:
        """Make the place of this process; nothing of that name may exist."""
        root = Path(f"/var/tmp/eci-t{os.getpid()}")
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        place = cls(root=root, cgroup=root.name)
        place.state_dir.mkdir(mode=0o711)
        place.state_dir.chmod(0o711)
        return place

    @property
    def state_dir(self) -> Path:
        """What ``ECI_STATE_DIR`` names for the session."""
        return self.root / "s"

    @property
    def log_dir(self) -> Path:
        """What ``ECI_LOG_DIR`` names for the session."""
        return self.root / "l"

    @property
    def environment(self) -> dict[str, str]:
        """What keeps the session's containers away from the machine's."""
        return {
            "ECI_STATE_DIR": str(self.state_dir),
            "ECI_LOG_DIR": str(self.log_dir),
            "ECI_SYSLOG": "0",
        }

    def directory(self, name: str) -> Path:
        """Return a new directory, mode 0755, whose name begins with `name`."""
        for number in self._numbers.setdefault(name, itertools.count()):
            path = self.root / f"{name}{number}"
            try:
                path.mkdir(mode=0o755)
            except FileExistsError:
                continue
            path.chmod(0o755)
            return path
        raise AssertionError("numbers have no end")

    def remove(self) -> None:
        """Remove the session's cgroups and files; OSError when one is still in use.

        Empty cgroups that were left behind have been reported before.  Nothing may be mounted.
        """
        end_fork_servers(self.state_dir)
        for parent in _cgroups(self.cgroup):
            _remove_cgroup(parent)
        shutil.rmtree(self.root)

    # -- what was left behind -------------------------------------------------------------

    def leftovers(self, *, patience: float = 5.0, before: Collection[str] = ()) -> list[str]:
        """Return one line for each thing that is left, after at most `patience` seconds.

        What is in `before`, an earlier answer, belongs to another test.  Some ends
        are not synchronous: a keeper ends a moment after `delete` returned.
        """
        deadline = time.monotonic() + patience
        looks = (self.left_mounts, self.left_cgroups, self.left_state, self.left_processes)
        while True:
            is_last = time.monotonic() >= deadline
            found: list[str] = []
            for look in looks:
                found += [line for line in look() if line not in before]
                if found and not is_last:
                    break  # that is enough to look again, and the processes take the longest
            if not found or is_last:
                return found
            time.sleep(0.05)

    def left_mounts(self) -> list[str]:
        """Mounts of this mount namespace that lie below, or show, what is the session's."""
        found = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            target = _unescape(line.split()[4])
            if not _below(Path(target), self.root):
                continue
            if any(_below(Path(target), kept) for kept in self.daemon_dirs):
                continue
            found.append(f"mount: {line}")
        return found

    def left_cgroups(self) -> list[str]:
        """Cgroups that were made below the session's."""
        found = []
        for parent in _cgroups(self.cgroup):
            # One that is being removed at this moment has gone: os.walk passes it over.
            for directory, names, _ in os.walk(parent):
                found += [
                    f"cgroup: {directory}/{name}"
                    for name in names
                    if name not in self.engine_cgroups
                ]
        # Those of the workers: supervisor/memory.py.
        prefix = f"eci-{str(self.state_dir).strip('/').replace('/', '-')}-"
        for top in (CGROUP_ROOT, CGROUP_ROOT / "memory"):
            found += [f"cgroup: {path}" for path in top.glob(f"{prefix}*")]
        return found

    def left_processes(self) -> list[str]:
        """Processes that the session started, by environment, by cgroup or by what they run."""
        servers = fork_servers(self.state_dir)
        ready = {one.pid for server in servers for one in standing_by(server)}
        ours = {os.getpid(), *self.daemons, *servers, *ready}
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in ours:
                continue
            try:
                if not self._has_started(f"/proc/{name}"):
                    continue
                state, parent = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()[:2]
                words = _read(f"/proc/{name}/cmdline").replace(b"\0", b" ")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            # A zombie belongs to whoever does not wait for it, init often among them: it holds
            # nothing, and no test can remove it.
            if state not in (b"Z", b"X"):
                text = words.decode(errors="replace")
                found.append(f"process: {name} (parent {int(parent)}): {text}")
        return found

    def _has_started(self, proc: str) -> bool:
        """Say whether a process is the session's, which most of a machine's are not."""
        mark = f"\0ECI_STATE_DIR={self.state_dir}\0".encode()
        return (
            mark in b"\0" + _read(f"{proc}/environ") + b"\0"
            or os.fsencode(self.root) + b"/" in _read(f"{proc}/cmdline")
            or f"/{self.cgroup}/".encode() in _read(f"{proc}/cgroup")
        )

    def left_state(self) -> list[str]:
        """Containers and taken ranges in the state directory."""
        found = []
        for pattern in ("containers/*", "ranges/*/*"):
            found += [f"state: {path}" for path in self.state_dir.glob(pattern)]
        return found


def _read(path: str) -> bytes:
    """Read a file of /proc; it is done for every process of the machine, again and again."""
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def _below(path: Path, top: Path) -> bool:
    return path == top or top in path.parents


def _cgroups(name: str) -> list[Path]:
    """Return the directories of the cgroup `name` in all hierarchies, v1, hybrid or v2."""
    candidates = [CGROUP_ROOT / name, *CGROUP_ROOT.glob(f"*/{name}")]
    # A named or joined controller can be reached by a symbolic link as well.
    return sorted({path.resolve() for path in candidates if path.is_dir()})


def _unescape(word: str) -> str:
    """Decode the octal escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)
