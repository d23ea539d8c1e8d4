"""The reader's end of the event ring (csrc/ring.c)."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import Any

import msgspec

from eci_supervisor._eci import ffi, lib

SLOTS = 256


class Object(msgspec.Struct, frozen=True):
    """What a path of a refused call turned out to be, when it was refused."""

    path: bytes
    """Where the caller sees it, or the container; cut, for people only.  Empty: not known."""
    length: int
    """Of the whole path."""
    mnt_id: int
    """Of its mount, unique."""
    major: int
    minor: int
    ino: int


class Event(msgspec.Struct, frozen=True):
    """One trapped call, as the worker saw it."""

    time_ns: int
    """When it was received, in nanoseconds since the epoch."""
    spent_ns: int
    """From receipt to reply, in nanoseconds."""
    nr: int
    arch: int
    """AUDIT_ARCH_* (linux/audit.h)."""
    tid: int
    """The calling thread, in the host's PID namespace."""
    args: tuple[int, ...]
    error: int
    """The errno that the caller got; 0 is success."""
    reason: int
    """ECI_REASON_*."""
    passed: bool
    """The kernel carried the call out itself; `error` says nothing."""
    comm: bytes
    texts: tuple[tuple[bytes | None, int], ...]
    """The strings of the call: what the event holds of each, and its whole length.

    None with length 0 is a NULL pointer, None with length -1 could not be read.
    """
    source: Object | None = None
    """Of a refused call that has one."""
    target: Object | None = None


def _text(raw: Any, i: int) -> tuple[bytes | None, int]:
    length = raw.length[i]
    if length == lib.ECI_STRING_NULL:
        return None, 0
    if length == lib.ECI_STRING_FAULT:
        return None, -1
    return bytes(ffi.buffer(raw.text[i], min(length, lib.ECI_EVENT_STRING))), length


def _object(raw: Any, i: int) -> Object | None:
    what = raw.object[i]
    if not what.known:
        return None
    path = bytes(ffi.buffer(raw.path[i], min(what.length, lib.ECI_EVENT_STRING)))
    return Object(path, what.length, what.mnt_id, what.major, what.minor, what.ino)


def event_of(raw: Any) -> Event:
    """Return what a `struct eci_event *` holds."""
    return Event(
        time_ns=raw.time_ns,
        spent_ns=raw.spent_ns,
        nr=raw.nr,
        arch=raw.arch,
        tid=raw.tid,
        args=tuple(raw.args),
        error=raw.error,
        reason=raw.reason,
        passed=bool(raw.passed),
        comm=ffi.string(raw.comm, 16),
        texts=tuple(_text(raw, i) for i in range(lib.ECI_EVENT_STRINGS)),
        source=_object(raw, 0),
        target=_object(raw, 1),
    )


class Ring:
    """A ring in a memfd, with the eventfd that wakes its reader.  Owns both fds."""

    def __init__(self, slots: int = SLOTS, kept: tuple[int, int] | None = None) -> None:
        """Make an empty ring of `slots` (a power of two) events.

        With `kept`, the `fd` and `event_fd` of a ring that this process had before an execve(2),
        take that one up, with what is in it; ValueError if its events are of another version.
        """
        size = lib.eci_ring_bytes(slots)
        if kept is None:
            self.fd = os.memfd_create("eci-ring", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, size)
            self.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self.fd, self.event_fd = kept
            size = os.fstat(self.fd).st_size
        self._map = mmap.mmap(self.fd, size)
        # `struct eci_ring *`: where the writers' functions find it.
        self.address = ffi.cast("struct eci_ring *", ffi.from_buffer(self._map))
        self._event = ffi.new("struct eci_event *")
        if kept is None:
            lib.eci_ring_init(self.address, slots)
        else:
            slots = int(self.address.slots)
            if not slots or slots & (slots - 1) or lib.eci_ring_bytes(slots) != size:
                msg = "the ring is that of a worker of another version"
                raise ValueError(msg)
        # The worker can write into the memory: how much there is of it is known here alone.
        self._slots = slots

    def close(self) -> None:
        """Close both fds; the memory goes with its last mapping."""
        os.close(self.fd)
        os.close(self.event_fd)

    @property
    def dropped(self) -> int:
        """How many events a full ring has lost so far."""
        return int(self.address.dropped)

    def sleep(self) -> bool:
        """Ask to be woken through `event_fd`; False when an event is there already."""
        return bool(lib.eci_ring_sleep(self.address, self._slots))

    def drain(self) -> list[Event]:
        """Take everything out."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.event_fd)
        events = []
        while lib.eci_ring_get(self.address, self._slots, self._event):
            events.append(event_of(self._event))
        return events
