"""Trace lines: what a call looks like, and that no byte of a container reaches the terminal."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from eci_supervisor._eci import lib
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from eci_supervisor.kernel.ring import Event
from eci_supervisor.supervisor import trace

NULL = (None, 0)
FAULT = (None, -1)


TMPFS = Event(
    time_ns=1_700_000_000_123_456_789,
    spent_ns=24_400,
    nr=165,
    arch=trace.AUDIT_ARCH_X86_64,
    tid=4242,
    args=(16, 32, 48, 0, 0, 0),
    error=0,
    reason=lib.ECI_REASON_PERFORMED,
    passed=False,
    comm=b"mount",
    texts=((b"none", 4), (b"/mnt", 4), (b"tmpfs", 5), NULL),
)


def event(nr: int = 165, arch: int = trace.AUDIT_ARCH_X86_64, **others: Any) -> Event:
    """Return a mounted tmpfs, with these fields instead."""
    return replace(TMPFS, nr=nr, arch=arch, **others)


def test_a_whole_line() -> None:
    line = trace.line("0123456789abcdef", event(args=(16, 32, 48, 2, 0, 0)))
    assert line[8:] == (
        '.123456 0123456789ab[4242] mount: mount("none", "/mnt", "tmpfs", MS_NOSUID, NULL)'
        " = 0 <performed> 24us"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (0, "0"),
        (1 | 4096, "MS_RDONLY|MS_BIND"),
        (32 | 4096 | 8192, "MS_REMOUNT|MS_BIND|MS_MOVE"),
        (0xC0ED0000, "MS_MGC_VAL"),
        (0xC0ED0000 | 4096, "MS_MGC_VAL|MS_BIND"),
        (1 << 40, "0x10000000000"),
        ((1 << 40) | 1, "MS_RDONLY|0x10000000000"),
    ],
)
def test_mount_flags(flags: int, words: str) -> None:
    assert trace.mount_flag_words(flags) == words


@pytest.mark.parametrize(
    ("nr", "arch", "args", "text"),
    [
        (166, trace.AUDIT_ARCH_X86_64, (9, 2 | 8), 'umount2("/m", MNT_DETACH|UMOUNT_NOFOLLOW)'),
        (52, trace.AUDIT_ARCH_I386, (9, 0), '32:umount2("/m", 0)'),
        (22, trace.AUDIT_ARCH_I386, (9, 77), '32:umount("/m")'),
    ],
)
def test_the_umount_family(nr: int, arch: int, args: tuple[int, ...], text: str) -> None:
    line = trace.line(
        "c", event(nr, arch, args=(*args, 0, 0, 0, 0), texts=((b"/m", 2), FAULT, FAULT, FAULT))
    )
    assert f": {text} = 0 <" in line


def test_mount_of_a_32_bit_caller() -> None:
    assert ': 32:mount("none", ' in trace.line("c", event(21, trace.AUDIT_ARCH_I386))


def test_results() -> None:
    refused = event(error=errno.EPERM, reason=lib.ECI_REASON_LOOSEN)
    assert " = -1 EPERM <refused:no-loosening> " in trace.line("c", refused)
    passed = event(reason=lib.ECI_REASON_NO_CAPABILITY, passed=True)
    assert " = ? <passed:no-capability> " in trace.line("c", passed)


def test_pointers_that_could_not_be_read_stay_numbers() -> None:
    line = trace.line(
        "c", event(texts=(NULL, FAULT, (b"x" * 256, 4000), NULL), args=(0, 48879, 1, 0, 0, 0))
    )
    assert f'mount(NULL, 0xbeef, "{"x" * 256}"..., 0, NULL)' in line


def test_a_call_with_more_pointers_than_texts() -> None:
    """pselect6 of i386: five, and the keeper has to live through whatever an event says."""
    line = trace.line("c", event(308, trace.AUDIT_ARCH_I386, args=(1, 2, 3, 4, 5, 6)))
    assert ": 32:pselect6(1, " in line
    assert ", 0x6) = " in line


@given(st.binary(max_size=64), st.integers(0, 2**64 - 1), st.integers(0, 600))
def test_nothing_but_printable_ascii_comes_out(raw: bytes, flags: int, nr: int) -> None:
    texts = tuple((raw, len(raw)) for _ in range(4))
    for arch in (trace.AUDIT_ARCH_X86_64, trace.AUDIT_ARCH_I386, 7):
        line = trace.line("c", event(nr, arch, args=(1, 2, 3, flags, 5, 6), texts=texts))
        assert line.isascii()
        assert line.isprintable()
