"""Namespaces that the container joins, and the user namespace that follows from them.

`--network container:X`, a pod's sandbox, `nsenter`-like paths: a namespace belongs to the
user namespace in which it was made.  If that is another protected container's, ours must run
in the same one, else its root would have no rights over what it joins.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import syscalls
from eci_supervisor.policy import refusals
from eci_supervisor.runtime.errors import RefusedError, SpecError
from eci_supervisor.runtime.spec import Mapping

if TYPE_CHECKING:
    from eci_supervisor.runtime.refuse import Identity, Joined


class UserNamespace(msgspec.Struct, frozen=True):
    """A user namespace to join, with its maps."""

    fd: int
    """Belongs to who holds this value."""
    identity: Identity
    uid_mappings: tuple[Mapping, ...]
    gid_mappings: tuple[Mapping, ...]


class Joins(msgspec.Struct, frozen=True):
    """What follows from the joined namespaces."""

    user: UserNamespace | None
    """None: a new one."""
    network_of_host: bool
    """The network namespace that is joined belongs to the host's user namespace (CRI, podman)."""


def _identity(fd: int) -> Identity:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _owner(joined: Joined) -> int:
    """Return a descriptor of the user namespace that `joined` belongs to, or is."""
    if joined.kind == "user":
        return os.dup(joined.fd)
    try:
        return syscalls.ns_get_userns(joined.fd)
    except OSError as error:
        raise SpecError(
            f"config.json: linux.namespaces: the owner of the {joined.kind} namespace cannot be "
            f"found: {error.strerror}"
        ) from error


def resolve(joined: dict[str, Joined], host_user: Identity) -> Joins:
    """Find the user namespace that goes with the joined namespaces.

    A user namespace that is named but is the host's counts as not named (`--userns=host`).
    RefusedError if they belong to different ones.
    """
    chosen: int | None = None
    network_of_host = False
    for kind, entry in joined.items():
        if kind in ("cgroup", "mount"):
            continue
        owner = _owner(entry)
        identity = _identity(owner)
        if identity == host_user:
            network_of_host = network_of_host or kind == "network"
            os.close(owner)
        elif chosen is None:
            chosen = owner
        elif identity == _identity(chosen):
            os.close(owner)
        else:
            os.close(owner)
            os.close(chosen)
            raise RefusedError(
                "the namespaces that the container is to join belong to different containers "
                "with ID ranges of their own: join those of one container only",
                refusals.FOREIGN_NAMESPACES,
            )
    if chosen is None:
        return Joins(None, network_of_host)
    uid_mappings, gid_mappings = read_maps(chosen)
    return Joins(
        UserNamespace(chosen, _identity(chosen), uid_mappings, gid_mappings), network_of_host
    )


def _parse_map(text: str) -> tuple[Mapping, ...]:
    return tuple(Mapping(*(int(word) for word in line.split())) for line in text.splitlines())


def read_maps(userns: int) -> tuple[tuple[Mapping, ...], tuple[Mapping, ...]]:
    """Return the uid and gid maps of the user namespace `userns`, as the caller sees its ids.

    A child goes in and waits, for maps are files of a process.  The caller is single-threaded.
    """
    hold_read, hold_write = os.pipe()
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold_write)
            syscalls.setns(userns, syscalls.lib.CLONE_NEWUSER)
            os.write(ready_write, b"\n")
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    try:
        os.close(ready_write)
        os.close(hold_read)
        if not os.read(ready_read, 1):
            raise SpecError(
                "config.json: linux.namespaces: the user namespace to join cannot be entered"
            )
        maps = []
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
                maps.append(_parse_map(file.read()))
        return maps[0], maps[1]
    finally:
        os.close(hold_write)
        os.close(ready_read)
        os.waitpid(pid, 0)
