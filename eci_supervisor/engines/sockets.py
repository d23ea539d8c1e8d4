"""Whether what is mounted shows the socket of a container engine of this host.

A socket is its inode: device and inode number of the file, whatever it is called.  So a symbolic
link to it, a hard link, a bind of it and /proc/1/root/run/docker.sock are all the same.  Which
inodes are engines', tell sock_diag(7) (each listening socket with its inode) and who has it
open (holders.py); the well-known paths, where a socket that systemd holds for an engine lies before
the engine runs, too; and for a socket that is none of these, who answers there (probe.py).

A directory shows a socket that lies in it, at any depth.  It is not searched: the way leads from
each socket up, by the identity of each directory above it.  Only where a socket of an engine has
more names than the one that it was bound by (it was linked or renamed), a directory on its file
system is looked through.

Cheap where there is nothing to find: regular files are not looked at; processes are only where
some listening socket is shown at all.
"""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines import holders, probe
from eci_supervisor.kernel import mountinfo, sockdiag, syscalls
from eci_supervisor.kernel.syscalls import lib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.engines.holders import Engine
    from eci_supervisor.kernel.mountinfo import Mount
    from eci_supervisor.kernel.sockdiag import Listener

Identity = tuple[int, int]

WELL_KNOWN = (
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/containerd/containerd.sock.ttrpc",
    "/run/docker/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/dockershim.sock",
    "/run/snap.docker/docker.sock",
    "/var/run/docker.sock",
)
OF_USERS = ("docker.sock", "podman/podman.sock", "buildkit/buildkitd.sock")
"""In each /run/user/UID."""
VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS", "BUILDKIT_HOST")
"""Of our environment, which is an engine's: where they name a path."""
SHIMS = b"/run/containerd/s/"
"""Where containerd's shims listen, each for its container."""
DOCKERS = ("dockerd", "com.docker.backend")
"""Programs that speak Docker's API at their socket, and no other.

Not podman, which takes its own API's requests for that (SECURITY.md, "The restricted socket").
"""
DOCKERS_SOCKET = "docker.sock"
"""The file name of theirs."""
_AGENT = (b".buildkit-ssh-sock", b"ssh_auth_sock")
"""What BuildKit opens for `RUN --mount=type=ssh`: a directory's beginning, and the socket in it."""
MOST = 100_000
"""Entries of a directory that are looked through before it counts as showing the socket."""
_INODE = 0xFFFFFFFF


class Exposed(msgspec.Struct, frozen=True):
    """An engine's socket that a mount shows."""

    path: str
    """Where it lies, as far as that is known."""
    engine: str
    """Whose it is: a program, or what is known instead."""
    itself: bool
    """Whether the mount's source is the socket, and not something that it lies in."""
    speaks_docker: bool
    """Whether Docker's Engine API is spoken there, and nothing but that."""


class _Socket(msgspec.Struct, frozen=True):
    """One socket, that may be an engine's."""

    path: bytes
    """Its name, seen from our root; empty where it has none here."""
    devices: frozenset[int]
    """Of its file system: those that stat(2) and mountinfo have for it."""
    inode: int
    """Lower 32 bits."""
    known: bool = False
    """Whether it is an engine's by where it lies."""
    socket: int = 0
    """Inode in sockfs, if it is known."""
    sole: bool = True
    """Whether `path` is its only name."""


