"""Where else the host has what a mount in an engine's directory shows.

An engine mounts volumes, and parts of them, as the host's root and whatever its user asked for: so
such a mount is judged by the other places where the same is to be had.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from eci_supervisor.runtime import sources as opened

if TYPE_CHECKING:
    from eci_supervisor.policy.paths import Identity
    from eci_supervisor.runtime.sources import Chain, HostMounts, Source

_LOCAL = (b"overlay", b"tmpfs")
"""File systems that nobody but this host has, so that a mount of a whole one may be a bind."""


def of_volume(mounts: HostMounts, source: Source) -> tuple[Chain, ...] | None:
    """Return where the host has what an engine has mounted as a volume; None for nowhere.

    A device is where its node is.  A directory that was bound is wherever the host shows it.  What
    comes over a network, or lives in memory, is nowhere.
    """
    mount = source.mount
    if mount.fstype == b"overlay":
        return ()  # its layers may be anything
    if mount.root != b"/":
        return tuple(one.chain for one in _others(mounts, source))
    node = look_up(mounts, os.path.join(b"/", mount.source))
    if not _needs_device(mount.fstype):
        return None if node is None else (node.chain,)
    number = None if node is None else _number(node)
    # Of those whose superblock has a number of its own, such as btrfs, the node alone tells.
    known = number is not None and (mount.device.startswith(b"0:") or number == mount.device)
    return (node.chain,) if node is not None and known else ()


def of_own(mounts: HostMounts, source: Source, own: Identity) -> tuple[Chain, ...] | None:
    """Return the same of a mount within the engine's directory for one container, `own`.

    None where it is that container's: a part of what a driver has mounted there as a whole, or
    what is nowhere else.  (A part is subPath of Kubernetes.)
    """
    mount = source.mount
    if mount.root == b"/" and mount.fstype not in _LOCAL:
        return None
    outside = []
    for one in _others(mounts, source):
        if own not in one.chain:
            outside.append(one.chain)
        elif one.mount.root == b"/" and mount.fstype not in _LOCAL:
            return None
    is_nowhere = mount.root == b"/" or not _needs_device(mount.fstype)
    return None if is_nowhere and not outside else tuple(outside)


def lies_in(mounts: HostMounts, source: Source, own: Identity) -> bool:
    """Say whether a mount shows what lies in the directory `own` itself, in no mount in that."""
    return any(
        own in one.chain and one.depth > one.chain.index(own) for one in _others(mounts, source)
    )


def look_up(mounts: HostMounts, path: bytes) -> Source | None:
    """Return what is at a path, closed already; None where there is nothing to be had."""
    try:
        found = opened.look_up(mounts, -1, "", "", path)
    except OSError:
        return None
    os.close(found.fd)
    return found


def _others(mounts: HostMounts, source: Source) -> list[Source]:
    """Return the other places where mounts of the host show the very same, not hidden."""
    places = mounts.showing(source.place, but=source.mount.mount_id)
    there = (look_up(mounts, path) for path in places)
    return [one for one in there if one is not None and one.identity == source.identity]


def _number(node: Source) -> bytes | None:
    """Return a block device's number as mountinfo has it; None for anything else."""
    if not stat.S_ISBLK(node.mode):
        return None
    return b"%d:%d" % (os.major(node.rdev), os.minor(node.rdev))


def _needs_device(fstype: bytes) -> bool:
    """Say whether a file system lies on a block device: proc_filesystems(5)."""
    with open("/proc/filesystems", "rb") as file:
        return any(line.split() == [fstype] for line in file)
