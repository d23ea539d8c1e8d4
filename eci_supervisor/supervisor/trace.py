"""Trace lines in strace's form: one per trapped call.

    12:00:00.123456 web[4242] sh: mount("none", "/mnt", "tmpfs", 0, NULL) = 0 <performed> 24us

Names and prototypes of the calls come from python-ptrace.  What came out of the container is
bytes; here, and only here, it becomes text, escaped.
"""

from __future__ import annotations

import errno
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


def call_name(event: Event) -> tuple[str, str]:
    """Return the name of the call, and the one that its prototype goes by."""
    name = TABLES.get(event.arch, {}).get(event.nr)
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
    _, parameters = SYSCALL_PROTOTYPES.get(prototype, ("long", ()))
    words = []
    strings = iter(event.texts)
    for (kind, parameter), value in zip(parameters, event.args, strict=False):
        if kind.endswith("*"):
            # An event has texts for mount(2); a call with more pointers is none of its family.
            text = next(strings, None)
            words.append(hex(value) if text is None else _string(text, value))
        elif parameter == "flags" and name == "mount":
            words.append(mount_flag_words(value))
        elif parameter == "flags":
            words.append(flag_words(value & 0xFFFFFFFF, UMOUNT_FLAGS))
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


def line(container: str, event: Event) -> str:
    """Return one line, without its end, for a call of the container with this id."""
    when = datetime.fromtimestamp(event.time_ns // 1_000_000_000).astimezone()
    micro = event.time_ns // 1000 % 1_000_000
    name, _ = call_name(event)
    abi = "32:" if event.arch == AUDIT_ARCH_I386 else ""
    reason = NAMES.get(event.reason, f"reason-{event.reason}")
    who = f"{container[:12]}[{event.tid}] {quote(event.comm)}"
    call = f"{abi}{name}({arguments(event)}) = {result(event)}"
    return f"{when:%H:%M:%S}.{micro:06d} {who}: {call} <{reason}> {event.spent_ns / 1000:.0f}us"
