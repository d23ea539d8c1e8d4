"""Trace lines in strace's form: one per trapped call.

    12:00:00.123456 web[4242] sh: mount("none", "/mnt", "tmpfs", 0, NULL) = 0 <performed> 24us

Names and prototypes of the calls come from python-ptrace.  What came out of the container is
bytes; here, and only here, it becomes text, escaped.
"""

from __future__ import annotations

import errno
import struct
from datetime import datetime
from typing import TYPE_CHECKING

from ptrace.syscall.linux import i386, x86_64
from ptrace.syscall.prototypes import SYSCALL_PROTOTYPES

from eci_supervisor.kernel.reasons import NAMES

if TYPE_CHECKING:
    from eci_supervisor.kernel.ring import Event

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003

TABLES: dict[int, dict[int, str]] = {
    AUDIT_ARCH_X86_64: x86_64.SYSCALL_NAMES,
    AUDIT_ARCH_I386: i386.SYSCALL_NAMES,
}

# Newer than python-ptrace's tables; the numbers are the same on both architectures.
NEWER: dict[int, str] = {
    429: "move_mount",
    431: "fsconfig",
    432: "fsmount",
    442: "mount_setattr",
}
PROTOTYPES: dict[str, tuple[tuple[str, str], ...]] = {
    "move_mount": (
        ("int", "from_dfd"),
        ("const char *", "from_path"),
        ("int", "to_dfd"),
        ("const char *", "to_path"),
        ("unsigned int", "flags"),
    ),
    "fsconfig": (
        ("int", "fd"),
        ("unsigned int", "cmd"),
        ("const char *", "key"),
        ("const char *", "value"),
        ("int", "aux"),
    ),
    "fsmount": (("int", "fd"), ("unsigned int", "flags"), ("unsigned int", "attr_flags")),
    "mount_setattr": (
        ("int", "dfd"),
        ("const char *", "path"),
        ("unsigned int", "flags"),
        ("struct mount_attr *", "attr"),
        ("size_t", "size"),
    ),
}

# include/uapi/linux/mount.h; in the order of the bits.
MOUNT_FLAGS: dict[int, str] = {
    1: "MS_RDONLY",
    2: "MS_NOSUID",
    4: "MS_NODEV",
    8: "MS_NOEXEC",
    16: "MS_SYNCHRONOUS",
    32: "MS_REMOUNT",
    64: "MS_MANDLOCK",
    128: "MS_DIRSYNC",
    256: "MS_NOSYMFOLLOW",
    1024: "MS_NOATIME",
    2048: "MS_NODIRATIME",
    4096: "MS_BIND",
    8192: "MS_MOVE",
    16384: "MS_REC",
    32768: "MS_SILENT",
    1 << 16: "MS_POSIXACL",
    1 << 17: "MS_UNBINDABLE",
    1 << 18: "MS_PRIVATE",
    1 << 19: "MS_SLAVE",
    1 << 20: "MS_SHARED",
    1 << 21: "MS_RELATIME",
    1 << 22: "MS_KERNMOUNT",
    1 << 23: "MS_I_VERSION",
    1 << 24: "MS_STRICTATIME",
    1 << 25: "MS_LAZYTIME",
}
UMOUNT_FLAGS: dict[int, str] = {
    1: "MNT_FORCE",
    2: "MNT_DETACH",
    4: "MNT_EXPIRE",
    8: "UMOUNT_NOFOLLOW",
}
MOVE_MOUNT_FLAGS: dict[int, str] = {
    0x1: "MOVE_MOUNT_F_SYMLINKS",
    0x2: "MOVE_MOUNT_F_AUTOMOUNTS",
    0x4: "MOVE_MOUNT_F_EMPTY_PATH",
    0x10: "MOVE_MOUNT_T_SYMLINKS",
    0x20: "MOVE_MOUNT_T_AUTOMOUNTS",
    0x40: "MOVE_MOUNT_T_EMPTY_PATH",
    0x100: "MOVE_MOUNT_SET_GROUP",
    0x200: "MOVE_MOUNT_BENEATH",
}
FSMOUNT_FLAGS: dict[int, str] = {1: "FSMOUNT_CLOEXEC"}
FSCONFIG_COMMANDS: dict[int, str] = {1: "FSCONFIG_SET_STRING"}
# include/uapi/linux/fcntl.h
AT_FLAGS: dict[int, str] = {
    0x100: "AT_SYMLINK_NOFOLLOW",
    0x800: "AT_NO_AUTOMOUNT",
    0x1000: "AT_EMPTY_PATH",
    0x8000: "AT_RECURSIVE",
}
AT_FDCWD = -100
# Of a pointer beyond those that an event has room for.
FAULT: tuple[None, int] = (None, -1)
FLAGS: dict[str, dict[int, str]] = {
    "umount": UMOUNT_FLAGS,
    "umount2": UMOUNT_FLAGS,
    "move_mount": MOVE_MOUNT_FLAGS,
    "fsmount": FSMOUNT_FLAGS,
    "mount_setattr": AT_FLAGS,
}
# What attributes there are; access time is a number of its own among them.
ATTRIBUTES: dict[int, str] = {
    0x1: "MOUNT_ATTR_RDONLY",
    0x2: "MOUNT_ATTR_NOSUID",
    0x4: "MOUNT_ATTR_NODEV",
    0x8: "MOUNT_ATTR_NOEXEC",
    0x10: "MOUNT_ATTR_NOATIME",
    0x20: "MOUNT_ATTR_STRICTATIME",
    0x80: "MOUNT_ATTR_NODIRATIME",
    0x100000: "MOUNT_ATTR_IDMAP",
    0x200000: "MOUNT_ATTR_NOSYMFOLLOW",
}
MOUNT_ATTR_SIZE_VER0 = 32
MS_MGC_MSK = 0xFFFF0000
MS_MGC_VAL = 0xC0ED0000


