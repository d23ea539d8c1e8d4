"""What can be seen of a worker from outside: its counts, and its calls while somebody follows it.

A file in the container's state directory, mapped by the worker (csrc/watch.c).  Whoever reads it
asks nobody and wakes nobody; whoever stops reading holds nobody up.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from eci_supervisor._eci import ffi, lib
from eci_supervisor.kernel import holding
from eci_supervisor.kernel.reasons import NAMES
from eci_supervisor.kernel.ring import event_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eci_supervisor.kernel.ring import Event

FILE = "watch"
"""In the state directory."""
TOTAL = "counts"
"""In the state root: what the workers of containers that are gone have counted (cleanup.c)."""
SLOTS = 256
"""How many events the file holds: 0.4 MB, taken when somebody follows for the first time."""
KINDS = (
    "unknown",
    "mount",
    "umount2",
    "umount",
    "move_mount",
    "mount_setattr",
    "fsmount",
    "fsconfig",
)
"""In the order of `enum family` (csrc/worker.h)."""
LEASE_NS = 2_000_000_000
"""How long every call becomes an event after the last time that a follower has asked for it."""


class WatchError(Exception):
    """The file is not what this version writes; the text names it."""


class Counts(msgspec.Struct, frozen=True):
    """What one worker has done so far, or several of them together."""

    calls: Mapping[tuple[str, str], int]
    """By kind of call and reason (`reasons.NAMES`); those that are 0 are left out."""
    times: tuple[int, ...]
    """Calls answered in less than 1, 2, 4, ... microseconds; the last: in more."""
    times_ns: int
    dropped: int
    """Refusals that were lost to a full ring."""

    def __add__(self, other: Counts) -> Counts:
        """Add both up."""
        keys = {**self.calls, **other.calls}
        return Counts(
            calls={key: self.calls.get(key, 0) + other.calls.get(key, 0) for key in keys},
            times=tuple(a + b for a, b in zip(self.times, other.times, strict=True)),
            times_ns=self.times_ns + other.times_ns,
            dropped=self.dropped + other.dropped,
        )


NONE = Counts({}, (0,) * lib.ECI_TIMES, 0, 0)


def _counts(raw: Any) -> Counts:
    """Read a `struct eci_counts *`; that of another version counts as none."""
    if raw.magic != lib.ECI_WATCH_MAGIC or raw.version != lib.ECI_WATCH_VERSION:
        return NONE
    calls = {
        (kind, NAMES.get(reason, f"reason-{reason}")): int(raw.calls[k][reason])
        for k, kind in enumerate(KINDS)
        for reason in range(lib.ECI_REASONS)
        if raw.calls[k][reason]
    }
    times = tuple(int(n) for n in raw.times)
    return Counts(calls, times, int(raw.times_ns), int(raw.dropped))


def create(directory: str, slots: int = SLOTS) -> int:
    """Make the file of a new worker in `directory`; returns an fd, the caller's.

    Its description holds the file (holding.py) as long as somebody has it: in the end the worker.
    OSError where there is no room for the counts: no page may be missing when the worker wants it.
    """
    path = f"{directory}/{FILE}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, lib.eci_watch_bytes(slots))
        os.posix_fallocate(fd, 0, lib.ECI_WATCH_HEAD)
        holding.hold(fd)
        with mmap.mmap(fd, lib.ECI_WATCH_HEAD) as memory:
            head = ffi.from_buffer(memory)
            lib.eci_watch_init(ffi.cast("struct eci_watch *", head), slots)
            ffi.release(head)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_counts(path: str) -> Counts | None:
    """Return the counts that the file `path` begins with; None where there is no such file."""
    try:
        with open(path, "rb") as file:
            data = file.read(ffi.sizeof("struct eci_counts"))
    except FileNotFoundError:
        return None
    raw = ffi.new("struct eci_counts *")
    if len(data) == ffi.sizeof("struct eci_counts"):
        ffi.buffer(raw)[:] = data
    return _counts(raw)


def count_in(path: str) -> None:
    """Add 1 to the number that is the file `path`, which is made if need be.

    No two processes lose one, and none waits for another.  OSError where it cannot be had.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        # Makes it as long, and its page there, or changes nothing.
        os.posix_fallocate(fd, 0, ffi.sizeof("uint64_t"))
        with mmap.mmap(fd, ffi.sizeof("uint64_t")) as memory:
            number = ffi.from_buffer("uint64_t *", memory)
            lib.eci_count(number)
            ffi.release(number)
    finally:
        os.close(fd)