class Host:
    """What is asked about this host, once for all mounts of a container."""

    def __init__(self, bases: range, own: str) -> None:
        """Take note of `bases` (holders.engines), and of the state root, whose sockets count.

        Must be used in the host's mount and network namespace.
        """
        self._bases = bases
        self._own = os.path.realpath(own)
        self._directories: dict[bytes, Identity | None] = {}

    # -- the sockets --------------------------------------------------------------------------

    @functools.cached_property
    def _listeners(self) -> list[Listener]:
        return sockdiag.listening()

    @functools.cached_property
    def _engines(self) -> list[Engine]:
        return holders.engines(self._bases)

    @functools.cached_property
    def _sockets(self) -> list[_Socket]:
        """Every socket with a file that listens here, and the well-known ones."""
        found = [self._of_listener(listener) for listener in self._listeners if listener.inode]
        for path in _well_known():
            try:
                info = os.stat(path)
            except OSError:
                continue
            if stat.S_ISSOCK(info.st_mode):
                real = os.path.realpath(os.fsencode(path))
                number = info.st_ino & _INODE
                found.append(_Socket(real, frozenset({info.st_dev}), number, known=True))
        return found

    def _of_listener(self, listener: Listener) -> _Socket:
        path, devices, sole = b"", {listener.device}, False
        if listener.name.startswith(b"/"):
            try:
                info = os.lstat(listener.name)
            except OSError:
                info = None
            if info is not None and (info.st_ino & _INODE) == listener.inode:
                path = os.path.realpath(listener.name)
                devices.add(info.st_dev)
                sole = info.st_nlink == 1
        known = listener.name.startswith(SHIMS) or path.startswith(os.fsencode(self._own) + b"/")
        return _Socket(
            path, frozenset(devices), listener.inode, known, socket=listener.socket, sole=sole
        )

    def _holder(self, found: _Socket) -> str:
        """Return whose socket it is: an engine's program, a well-known path's name, or ""."""
        if _is_agent(found.path):
            return ""
        if found.socket:
            for engine in self._engines:
                if found.socket in engine.sockets:
                    return engine.program
        return os.fsdecode(os.path.basename(found.path)) if found.known else ""

    # -- a mount ------------------------------------------------------------------------------

    def exposed(self, fd: int) -> Exposed | None:
        """Return an engine's socket that a bind of what `fd` (O_PATH) refers to would show.

        OSError: ENOENT where the kernel has no unix_diag.
        """
        info = os.fstat(fd)
        if stat.S_ISSOCK(info.st_mode):
            return self._socket(fd, info)
        return self._directory(fd, info) if stat.S_ISDIR(info.st_mode) else None

    def _socket(self, fd: int, info: os.stat_result) -> Exposed | None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        devices = {info.st_dev, *_superblock(fd)}
        for found in self._sockets:
            if found.inode == info.st_ino & _INODE and not devices.isdisjoint(found.devices):
                program = self._holder(found)
                if _is_agent(found.path):
                    return None
                if program:
                    return _itself(fd, found.path or os.fsencode(path), program)
        for engine in self._engines:
            for other in holders.elsewhere(engine):
                if _identity(other) == (info.st_dev, info.st_ino):
                    # By its own name, if that leads there for us as well: the engine may restart.
                    name = other.removeprefix(b"/proc/%d/root" % engine.pid)
                    same = _identity(name) == (info.st_dev, info.st_ino)
                    return _itself(fd, name if same else os.fsencode(path), engine.program)
        paths = {os.fsencode(one) for one in _well_known()}
        paths |= {one.path for one in self._sockets if one.known and one.path}
        why = probe.leads_to_engine(fd, paths)
        if not why:
            return None
        return Exposed(path, why, itself=True, speaks_docker=probe.is_dockers(fd))

    def _directory(self, fd: int, info: os.stat_result) -> Exposed | None:
        here = (info.st_dev, info.st_ino)
        place = os.readlink(os.fsencode(f"/proc/self/fd/{fd}"))
        mounts = mountinfo.beneath(place)
        devices = {info.st_dev, *_superblock(fd), *map(_device, mounts)}
        for found in self._sockets:
            if here in self._above(found.path):
                shown = True
            elif devices.isdisjoint(found.devices):
                continue
            else:
                shown = any(_shows(mount, found) for mount in mounts)
            if shown or not found.sole:
                program = self._holder(found)
                if program and (shown or _contains(fd, found)):
                    return Exposed(
                        os.fsdecode(found.path or place),
                        program,
                        itself=False,
                        speaks_docker=program in DOCKERS,
                    )
        return None

    def _above(self, path: bytes) -> Iterator[Identity]:
        """Yield the identities of the directories above a path, up to the root."""
        while path not in (b"/", b""):
            path = os.path.dirname(path)
            if path not in self._directories:
                self._directories[path] = _identity(path)
            identity = self._directories[path]
            if identity is not None:
                yield identity


def _itself(fd: int, path: bytes, program: str) -> Exposed:
    speaks = program in DOCKERS or (program == DOCKERS_SOCKET and probe.is_dockers(fd))
    return Exposed(os.fsdecode(path), program, itself=True, speaks_docker=speaks)


def _is_agent(path: bytes) -> bool:
    directory, name = os.path.split(path)
    return name == _AGENT[1] and os.path.basename(directory).startswith(_AGENT[0])


def _well_known() -> Iterator[str]:
    yield from WELL_KNOWN
    try:
        users = os.listdir("/run/user")
    except FileNotFoundError:
        users = []
    for user in users:
        for name in OF_USERS:
            yield f"/run/user/{user}/{name}"
    for variable in VARIABLES:
        address = os.environ.get(variable, "").removeprefix("unix://")
        if address.startswith("/"):
            yield address


def _identity(path: bytes) -> Identity | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _device(mount: Mount) -> int:
    """Return the device number of a mount's superblock."""
    major, minor = mount.device.split(b":")
    return os.makedev(int(major), int(minor))


def _mount_of(fd: int, path: bytes = b"") -> Mount | None:
    flags = 0 if path else lib.AT_EMPTY_PATH
    return mountinfo.find(syscalls.statx_mnt_id(fd, path, flags))


def _superblock(fd: int) -> tuple[int, ...]:
    """Return the device of the superblock; that of stat(2) can be a subvolume's."""
    mount = _mount_of(fd)
    return () if mount is None else (_device(mount),)


def _shows(mount: Mount, found: _Socket) -> bool:
    """Whether a mount has the socket's path in it, seen within their file system."""
    if not found.path or _device(mount) not in found.devices:
        return False
    home = _mount_of(lib.AT_FDCWD, found.path)
    if home is None:
        return False
    inside = os.path.join(home.root, os.path.relpath(found.path, home.target))
    inside = os.path.normpath(inside)
    return inside == mount.root or inside.startswith(mount.root.rstrip(b"/") + b"/")


def _contains(fd: int, found: _Socket) -> bool:
    """Look through a directory for another name of a socket; a huge one is taken to have it."""
    left = MOST
    directories = [f"/proc/self/fd/{fd}"]
    while directories:
        try:
            with os.scandir(directories.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if not left:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    elif entry.inode() & _INODE == found.inode and stat.S_ISSOCK(
                        entry.stat(follow_symlinks=False).st_mode
                    ):
                        return True
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return True  # what cannot be looked through may have it
    return False
