"""The store of ID ranges: which container has which block of host ids.

A range is a slot: slot N holds the 65536 host ids from FIRST + 65536 * N.  A slot is taken
while its directory `ranges/N` holds a file; each file is named for the container that uses
the range, so containers that share a user namespace share a slot, and the last one frees it.
There is nothing to repair after a crash: directories and files are made and removed with one
system call each, under one lock (flock on `lock`, which the kernel drops with its holder).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.runtime.errors import RangeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 65536
DEFAULT = (100000, 60000)
"""First host id, and how many ranges: 100000 + 60000 * 65536 stays below 2^32 - 1."""


class Range(msgspec.Struct, frozen=True):
    """A block of host ids."""

    slot: int
    base: int
    size: int = SIZE


def limits(text: str | None) -> tuple[int, int]:
    """Read ECI_RANGES, `FIRST:COUNT`; RangeError unless the ranges fit below 2^32 - 1."""
    if not text:
        return DEFAULT
    first, _, count = text.partition(":")
    if not (first.isdecimal() and count.isdecimal()) or int(first) == 0 or int(count) == 0:
        msg = f"ECI_RANGES={text}: expected FIRST:COUNT, two numbers above 0"
        raise RangeError(msg)
    if int(first) + int(count) * SIZE > 2**32 - 1:
        msg = f"ECI_RANGES={text}: the last range ends above 4294967294"
        raise RangeError(msg)
    return int(first), int(count)


class RangeStore:
    """The ranges under one state root."""

    def __init__(self, state_root: str, first: int = DEFAULT[0], count: int = DEFAULT[1]) -> None:
        """Make the store's directories if they are not there; OSError if they cannot be."""
        self.root = f"{state_root}/ranges"
        self.lock_path = f"{state_root}/lock"
        self.first = first
        self.count = count
        os.makedirs(self.root, mode=0o711, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the whole state; waits for it."""
        fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def slot_of(self, base: int, size: int) -> int | None:
        """Return the slot that is exactly this block, or None."""
        slot, rest = divmod(base - self.first, SIZE)
        return slot if rest == 0 and size == SIZE and 0 <= slot < self.count else None

    def slots_over(self, base: int, size: int) -> range:
        """Return the slots that a foreign block of ids touches."""
        low = max(0, (base - self.first) // SIZE)
        high = min(self.count - 1, (base + size - 1 - self.first) // SIZE)
        return range(low, high + 1)

    def holders(self, slot: int) -> list[str]:
        """Return who uses `slot`."""
        try:
            return os.listdir(f"{self.root}/{slot}")
        except FileNotFoundError:
            return []

    def allocate(self, key: str, collect: Callable[[], object] | None = None) -> Range:
        """Give `key` the lowest free range.  The caller holds the lock.

        `collect` is called once if all are taken: it may free those of dead containers.
        RangeError if none is free then.
        """
        slot = self._lowest_free()
        if slot is None and collect is not None:
            collect()
            slot = self._lowest_free()
        if slot is None:
            msg = (
                f"no ID range is free: all {self.count} ranges of {SIZE} ids from {self.first} on "
                "are in use; remove containers that are not needed"
            )
            raise RangeError(msg)
        self.join(slot, key)
        return Range(slot, self.first + slot * SIZE)

    def _lowest_free(self) -> int | None:
        """Return the lowest slot without a holder, or None."""
        taken = {int(name) for name in os.listdir(self.root) if name.isdecimal()}
        for slot in range(self.count):
            # A directory without a holder is what a crash between two system calls leaves.
            if slot not in taken or not self.holders(slot):
                return slot
        return None

    def join(self, slot: int, key: str) -> None:
        """Add `key` to the holders of `slot`.  The caller holds the lock."""
        os.makedirs(f"{self.root}/{slot}", mode=0o700, exist_ok=True)
        os.close(
            os.open(f"{self.root}/{slot}/{key}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        )

    def release(self, key: str) -> None:
        """Take `key` out of every slot, if it is in any.  The caller holds the lock."""
        for slot in os.listdir(self.root):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.root}/{slot}/{key}")
                # ENOTEMPTY: another container still shares the range.
                with contextlib.suppress(OSError):
                    os.rmdir(f"{self.root}/{slot}")
