"""What the container was given: every initial mount becomes a grant.

Pure: the mount table of the container's first process in, grants out.  What is under a mount
(the covered inode) is looked up later, by the worker in the container's mount namespace.
"""

from __future__ import annotations

import enum
import posixpath
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from eci_supervisor.kernel.mountinfo import Mount


class Kind(enum.Enum):
    """What an initial mount is for."""

    ROOTFS = "rootfs"
    MOUNT = "mount"
    MASK = "mask"
    READONLY_PATH = "read-only path"
    PROC = "proc"
    SYSFS = "sysfs"


FLAGS = (b"ro", b"nosuid", b"nodev", b"noexec")
"""The mount options that a grant holds on to, in the words of mountinfo."""


class Grant(msgspec.Struct, frozen=True):
    """One initial mount: where, which storage, and what must stay as it is."""

    point: bytes
    """Mount point, from the container's root."""
    device: tuple[int, int]
    """Superblock, as mountinfo numbers it."""
    root: bytes
    """Root of the mount inside its superblock."""
    flags: frozenset[bytes]
    """Of `FLAGS`, those that no remount may clear."""
    kind: Kind
    hides: bool
    """Unmounting or moving it away would uncover something."""
    under: bytes
    """File system type of the mount that it lies on."""


def _clean(path: str) -> bytes:
    return posixpath.normpath(path).encode("utf-8", "surrogateescape")


def _flags(mount: Mount) -> frozenset[bytes]:
    held = {word for word in FLAGS if word in mount.options}
    if b"ro" in mount.super_options.split(b","):
        held.add(b"ro")
    return frozenset(held)


def _is_below(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above.rstrip(b"/") + b"/")


def _lines(mounts: Sequence[Mount]) -> dict[int, set[int]]:
    """For each mount id, the ids of the mounts from it up to the root."""
    parents = {mount.mount_id: mount.parent_id for mount in mounts}
    lines: dict[int, set[int]] = {}
    for mount_id in parents:
        line: set[int] = set()
        at = mount_id
        while at in parents and at not in line:
            line.add(at)
            at = parents[at]
        lines[mount_id] = line
    return lines


def _buries(mount: Mount, mounts: Sequence[Mount], lines: dict[int, set[int]]) -> bool:
    """Say whether `mount` lies over another initial mount, which nobody can see any more."""
    return any(
        other.mount_id != mount.mount_id
        and other.mount_id not in lines[mount.mount_id] - {mount.parent_id}
        and mount.mount_id not in lines[other.mount_id]
        and _is_below(other.target, mount.target)
        for other in mounts
    ) or any(other.mount_id == mount.parent_id and other.target == mount.target for other in mounts)


def compile_grants(
    mounts: Sequence[Mount], masked_paths: Collection[str], readonly_paths: Collection[str]
) -> list[Grant]:
    """Turn the initial mount table into grants.

    `mounts` is the mount table as the container's first process sees it (paths from its root).
    """
    masked = {_clean(path) for path in masked_paths}
    readonly = {_clean(path) for path in readonly_paths}
    by_id = {mount.mount_id: mount for mount in mounts}
    lines = _lines(mounts)
    grants = []
    for mount in mounts:
        parent = by_id.get(mount.parent_id)
        kind = Kind.MOUNT
        if mount.target == b"/":
            kind = Kind.ROOTFS
        elif mount.target in masked:
            kind = Kind.MASK
        elif mount.target in readonly:
            kind = Kind.READONLY_PATH
        elif mount.fstype == b"proc" and mount.root == b"/":
            kind = Kind.PROC
        elif mount.fstype == b"sysfs" and mount.root == b"/":
            kind = Kind.SYSFS
        flags = _flags(mount)
        # Under a cgroup hierarchy there is an empty directory, and a new mount of it is no looser.
        over_writable = (
            parent is not None
            and b"ro" in flags
            and b"ro" not in _flags(parent)
            and mount.fstype not in {b"cgroup", b"cgroup2"}
        )
        hides = kind is not Kind.ROOTFS and (
            kind in {Kind.MASK, Kind.READONLY_PATH}
            or over_writable
            or _buries(mount, mounts, lines)
        )
        major, _, minor = mount.device.partition(b":")
        grants.append(
            Grant(
                point=mount.target,
                device=(int(major), int(minor)),
                root=mount.root,
                flags=flags,
                kind=kind,
                hides=hides,
                under=parent.fstype if parent is not None else b"",
            )
        )
    return grants
