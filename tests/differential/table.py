"""Mount tables of two containers, made comparable.

The initial mounts of a container have other devices, roots and ids than those of the next one.
So each mount is described by the initial one whose storage it shows: "file /w + /sub", the
options that it has more or fewer than that one.  What is new is described as the kernel does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    ident: int
    parent: int
    device: str
    root: str
    point: str
    options: frozenset[str]
    peers: tuple[str, ...]
    fstype: str
    source: str
    super_options: frozenset[str]


OWN = "scratch"
"""The source of the file system that a script has for itself."""
IDS = 65536
"""Of a container."""


def _option(word: str, ids: int) -> str:
    """Turn the host's number of a user or group, as tmpfs shows it, into the container's."""
    key, _, value = word.partition("=")
    if key in {"uid", "gid"} and value.isdigit() and ids <= int(value) < ids + IDS:
        return f"{key}={int(value) - ids}"
    return word


def parse(line: str, ids: int) -> Mount:
    """Take a line of mountinfo apart (proc_pid_mountinfo(5)); `ids` is where the ids begin."""
    left, _, right = line.partition(" - ")
    ident, parent, device, root, point, options, *peers = left.split(" ")
    fstype, source, super_options = right.split(" ")
    return Mount(
        int(ident),
        int(parent),
        device,
        root,
        point,
        frozenset(options.split(",")),
        tuple(peers),
        fstype,
        source,
        frozenset(_option(word, ids) for word in super_options.split(",")),
    )


def below(path: str, top: str) -> str | None:
    """Return `path` relative to `top` ("" or "/..."), or None where it is not below."""
    if top == "/":
        return "" if path == "/" else path
    if path == top:
        return ""
    return path[len(top) :] if path.startswith(top + "/") else None


@dataclass(frozen=True)
class Table:
    """A mount table."""

    mounts: dict[int, Mount]

    @classmethod
    def read(cls, lines: list[str], ids: int) -> Table:
        """Return the table of these lines, of a container whose ids begin at `ids`."""
        mounts = [parse(line, ids) for line in lines]
        return cls({mount.ident: mount for mount in mounts})

    def location(self, mount: Mount) -> tuple[Mount, str] | None:
        """Return the mount that `mount` lies on, and where in its storage; None for the root."""
        parent = self.mounts.get(mount.parent)
        if parent is None or parent is mount:
            return None
        inside = below(mount.point, parent.point)
        return None if inside is None else (parent, parent.root.rstrip("/") + inside)

    def below(self, mount: Mount) -> list[Mount]:
        """Return the mount and all that lie on it."""
        found = [mount]
        for one in found:
            found += [
                other
                for other in self.mounts.values()
                if other.parent == one.ident and other is not one
            ]
        return found


SuperBlocks: TypeAlias = list[tuple[str, str, list[str]]]
"""Mount point, type and options."""


@dataclass(frozen=True)
class Base:
    """The initial mounts, by which all others are described."""

    table: Table

    @cached_property
    def _by_device(self) -> dict[str, list[Mount]]:
        devices: dict[str, list[Mount]] = {}
        for mount in self.table.mounts.values():
            devices.setdefault(mount.device, []).append(mount)
        for mounts in devices.values():
            mounts.sort(key=lambda mount: (-len(mount.root), mount.point))
        return devices

    def nearest(self, shown: Mount) -> tuple[list[Mount], str] | None:
        """Return the initial mounts of the nearest storage above, and the rest of the path."""
        found: list[Mount] = []
        root = shown.root
        for mount in self._by_device.get(shown.device, []):
            # Once the test's own is gone, its device number can become another's.
            if (mount.source == OWN) != (shown.source == OWN):
                continue
            if found and mount.root != found[0].root:
                break
            if below(root, mount.root) is not None:
                found.append(mount)
        return (found, below(root, found[0].root) or "") if found else None

    def storage(self, shown: Mount) -> tuple[str, str] | None:
        """Return a name for the storage that is the same for each container, if it is initial."""
        near = self.nearest(shown)
        return (near[0][0].point, near[1]) if near else None

    @cached_property
    def layout(self) -> list[tuple[str, str, tuple[str, str] | None, list[str]]]:
        """Where what lies: equal for containers that can be compared."""
        return sorted(
            (mount.point, mount.fstype, self.storage(mount),
             sorted(mount.options - NOT_COMPARED))
            for mount in self.table.mounts.values()
            if mount.point != "/"
        )  # fmt: skip

    @cached_property
    def super_blocks(self) -> SuperBlocks:
        """What remains of a script when its mount namespace is gone, as far as a table tells."""
        return sorted(
            (mount.point, mount.fstype, sorted(mount.super_options))
            for mount in self.table.mounts.values()
        )


NOT_COMPARED = frozenset(("idmapped",))
"""How ownership is translated is what the two sides do differently."""


def _place(mount: Mount) -> str:
    """Return the mount point; the processes of the two sides have other numbers."""
    return re.sub(r"/proc/\d+(?=/|$)", "/proc/N", mount.point)


def _change(now: frozenset[str], before: frozenset[str]) -> str:
    return " ".join([f"+{word}" for word in sorted(now - before)]
                    + [f"-{word}" for word in sorted(before - now)])  # fmt: skip


@dataclass
class Describer:
    """Describes one table; numbers what is new in the order in which it is met."""

    base: Base
    devices: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)

    def describe(self, table: Table) -> list[str]:
        """Return one line for each mount, as a tree."""
        children: dict[int, list[Mount]] = {}
        tops = []
        for mount in table.mounts.values():
            if mount.parent in table.mounts and mount.parent != mount.ident:
                children.setdefault(mount.parent, []).append(mount)
            else:
                tops.append(mount)
        lines: list[str] = []

        def visit(mounts: list[Mount], depth: int) -> None:
            for mount in sorted(mounts, key=self._order):
                lines.append("  " * depth + self._line(mount))
                visit(children.get(mount.ident, []), depth + 1)

        visit(tops, 0)
        return lines

    def _order(self, mount: Mount) -> tuple[str, str, str]:
        near = self.base.storage(mount)
        return _place(mount), str(near or mount.root), mount.fstype

    def _line(self, mount: Mount) -> str:
        near = self.base.nearest(mount)
        if near:
            initial = near[0][0]
            what = (
                f"initial {initial.point}:{near[1]} "
                f"[{_change(mount.options, initial.options)}]"
                f" [{_change(mount.super_options, initial.super_options)}]"
            )
        else:
            device = self.devices.setdefault(mount.device, f"new{len(self.devices)}")
            # Namespaces have numbers of their own.
            root = re.sub(r"^(\w+:)\[\d+\]$", r"\1[]", mount.root)
            what = (
                f"{device} {root} {','.join(sorted(mount.options))} {mount.fstype}"
                f" {mount.source} {','.join(sorted(mount.super_options))}"
            )
        return " ".join([_place(mount), what, *map(self._peer, mount.peers)])

    def _peer(self, word: str) -> str:
        kind, colon, number = word.partition(":")
        return (
            kind + colon + (self.peers.setdefault(number, f"g{len(self.peers)}") if colon else "")
        )
