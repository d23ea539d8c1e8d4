"""The event ring between worker and supervisor (csrc/ring.c)."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest
from eci_supervisor._eci import ffi, lib

from eci_supervisor.kernel.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 8


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring(SLOTS)
    yield made
    made.close()


def put(ring: Ring, tid: int, **fields: object) -> int:
    """Write one event as the worker does; what eci_ring_put returned."""
    event = ffi.new("struct eci_event *", {"tid": tid, **fields})
    return int(lib.eci_ring_put(ring.address, event))


def test_events_come_out_whole_and_in_order(ring: Ring) -> None:
    for tid in range(5):
        put(ring, tid, comm=b"sh", nr=165, error=errno.EPERM, reason=lib.ECI_REASON_LOOSEN)
    events = ring.drain()
    assert [event.tid for event in events] == list(range(5))
    assert {(event.comm, event.nr, event.error, event.reason) for event in events} == {
        (b"sh", 165, errno.EPERM, lib.ECI_REASON_LOOSEN)
    }
    assert ring.drain() == []


def test_strings_tell_null_from_fault_from_cut(ring: Ring) -> None:
    long = b"x" * lib.ECI_EVENT_STRING
    put(
        ring,
        1,
        length=[3, lib.ECI_STRING_NULL, lib.ECI_STRING_FAULT, 4000],
        text=[b"/mn", b"", b"", long],
    )
    (event,) = ring.drain()
    assert event.texts == ((b"/mn", 3), (None, 0), (None, -1), (long, 4000))


def test_a_full_ring_drops_and_counts_and_goes_on(ring: Ring) -> None:
    for tid in range(SLOTS):
        assert put(ring, tid) == 0
    assert put(ring, 99) == -errno.EAGAIN
    assert put(ring, 99) == -errno.EAGAIN
    assert ring.dropped == 2
    assert [event.tid for event in ring.drain()] == list(range(SLOTS))
    assert put(ring, 7) == 0
    assert [event.tid for event in ring.drain()] == [7]


def test_another_versions_ring_is_not_taken_up(ring: Ring) -> None:
    put(ring, 1)
    kept = (os.dup(ring.fd), os.dup(ring.event_fd))
    taken = Ring(kept=kept)
    assert [event.tid for event in taken.drain()] == [1]
    os.truncate(kept[0], os.fstat(kept[0]).st_size + 4096)
    with pytest.raises(ValueError, match="another version"):
        Ring(kept=kept)
    taken.close()


def test_it_goes_round_many_times(ring: Ring) -> None:
    for tid in range(10 * SLOTS + 3):
        put(ring, tid)
        assert [event.tid for event in ring.drain()] == [tid]


def test_only_a_sleeping_reader_is_woken_and_only_once(ring: Ring) -> None:
    assert put(ring, 1) == 0
    assert not ring.sleep(), "an event is there: no sleep"
    ring.drain()
    assert ring.sleep()
    assert put(ring, 2) == 1
    assert put(ring, 3) == 0


def test_many_writers_lose_nothing_but_what_is_counted(ring: Ring) -> None:
    writers, each = 4, 3000
    seen: list[int] = []

    def write(first: int) -> None:
        for i in range(each):
            put(ring, first + i)

    threads = [threading.Thread(target=write, args=(n * each,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen += [event.tid for event in ring.drain()]
    seen += [event.tid for event in ring.drain()]
    assert len(seen) == len(set(seen))
    assert len(seen) + ring.dropped == writers * each
    for n in range(writers):
        mine = [tid for tid in seen if n * each <= tid < (n + 1) * each]
        assert mine == sorted(mine)


def test_writer_that_was_killed_holds_up_nobody(ring: Ring) -> None:
    """It took a turn and never wrote; its successor gives that up, and that alone."""
    put(ring, 1)
    ring.address.head += 1
    put(ring, 3)
    assert [event.tid for event in ring.drain()] == [1]
    lib.eci_ring_mend(ring.address)
    assert [event.tid for event in ring.drain()] == [3]
    for tid in range(2 * SLOTS):
        assert put(ring, tid) == 0
        assert [event.tid for event in ring.drain()] == [tid]
    assert ring.dropped == 1


def test_the_reader_stays_in_its_memory_whatever_a_writer_makes_of_it(ring: Ring) -> None:
    put(ring, 1)
    assert [event.tid for event in ring.drain()] == [1]
    ring.address.slots = 1 << 31
    ring.address.tail = 1 << 24
    assert ring.drain() == []
    assert ring.sleep()


def test_a_ring_of_no_slots_is_not_taken_up(ring: Ring) -> None:
    os.ftruncate(ring.fd, lib.eci_ring_bytes(0))
    ring.address.slots = 0
    with pytest.raises(ValueError, match="another version"):
        Ring(kept=(ring.fd, ring.event_fd))
