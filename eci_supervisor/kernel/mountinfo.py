r"""/proc/PID/mountinfo as typed values: proc_pid_mountinfo(5).

All paths are bytes.  The kernel writes space, tab, newline, backslash (and in some fields
``#``) as three octal digits after a backslash; here they are decoded once.
"""

from __future__ import annotations

import re

import msgspec

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


class Mount(msgspec.Struct, frozen=True):
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    device: bytes
    """`major:minor` of the superblock."""
    root: bytes
    """The directory inside the file system that is the root of this mount."""
    target: bytes
    """Where it is mounted, seen from the reader's root directory."""
    options: tuple[bytes, ...]
    """Per-mount options: ro, nosuid, …"""
    propagation: tuple[bytes, ...]
    """The optional fields: `shared:N`, `master:N`, …"""
    fstype: bytes
    source: bytes
    super_options: bytes
    """The superblock's options, still escaped: `split_options` takes them apart."""


def unescape(field: bytes) -> bytes:
    r"""Decode ``\040`` and its like; a backslash without the three octal digits of a byte stays."""
    if b"\\" not in field:
        return field
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


def parse_line(line: bytes) -> Mount:
    """Parse one line; ValueError if it has not the kernel's form."""
    words = line.rstrip(b"\n").split(b" ")
    try:
        # The separator is the first lone "-" after the six fixed fields.
        dash = words.index(b"-", 6)
        fstype, source, super_options = words[dash + 1 : dash + 4]
        return Mount(
            mount_id=int(words[0]),
            parent_id=int(words[1]),
            device=words[2],
            root=unescape(words[3]),
            target=unescape(words[4]),
            options=tuple(words[5].split(b",")),
            propagation=tuple(words[6:dash]),
            fstype=unescape(fstype),
            source=unescape(source),
            super_options=super_options,
        )
    except (ValueError, IndexError) as error:
        msg = f"not a line of mountinfo: {line!r}"
        raise ValueError(msg) from error


def parse(text: bytes) -> list[Mount]:
    """Parse a whole mountinfo; ValueError names the line that is wrong."""
    return [parse_line(line) for line in text.splitlines() if line]


def read(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """Read the mounts of a process: `/proc/PID/mountinfo`."""
    with open(path, "rb") as file:
        return parse(file.read())


def find(mount_id: int, path: str = "/proc/self/mountinfo") -> Mount | None:
    """Return the mount with this id, or None; only its own line is parsed."""
    wanted = b"%d " % mount_id
    with open(path, "rb") as file:
        for line in file.read().split(b"\n"):
            if line.startswith(wanted):
                return parse_line(line)
    return None


def beneath(directory: bytes, path: str = "/proc/self/mountinfo") -> list[Mount]:
    """Return the mounts beneath `directory`, an absolute path; only their own lines are parsed."""
    prefix = directory.rstrip(b"/") + b"/"
    with open(path, "rb") as file:
        lines = [line for line in file.read().split(b"\n") if line]
    return [parse_line(line) for line in lines if unescape(line.split(b" ")[4]).startswith(prefix)]


def split_options(text: bytes) -> list[tuple[bytes, bytes]]:
    r"""Split super options at their commas into decoded (key, value) pairs, in order.

    The kernel (seq_show_option) writes a comma inside a value as ``\054``, so it is split
    first and decoded afterwards.  A word without "=" has an empty value.
    """
    pairs = [word.partition(b"=") for word in text.split(b",") if word]
    return [(unescape(key), unescape(value)) for key, _, value in pairs]


def split_layers(value: bytes) -> list[bytes]:
    r"""Split an overlay's ``lowerdir=`` at its colons; ``\:`` and ``\\`` are decoded."""
    return [plain_layer(part) for part in re.findall(rb"(?s)(?:\\.|[^:\\])+", value)]


def plain_layer(value: bytes) -> bytes:
    """Decode one layer's path as overlayfs shows it."""
    return re.sub(rb"(?s)\\(.)", rb"\1", value)
