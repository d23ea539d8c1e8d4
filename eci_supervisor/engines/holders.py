"""Which processes of this host are container engines, and which sockets they hold.

An engine is known by the program that it executes.  A socket is an engine's if such a process
has it open: so one that systemd made for it counts, once the engine has taken it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = frozenset({
    "buildkitd",
    "com.docker.backend",
    "containerd",
    "cri-dockerd",
    "crio",
    "docker-containerd",
    "dockerd",
    "podman",
    "rootlesskit",
})  # fmt: skip
_DELETED = " (deleted)"
_LISTENS = 0x00010000
"""__SO_ACCEPTCON in the flags of /proc/net/unix."""


class Engine(msgspec.Struct, frozen=True):
    """One process that is an engine."""

    pid: int
    program: str
    sockets: frozenset[int]
    """Inodes, in sockfs, of what it has open."""


def _confined(pid: int, ranges: range) -> bool:
    """Whether it runs in a protected container: what it can do is the container's to do.

    Its root is then an id of `ranges`, those that containers get.
    """
    own = os.stat("/proc/self/ns/user")
    its = os.stat(f"/proc/{pid}/ns/user")
    if (own.st_dev, own.st_ino) == (its.st_dev, its.st_ino):
        return False
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
        lines = [line.split() for line in file]
    return bool(lines) and all(int(outside) in ranges for _, outside, _ in lines)


def engines(ranges: range) -> list[Engine]:
    """Return the engines of this host.  Pids are of our own PID namespace.

    `ranges`: host ids of protected containers.  Who ends meanwhile is not among them.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            program = _executed(name)
            if program in PROGRAMS and not _confined(int(name), ranges):
                found.append(Engine(int(name), program, frozenset(_sockets(name))))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _executed(pid: str) -> str:
    """Return the name of the program that a process executes.

    PermissionError where that cannot be read of one that calls itself an engine: it has
    capabilities that we lack (ptrace(2), "access mode checking").
    """
    try:
        return _program(os.readlink(f"/proc/{pid}/exe"))
    except PermissionError:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            if file.read().strip() in PROGRAMS:
                raise
        return ""


def _sockets(pid: str) -> Iterator[int]:
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
        if link.startswith("socket:["):
            yield int(link[len("socket:[") : -1])


def elsewhere(engine: Engine) -> Iterator[str]:
    """Yield paths of an engine's listening sockets, where its network namespace is not ours.

    They lead through its root directory.
    """
    try:
        own, its = os.stat("/proc/self/ns/net"), os.stat(f"/proc/{engine.pid}/ns/net")
        if (own.st_dev, own.st_ino) == (its.st_dev, its.st_ino):
            return
        with open(
            f"/proc/{engine.pid}/net/unix", encoding="utf-8", errors="surrogateescape"
        ) as file:
            lines = file.read().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return
    for line in lines:
        # Num RefCount Protocol Flags Type St Inode Path
        words = line.split(maxsplit=7)
        has_path = len(words) == 8 and words[7].startswith("/")  # noqa: PLR2004 - the columns
        if has_path and int(words[3], 16) & _LISTENS and int(words[6]) in engine.sockets:
            yield f"/proc/{engine.pid}/root{words[7]}"


def command(pid: int) -> tuple[str, list[bytes]]:
    """Return the program and the words of a process; empty ones where it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(1 << 20).split(b"\0")
        return _program(os.readlink(f"/proc/{pid}/exe")), words
    except (FileNotFoundError, ProcessLookupError):
        return "", []


def _program(path: str) -> str:
    return os.path.basename(path).removesuffix(_DELETED)
