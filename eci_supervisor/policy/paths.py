"""Which directories of the host a container may have: protectedPaths and sharedPaths.  Pure.

Identities in, verdict out.  A source is known in two ways, and neither may find it protected: by
what it is and what it lies in (device and inode of itself and of each directory above it, up to the
host's root), and by its place in its own file system, which says the same of a directory that was
bound elsewhere on the host.
"""

from __future__ import annotations

import enum
import posixpath
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Key = TypeVar("_Key")

Identity = tuple[int, int]
"""Device (`st_dev`) and inode of a file or directory."""

READ_ONLY = ":ro"
"""Ends an entry of protectedPaths that may be had read-only."""


class Access(enum.IntEnum):
    """What a named path means for what lies in it; of two for the same place the lowest counts."""

    PROTECTED = 0
    READ_ONLY = 1
    SHARED = 2


class Place(msgspec.Struct, frozen=True):
    """Where in a file system something lies, however and wherever that is mounted."""

    device: bytes
    """`major:minor` of the superblock, as mountinfo has it."""
    path: bytes
    """From the root of the file system."""

    def above(self) -> Iterator[Place]:
        """Yield what it lies in, nearest first."""
        path = self.path
        while path not in (b"/", b""):
            path = posixpath.dirname(path)
            yield Place(self.device, path)

    def holds(self, other: Place) -> bool:
        """Say whether `other` is this place or lies in it."""
        return self.device == other.device and (
            self.path in (b"/", other.path) or other.path.startswith(self.path + b"/")
        )


class Named(msgspec.Struct, frozen=True):
    """One path of the settings as it was found on the host."""

    access: Access
    identity: Identity
    above: tuple[Identity, ...]
    """The directories that it lies in, up to the host's root."""
    place: Place


class Inner(msgspec.Struct, frozen=True):
    """A mount that comes along with a source, as it lies in it."""

    path: bytes
    """Where it is mounted."""
    place: Place
    kernel: bool
    """It is a file system of the kernel's own: /proc, /sys, /dev and their like."""


class Found(msgspec.Struct, frozen=True):
    """A bind source as it was found on the host."""

    chain: tuple[Identity, ...]
    """Itself, and the directories that it lies in, up to the host's root."""
    place: Place
    root: int
    """Index in `chain` of the root of the mount that it lies in."""
    kernel: bool
    """As of Inner."""
    device: bool
    """It is a device node, and none of those that every container has."""
    read_only: bool
    """The container gets it read-only ..."""
    read_only_within: bool
    """... and what is mounted in it too."""
    inner: tuple[Inner, ...] = ()
    elsewhere: tuple[tuple[Identity, ...], ...] | None = None
    """For a volume that an engine made out of another place of the host: the chains of the places
    where the host has it.  One of them has to be shared; where there is none, nobody knows what it
    is.  None: it is the volume's own."""


class Table(msgspec.Struct, frozen=True):
    """The named paths, for looking up."""

    access: dict[Identity, Access]
    above: dict[Identity, Access]
    """What lies above a path that is not shared, and what of it is the least allowed."""
    places: dict[Place, Access]
    above_places: dict[Place, Access]

    def sharing(self, more: Iterable[Named]) -> Table:
        """Return the table with more shared paths; what is protected of the same stays so."""
        found = Table(dict(self.access), self.above, dict(self.places), self.above_places)
        for one in more:
            _lower(found.access, one.identity, one.access)
            _lower(found.places, one.place, one.access)
        return found

    def decided(self, chain: Iterable[Identity]) -> tuple[int, Access] | None:
        """Return index and meaning of the first of `chain` that is named: the deepest match."""
        for index, identity in enumerate(chain):
            access = self.access.get(identity)
            if access is not None:
                return index, access
        return None

    def of_place(self, place: Place) -> Access | None:
        """Return what the deepest named path that holds `place` means."""
        found = (self.places.get(one) for one in (place, *place.above()))
        return next((access for access in found if access is not None), None)

    def within(self, place: Place) -> Access:
        """Return the least that is allowed of what lies beneath `place`."""
        return self.above_places.get(place, Access.SHARED)


