"""Mount points: finding and making them beneath an open directory.

A path is used once, to get a descriptor.
"""

from __future__ import annotations

import os
import stat

import msgspec

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib

IN_ROOT = lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS
"""Links are followed, and stay beneath the directory."""
NO_LINKS = lib.RESOLVE_BENEATH | lib.RESOLVE_NO_SYMLINKS
"""A link is an error: ELOOP."""


def read_link(root: int, path: str) -> str | None:
    """Return what the link `path` beneath `root` says; None where there is no link, or nothing."""
    flags = os.O_PATH | os.O_NOFOLLOW
    try:
        fd = syscalls.openat2(root, path, flags, resolve=NO_LINKS)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


DEFAULT_MODE = 0o755
"""What the runtimes give to a mount point that they make."""


class Point(msgspec.Struct, frozen=True):
    """A place in the root file system where something will be mounted."""

    path: str
    directory: bool = True
    mode: int = DEFAULT_MODE
    """Of the directory, if it has to be made."""


def make(root: int, path: str, resolve: int, *, directory: bool, mode: int = DEFAULT_MODE) -> int:
    """Return an O_PATH descriptor of `path` beneath `root`, made with its parents where missing.

    `resolve`: `IN_ROOT` or `NO_LINKS`.  What is there already stays.  OSError where a parent is
    no directory.
    """
    steps = [step for step in path.split("/") if step]
    for depth, step in enumerate(steps, 1):
        here = "/".join(steps[:depth])
        try:
            os.close(syscalls.openat2(root, here, os.O_PATH, resolve=resolve))
        except FileNotFoundError:
            above = "/".join(steps[: depth - 1]) or "."
            flags = os.O_PATH | os.O_DIRECTORY
            parent = syscalls.openat2(root, above, flags, resolve=resolve)
            try:
                last = depth == len(steps)
                _make_one(parent, step, directory=directory or not last)
                if last and directory and mode != DEFAULT_MODE:
                    _set_mode(parent, step, mode)
            finally:
                os.close(parent)
    return syscalls.openat2(root, "/".join(steps) or ".", os.O_PATH, resolve=resolve)


def _set_mode(parent: int, name: str, mode: int) -> None:
    """Change the mode of a new directory, of which somebody else can have made a link meanwhile."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    fd = syscalls.openat2(parent, name, flags, resolve=NO_LINKS)
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _make_one(parent: int, name: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(name, 0o755, dir_fd=parent)
    else:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o755, dir_fd=parent))