def flag_words(value: int, names: dict[int, str]) -> str:
    """Return `A|B`, what has no name in hexadecimal, and `0` for nothing."""
    words = [name for bit, name in names.items() if value & bit]
    rest = value & ~sum(names)
    if rest:
        words.append(hex(rest))
    return "|".join(words) or "0"


def mount_flag_words(value: int) -> str:
    """Return the flags of mount(2); the old magic number is one word of its own."""
    if value & MS_MGC_MSK == MS_MGC_VAL:
        rest = value & ~MS_MGC_MSK
        return "MS_MGC_VAL" + (f"|{flag_words(rest, MOUNT_FLAGS)}" if rest else "")
    return flag_words(value, MOUNT_FLAGS)


def quote(raw: bytes) -> str:
    """Return a C string literal in plain ASCII: no byte of the container reaches a terminal."""
    named = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r"}
    printable = range(0x20, 0x7F)
    return "".join(
        named[byte] if byte in named else chr(byte) if byte in printable else f"\\{byte:03o}"
        for byte in raw
    )


def _string(text: tuple[bytes | None, int], address: int) -> str:
    raw, length = text
    if raw is None:
        return "NULL" if address == 0 else hex(address)
    return f'"{quote(raw)}"' + ("..." if length > len(raw) else "")


def _attr(text: tuple[bytes | None, int], address: int) -> str:
    """Return a struct mount_attr (mount_setattr(2)) with the fields that are not 0."""
    raw, _ = text
    if raw is None or len(raw) < MOUNT_ATTR_SIZE_VER0:
        return "NULL" if address == 0 else hex(address)
    fields = ("attr_set", "attr_clr", "propagation", "userns_fd")
    words = []
    for name, value in zip(fields, struct.unpack_from("<4Q", raw), strict=True):
        if value:
            table = ATTRIBUTES if name.startswith("attr") else MOUNT_FLAGS
            shown = str(value) if name == "userns_fd" else flag_words(value, table)
            words.append(f"{name}={shown}")
    return "{" + ", ".join(words) + "}"


def _dfd(value: int) -> str:
    number = (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)
    return "AT_FDCWD" if number == AT_FDCWD else str(number)


def call_name(event: Event) -> tuple[str, str]:
    """Return the name of the call, and the one that its prototype goes by."""
    name = TABLES.get(event.arch, {}).get(event.nr) or NEWER.get(event.nr)
    if name is None:
        return f"syscall_{event.nr:#x}", ""
    # The kernel's source and python-ptrace name them so; users know them as umount and umount2.
    if name == "oldumount":
        return "umount", "oldumount"
    if name in {"umount", "umount2"}:
        return "umount2", "umount"
    return name, name


def arguments(event: Event) -> str:
    """Return the arguments as strace prints them."""
    name, prototype = call_name(event)
    _, known = SYSCALL_PROTOTYPES.get(prototype, ("long", ()))
    parameters = PROTOTYPES.get(name, known)
    words = []
    strings = iter(event.texts)
    for (kind, parameter), value in zip(parameters, event.args, strict=False):
        if parameter == "attr":
            words.append(_attr(next(strings, FAULT), value))
        elif kind.endswith("*"):
            words.append(_string(next(strings, FAULT), value))
        elif parameter == "flags" and name == "mount":
            words.append(mount_flag_words(value))
        elif parameter == "flags":
            words.append(flag_words(value & 0xFFFFFFFF, FLAGS.get(name, {})))
        elif parameter == "cmd":
            words.append(FSCONFIG_COMMANDS.get(value & 0xFFFFFFFF, hex(value)))
        elif parameter == "attr_flags":
            words.append(flag_words(value & 0xFFFFFFFF, ATTRIBUTES))
        elif kind == "int":
            words.append(_dfd(value))
        else:
            words.append(hex(value))
    return ", ".join(words)


def result(event: Event) -> str:
    """Return what the caller got; `?` where the kernel went on by itself."""
    if event.passed:
        return "?"
    if event.error == 0:
        return "0"
    return f"-1 {errno.errorcode.get(event.error, str(event.error))}"


def call(event: Event) -> str:
    """Return the call as strace prints it; `32:` before it is that of a 32-bit program."""
    name, _ = call_name(event)
    abi = "32:" if event.arch == AUDIT_ARCH_I386 else ""
    return f"{abi}{name}({arguments(event)})"


def line(container: str, event: Event) -> str:
    """Return one line, without its end, for a call of the container with this id."""
    when = datetime.fromtimestamp(event.time_ns // 1_000_000_000).astimezone()
    micro = event.time_ns // 1000 % 1_000_000
    reason = NAMES.get(event.reason, f"reason-{event.reason}")
    who = f"{container[:12]}[{event.tid}] {quote(event.comm)}"
    what = f"{call(event)} = {result(event)}"
    return f"{when:%H:%M:%S}.{micro:06d} {who}: {what} <{reason}> {event.spent_ns / 1000:.0f}us"
