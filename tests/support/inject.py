"""Has a process of ours make a system call, as one would that an attacker has taken over.

By ptrace(2): the process waits in the kernel, so the instruction behind which it waits is one that
makes a call.
"""

from __future__ import annotations

import ctypes
import os

from tests.support.filters import ptrace, stopped

_PEEK, _POKE, _STEP, _GET_REGS, _SET_REGS = 1, 4, 9, 12, 13
_SYSCALL = 0x050F
"""The instruction, in the order of its bytes."""
_BELOW = 8192
"""Bytes below the top of the stack, where nothing is."""
_NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
).split()
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


class KilledError(Exception):
    """It did not survive the call; `signal` ended it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"killed by signal {number}")
        self.signal = number


class _Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in _NAMES]


def call(pid: int, number: int, *args: int | bytes) -> int:
    """Return what the call says to the main thread of `pid`: >= 0, or minus errno.

    Bytes become a pointer to them.  KilledError where that was the last that it did.
    """
    while (answer := _call(pid, number, *args)) is None:
        pass  # it was awake just then
    return answer


def _call(pid: int, number: int, *args: int | bytes) -> int | None:
    """Do the same where it waits in a system call; else nothing, and return None."""
    with stopped(pid):
        before = _Registers()
        ptrace(_GET_REGS, pid, 0, ctypes.byref(before))
        if ptrace(_PEEK, pid, before.rip - 2) & 0xFFFF != _SYSCALL:
            return None
        during = _Registers.from_buffer_copy(before)
        during.rip -= 2
        during.rax = number
        during.orig_rax = 2**64 - 1
        free = (before.rsp - _BELOW) & ~15
        for name, value in zip(_ARGUMENTS, args, strict=False):
            if isinstance(value, bytes):
                padded = value.ljust((len(value) // 8 + 1) * 8, b"\0")
                for at in range(0, len(padded), 8):
                    word = int.from_bytes(padded[at : at + 8], "little")
                    ptrace(_POKE, pid, free + at, word)
                setattr(during, name, free)
                free += len(padded)
            else:
                setattr(during, name, value % 2**64)
        ptrace(_SET_REGS, pid, 0, ctypes.byref(during))
        ptrace(_STEP, pid)
        _, status = os.waitpid(pid, 0x40000000)  # __WALL
        if os.WIFSIGNALED(status):
            raise KilledError(os.WTERMSIG(status))
        ptrace(_GET_REGS, pid, 0, ctypes.byref(during))
        ptrace(_SET_REGS, pid, 0, ctypes.byref(before))
        return ctypes.c_longlong(during.rax).value