def compile_table(named: Iterable[Named]) -> Table:
    """Return the table; what is said twice of the same path, is said by the stricter one."""
    table = Table({}, {}, {}, {})
    for one in named:
        _lower(table.access, one.identity, one.access)
        _lower(table.places, one.place, one.access)
        if one.access is not Access.SHARED:
            for identity in one.above:
                _lower(table.above, identity, one.access)
            for place in one.place.above():
                _lower(table.above_places, place, one.access)
    return table


def _lower(known: dict[_Key, Access], key: _Key, access: Access) -> None:
    known[key] = min(access, known.get(key, access))


def split(entry: str) -> tuple[str, Access]:
    """Return the path of an entry of protectedPaths, and what it allows."""
    path = entry.removesuffix(READ_ONLY)
    return path, Access.PROTECTED if path == entry else Access.READ_ONLY


def shared(entries: Iterable[str]) -> list[tuple[str, Access]]:
    """Return the same of the entries of sharedPaths."""
    return [
        (path, Access.SHARED if access is Access.PROTECTED else access)
        for path, access in map(split, entries)
    ]


class HostPaths(msgspec.Struct, frozen=True):
    """The paths that the worker holds while the container runs (rule 3)."""

    protected: tuple[str, ...] = ()
    carved: tuple[str, ...] = ()
    """What of them is not, where it lies in one: shared, or read-only and so held by rule 1."""


def host_paths(paths: Iterable[tuple[str, Access]]) -> HostPaths:
    """Return what the worker is to hold of the named paths."""
    listed = list(paths)
    return HostPaths(
        protected=tuple(path for path, access in listed if access is Access.PROTECTED),
        carved=tuple(path for path, access in listed if access is not Access.PROTECTED),
    )


def offender(table: Table, found: Found, own: Iterable[Named] = ()) -> Found | Inner | None:
    """Return what of the source a container may not have: itself, a mount in it, or None.

    The deepest named path that it lies in decides; where there is none, it may not.  Nor may it
    have what a protected path lies in, as that would show it.  `own`: what is shared for the sake
    of this source alone; neither devices nor kernel file systems, nor what it shows elsewhere.
    """
    mine = table.sharing(own)
    if not _allows(mine, found, table):
        return found
    return next((one for one in found.inner if not _allows_inner(mine, one, found)), None)


def _allows(table: Table, found: Found, settings: Table) -> bool:
    decided = table.decided(found.chain)
    if decided is None:
        return False
    if found.device or found.kernel:
        named = settings.decided(found.chain)
        # A device only where it is named itself.
        least = 0 if found.device else found.root
        if named is None or named[0] > least or named[1] is Access.PROTECTED:
            return False
    access = decided[1]
    allowed = [
        access,
        table.above.get(found.chain[0], Access.SHARED),
        table.within(found.place),
    ]
    in_place = table.of_place(found.place)
    if in_place is not None:
        allowed.append(in_place)
    if found.elsewhere is not None:
        places = [settings.decided(chain) for chain in found.elsewhere]
        allowed.append(max((one[1] for one in places if one is not None), default=Access.PROTECTED))
    return _suffices(min(allowed), read_only=found.read_only)


def _allows_inner(table: Table, inner: Inner, found: Found) -> bool:
    access = table.of_place(inner.place)
    if access is None:
        access = Access.PROTECTED if inner.kernel else Access.SHARED
    access = min(access, table.within(inner.place))
    return _suffices(access, read_only=found.read_only and found.read_only_within)


def _suffices(access: Access, *, read_only: bool) -> bool:
    return access is Access.SHARED or (access is Access.READ_ONLY and read_only)
