"""What the rules say, told by the mount table of a container without them.

Written from ARCHITECTURE.md ("The rules") and mount(2), and on purpose not from the program:
storage and places are found by the paths of mountinfo where the program goes by inodes.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.differential.table import Base, Mount, Table, below

if TYPE_CHECKING:
    from collections.abc import Collection

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 32, 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_MGC_VAL, MS_MGC_MSK = 0xC0ED0000, 0xFFFF0000
HELD = {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
UNKNOWN_UMOUNT = 0xFFFFFFF0
MOVE_MOUNT_FLAGS, MOVE_MOUNT_SET_GROUP, MOVE_MOUNT_BENEATH = 0x377, 0x100, 0x200
AT_RECURSIVE = 0x8000
ATTRS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
UINT_MAX = 0xFFFFFFFF
MS_NOUSER = 0xFFFFFFFF80000000
"""An int in the kernel, with all the bits above it."""
LONGEST = 4095
SCRATCH = "/mnt"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a rule answers."""

    error: str
    reason: str


LOOSEN = Refusal("EPERM", "refused:no-loosening")
UNCOVER = Refusal("EPERM", "refused:no-uncovering")
KERNEL_FS_BUSY = Refusal("EBUSY", "refused:kernel-fs-busy")
COVERED = Refusal("", "")
"""A procfs or sysfs that comes up with masks, where the kernel alone says EPERM: too revealing."""
ELSEWHERE = Refusal("EINVAL", "")
"""A mount of another namespace.

The kernel says EINVAL to nearly all, and a rule may have said no before, by the storage.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """What a path stands for."""

    mount: Mount
    is_root: bool
    path: str
    """In the storage of the mount."""


def _place(table: Table, word: str) -> Place | None:
    """Decode what the program says of a path; None where the mount is in no table of ours."""
    _, ident, is_root, text = word.split(":", 3)
    mount = table.mounts.get(int(ident))
    if mount is None:
        return None
    inside = below(unquote(text), unquote(mount.point))
    path = mount.root.rstrip("/") + inside if inside is not None else mount.root
    return Place(mount, is_root == "1", path)


def _leads_somewhere(word: str) -> bool:
    return word.startswith("0:")


@dataclass(frozen=True)
class Oracle:
    """The rules of one container, by its initial mount table."""

    base: Base
    masked: Collection[str]
    readonly: Collection[str]
    width: int
    """Bits of a word in the calling program."""

    @cached_property
    def grants(self) -> Base:
        """The mounts of the runtime: all but the one that the test has made."""
        mounts = self.base.table.mounts.values()
        return Base(Table({one.ident: one for one in mounts if one.point != SCRATCH}))

    @cached_property
    def covers(self) -> list[Mount]:
        """The mounts that hide something."""
        found = []
        for mount in self.grants.table.mounts.values():
            parent = self.grants.table.mounts.get(mount.parent)
            if parent is None:
                continue
            if (
                mount.point in self.masked
                or mount.point in self.readonly
                or ("ro" in self._held(mount) and "ro" not in self._held(parent))
            ):
                found.append(mount)
        return found

    @staticmethod
    def _held(mount: Mount) -> frozenset[str]:
        held = mount.options & frozenset(HELD)
        return held | {"ro"} if "ro" in mount.super_options else held

    def _is_masked(self, kind: str) -> bool:
        """Say whether the container's file system of that type has covers."""
        return any(
            self.grants.table.mounts[mount.parent].fstype == kind
            for mount in self.covers
            if mount.point in self.masked or mount.point in self.readonly
        )

    def _is_null(self, word: str) -> bool:
        return word == "-" or (word[0] == "*" and not int(word[1:], 16) & ((1 << self.width) - 1))

    def _is_string(self, word: str) -> bool:
        """Say whether the kernel takes the word for a string or none."""
        return self._is_null(word) or (word[0] in "=>" and len(unquote(word[1:])) <= LONGEST)

    def _is_page(self, word: str) -> bool:
        """Say whether the kernel takes the word for options: those that are readable count."""
        return self._is_null(word) or (word[0] != "*" and word != "!")

    def judge(
        self, words: list[str], facts: list[str], table: Table, detached: Table
    ) -> Refusal | None:
        """Return the refusal that the call must meet, or None: it is the kernel's to answer.

        `words` is the call, `facts` what the program without protection says: 1 where the caller
        has CAP_SYS_ADMIN and nothing else is wrong, what the target stands for, and the source of a
        mount; of fsmount what was given to fsopen.  `detached` has the mounts of a detached target.
        """
        if facts[0] != "1":
            return None
        if words[0] == "fsmount":
            return self._fsmount(facts[1])
        return self._judge_at(words, facts, table, detached) if _leads_somewhere(facts[1]) else None

    def _judge_at(
        self, words: list[str], facts: list[str], table: Table, detached: Table
    ) -> Refusal | None:
        target = _place(table, facts[1])
        if words[0] == "move_mount":
            return self._move_mount(words, target, facts[2], table)
        if words[0] == "mount_setattr":
            # Whether the file of a namespace can be attached depends on which of two came first.
            if target is None and re.search(r":\w+:\[\d+\]$", facts[1]):
                return ELSEWHERE
            return self._setattr(words, target, table, detached)
        if words[0] == "mount":
            return self._old_mount(words, target, facts[2], table)
        unknown = words[0] != "umount" and int(words[2], 16) & UNKNOWN_UMOUNT
        return None if unknown else self._removal(target, table)

    def _fsmount(self, kind: str) -> Refusal | None:
        # What fspick gave cannot be mounted again, but may be too revealing before that.
        kinds = {"proc", "sysfs"} if kind == "picked" else {kind}
        return COVERED if any(map(self._is_masked, kinds)) else None

    def _old_mount(
        self, words: list[str], target: Place | None, origin: str, table: Table
    ) -> Refusal | None:
        _, source, _, kind, flags, data = words
        if not self._is_string(source) or not self._is_string(kind) or not self._is_page(data):
            return None
        refusal = self._mount(int(flags, 16) & ((1 << self.width) - 1), kind, target, table,
                              "" if source in {"=", ">"} else origin)  # fmt: skip
        return refusal or (ELSEWHERE if target is None else None)

    def _mount(
        self, flags: int, kind: str, target: Place | None, table: Table, source: str
    ) -> Refusal | None:
        if flags & MS_MGC_MSK == MS_MGC_VAL:
            flags &= 0xFFFF
        if flags & MS_NOUSER:
            return None
        if flags & MS_REMOUNT:
            return self._remount(flags, target)
        if flags & MS_BIND:
            known = _leads_somewhere(source)
            return self._bind(flags, _place(table, source)) if known else None
        if flags & (MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED):
            return self._propagation(flags, target)
        if flags & MS_MOVE:
            known = _leads_somewhere(source)
            moved = _place(table, source) if known else None
            # Or detached: then the kernel does not say EINVAL.
            return self._removal(moved, table) if moved else None
        return COVERED if self._is_masked(kind[1:]) else None

    def _move_mount(
        self, words: list[str], target: Place | None, origin: str, table: Table
    ) -> Refusal | None:
        flags = int(words[5], 16) & UINT_MAX
        both = MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_BENEATH
        if flags & ~MOVE_MOUNT_FLAGS or flags & both == both or not _leads_somewhere(origin):
            return None
        source = _place(table, origin)
        # What comes to lie beneath a mount can take it along.
        moved = [target] if flags & MOVE_MOUNT_BENEATH and target else []
        if source and not flags & MOVE_MOUNT_SET_GROUP:
            moved.append(source)
        for place in moved:
            refusal = self._removal(place, table)
            if refusal:
                return refusal
        if flags & MOVE_MOUNT_SET_GROUP and target and self._bind(0, target):
            return UNCOVER
        # Or detached: then the kernel does not say EINVAL.
        return None if source and target else ELSEWHERE

    def _setattr(
        self, words: list[str], target: Place | None, table: Table, detached: Table
    ) -> Refusal | None:
        numbers = [int(word or "0", 16) for word in words[4][1:].split(",")]
        _, clear, propagation, *_ = [*numbers, 0, 0, 0]
        recursive = bool(int(words[3], 16) & AT_RECURSIVE)
        if target:
            mounts = table.below(target.mount) if recursive else [target.mount]
        else:
            mounts = list(detached.mounts.values())
            if not recursive:
                mounts = [mount for mount in mounts if mount.parent not in detached.mounts]
        # Of what cannot be copied nobody knows what it has to keep.
        held = frozenset[str]().union(*map(self._must_keep, mounts)) if mounts else ATTRS
        if any(clear & ATTRS[word] for word in held):
            return LOOSEN
        hits = any(self._same_storage(one, cover) for one in mounts[:1] for cover in self.covers)
        whole = target is None or target.is_root
        # A detached tree is judged by a copy, which would lack what is unbindable.
        hidden = target is None or (hits and whole) or (recursive and self.covers)
        if propagation & MS_UNBINDABLE and hidden:
            return UNCOVER
        return None if mounts else ELSEWHERE

    def _remount(self, flags: int, target: Place | None) -> Refusal | None:
        if target is None:
            return ELSEWHERE
        held = self._must_keep(target.mount)
        return LOOSEN if any(not flags & HELD[word] for word in held) else None

    def _must_keep(self, mount: Mount) -> frozenset[str]:
        near = self.grants.nearest(mount)
        return frozenset.intersection(*map(self._held, near[0])) if near else frozenset()

    def _same_storage(self, one: Mount, other: Mount) -> bool:
        return (one.device, one.root) == (other.device, other.root)

    def _in_place(self, mount: Mount, cover: Mount, table: Table) -> bool:
        """Say whether `mount` lies in this table where `cover` lies in the initial one."""
        if not self._same_storage(mount, cover):
            return False
        here, there = table.location(mount), self.grants.table.location(cover)
        if here is None or there is None:
            return here is None and mount.ident == cover.ident
        return (here[0].device, here[1]) == (there[0].device, there[1])

    def _removal(self, place: Place | None, table: Table) -> Refusal | None:
        if place is None:
            return ELSEWHERE
        if not place.is_root:
            return None
        for mount in self.grants.table.mounts.values():
            if (
                mount.fstype in {"proc", "sysfs"}
                and mount.root == "/"
                and mount.point in {"/proc", "/sys"}
                and place.mount.point == mount.point
                and self._in_place(place.mount, mount, table)
            ):
                return KERNEL_FS_BUSY
        if any(self._in_place(place.mount, cover, table) for cover in self.covers):
            return UNCOVER
        return None

    def _bind(self, flags: int, origin: Place | None) -> Refusal | None:
        if origin is None:
            return ELSEWHERE
        if flags & MS_REC:
            return None
        for cover in self.covers:
            there = self.grants.table.location(cover)
            if (
                there
                and there[0].device == origin.mount.device
                and below(posixpath.dirname(there[1]), origin.path) is not None
            ):
                return UNCOVER
        return None

    def _propagation(self, flags: int, target: Place | None) -> Refusal | None:
        if target is None:
            return ELSEWHERE
        if not flags & MS_UNBINDABLE:
            return None
        hits = target.is_root and any(
            self._same_storage(target.mount, cover) for cover in self.covers
        )
        return UNCOVER if hits or (flags & MS_REC and self.covers) else None
