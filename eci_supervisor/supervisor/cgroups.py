"""Delegation: the container's root may divide its own cgroup, and nothing above it.

cgroups(7), "Cgroups delegation": the directory and the files through which processes are
moved change hands; the resource knobs do not, so the limits stay.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
DELEGATED = (
    "cgroup.procs",
    "tasks", "cgroup.clone_children",  # version 1
    "cgroup.threads", "cgroup.subtree_control",  # version 2
)  # fmt: skip


def _own_paths(pid: int) -> dict[str, str]:
    """Return controller list -> path of our own cgroup, to leave out what is not a child."""
    text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    return {
        controllers: path
        for _, controllers, path in (line.split(":", 2) for line in text.splitlines())
    }


def _mount_points(controllers: str) -> list[str]:
    if not controllers:
        return [f"{ROOT}" if os.path.exists(f"{ROOT}/cgroup.controllers") else f"{ROOT}/unified"]
    names = controllers.removeprefix("name=")
    return [f"{ROOT}/{name}" for name in dict.fromkeys((names, *names.split(",")))]


def delegate(pid: int, uid: int, gid: int) -> list[str]:
    """Give the cgroups of `pid` (host's number) to `uid` and `gid` (host ids).

    Cgroups that the process shares with us are nobody's to give.  Returns the directories; of a
    process that has ended the kernel tells only that of cgroup v2 (cgroups(7), /proc/[pid]/cgroup).
    """
    ours = _own_paths(os.getpid())
    given = []
    for controllers, path in _own_paths(pid).items():
        if path == "/" or ours.get(controllers) == path or ".." in path.split("/"):
            continue
        for mount_point in _mount_points(controllers):
            directory = f"{mount_point}{path}"
            if _give(directory, uid, gid):
                given.append(directory)
                break
    return given


def _give(directory: str, uid: int, gid: int) -> bool:
    """Give one cgroup away; False where there is none."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        os.chown(fd, uid, gid)
        for name in DELEGATED:
            with contextlib.suppress(FileNotFoundError):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)
    return True


def directories(path: str | None) -> list[str]:
    """Return where a cgroup of that path would be, in every hierarchy; none for no plain path."""
    if not path or not path.startswith("/") or path == "/" or ".." in path.split("/"):
        return []
    mount_points = [ROOT, *ROOT.iterdir()]
    return [f"{mount_point}{path}" for mount_point in mount_points if mount_point.is_dir()]


def remove(paths: list[str], seconds: float = 2.0) -> None:
    """Remove the cgroups among `paths` that are empty, or become so within `seconds`.

    A cgroup with a process or a child in it stays: rmdir(2) says EBUSY.
    """
    deadline = time.monotonic() + seconds
    left = [path for path in paths if os.path.isdir(path)]
    while left:
        for path in list(left):
            try:
                os.rmdir(path)
            except OSError:
                if os.path.isdir(path):
                    continue
            left.remove(path)
        if time.monotonic() > deadline:
            return
        if left:
            time.sleep(0.01)
