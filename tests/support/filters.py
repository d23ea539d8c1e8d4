"""The seccomp filters of a process, as the kernel has them, and what they say of a call."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ATTACH, _DETACH, _GET_FILTER = 16, 17, 0x420C
X86_64, I386 = 0xC000003E, 0x40000003
"""AUDIT_ARCH_*: <linux/audit.h>."""
ALLOW, NOTIFY, ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_ACTION = 0xFFFF0000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Step(NamedTuple):
    """A struct sock_filter."""

    code: int
    if_true: int
    if_false: int
    value: int


def ptrace(request: int, pid: int, address: int = 0, data: object = None) -> int:
    """Make the call with the kernel's numbers; of PTRACE_PEEK* it returns the word."""
    ctypes.set_errno(0)
    result = _libc.ptrace(request, pid, address, data)
    number = ctypes.get_errno()
    if result < 0 and number:
        raise OSError(number, os.strerror(number))
    return int(result)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for us to trace; it goes on afterwards, where it still lives."""
    ptrace(_ATTACH, pid)
    try:
        os.waitpid(pid, 0x40000000)  # __WALL
        yield
    finally:
        with suppress(ProcessLookupError):
            ptrace(_DETACH, pid)


def filters_of(pid: int) -> list[list[Step]]:
    """Return the filters of a process, the newest first: ptrace(2), PTRACE_SECCOMP_GET_FILTER."""
    found: list[list[Step]] = []
    with stopped(pid):
        while True:
            try:
                count = ptrace(_GET_FILTER, pid, len(found))
            except FileNotFoundError:
                return found
            raw = ctypes.create_string_buffer(8 * count)
            ptrace(_GET_FILTER, pid, len(found), raw)
            found.append([Step(*one) for one in struct.iter_unpack("=HBBI", raw.raw)])


def verdict(program: Sequence[Step], arch: int, number: int, args: Sequence[int]) -> int:
    """Run one filter on a call; returns the action.  Only what libseccomp and we generate."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *args, *[0] * (6 - len(args)))
    accumulator = at = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= value
        elif code == 0x06:  # BPF_RET | BPF_K
            return value & _ACTION
        elif code == 0x05:  # BPF_JMP | BPF_JA
            at += value
        else:
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += if_true if holds else if_false