def counted_in(path: str) -> int:
    """Return the number that is the file `path`; 0 where there is none."""
    try:
        with open(path, "rb") as file:
            return int.from_bytes(file.read(ffi.sizeof("uint64_t")), sys.byteorder)
    except FileNotFoundError:
        return 0


def ask_for_times(directory: str) -> None:
    """Have the worker of this state directory measure calls from now on; nothing where it is gone.

    WatchError as for `Watch`.
    """
    try:
        watch = Watch(directory)
    except FileNotFoundError:
        return
    watch.head.timed = 1
    watch.close()


def _mapped(fd: int, path: str) -> mmap.mmap:
    """Map the whole file; WatchError where it is not one of this version's."""
    msg = f"{path}: written by another version of eci-supervisor"
    size = os.fstat(fd).st_size
    if size < lib.ECI_WATCH_HEAD:
        raise WatchError(msg)
    memory = mmap.mmap(fd, size)
    buffer = ffi.from_buffer(memory)
    valid = lib.eci_watch_check(ffi.cast("struct eci_watch *", buffer), size) == 0
    ffi.release(buffer)
    if not valid:
        memory.close()
        raise WatchError(msg)
    return memory


class Watch:
    """The file of a worker, mapped.  Owns mapping and descriptor."""

    def __init__(self, directory: str) -> None:
        """Open and map the file in this state directory.

        FileNotFoundError where there is no worker, WatchError where it is another version's.
        """
        path = f"{directory}/{FILE}"
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = _mapped(fd, path)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._buffer = ffi.from_buffer(self._map)
        self.head = ffi.cast("struct eci_watch *", self._buffer)
        self._event = ffi.new("struct eci_event *")
        # Looked at once: the worker can write into the memory.
        self._slots = (len(self._map) - lib.ECI_WATCH_HEAD) // ffi.sizeof("struct eci_event")
        self._turn = int(self.head.head)
        self._stuck = -1
        self._since = 0.0
        self.patience = 1.0
        """Seconds until an event that is being written is given up: its writer may be held up."""
        self.lost = 0
        """Events that were overwritten before they were read."""

    def close(self) -> None:
        """Let go of it; who follows no longer need not say so."""
        self.head = None
        ffi.release(self._buffer)
        self._map.close()
        os.close(self._fd)

    def counts(self) -> Counts:
        """Return what the worker has done so far."""
        return _counts(ffi.addressof(self.head.counts))

    def follow(self) -> None:
        """Have every call become an event for LEASE_NS from now on.

        OSError, the first time, where there is no room for them.
        """
        if self.head.follow_until == 0:
            # The worker must not meet a page that cannot be had.
            os.posix_fallocate(self._fd, 0, len(self._map))
        lib.eci_watch_follow(self.head, time.monotonic_ns() + LEASE_NS)

    def _is_hole(self) -> bool:
        """Say whether nobody will write the next event: it has not come for long."""
        now = time.monotonic()
        if self._stuck != self._turn:
            self._stuck, self._since = self._turn, now
        return now - self._since >= self.patience

    def events(self) -> list[Event]:
        """Return what has come since the last time, or since this was opened, oldest first."""
        found = []
        head = int(self.head.head)
        if head - self._turn > self._slots:
            self.lost += head - self._turn - self._slots
            self._turn = head - self._slots
        while self._turn < head:
            state = lib.eci_watch_get(self.head, self._slots, self._turn, self._event)
            if state == 1:
                found.append(event_of(self._event))
            elif state == -errno.ESTALE or self._is_hole():
                self.lost += 1
            else:
                break
            self._turn += 1
        return found
