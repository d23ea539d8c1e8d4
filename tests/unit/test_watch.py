"""The file that shows what a worker does (csrc/watch.c)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from eci_supervisor._eci import ffi, lib

from eci_supervisor.kernel import holding, watch
from eci_supervisor.kernel.watch import Watch, WatchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOTS = 8


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Watch]:
    """The watch of a worker that this process stands for."""
    fd = watch.create(str(tmp_path), SLOTS)
    made = Watch(str(tmp_path))
    yield made
    made.close()
    os.close(fd)


def put(shown: Watch, tid: int) -> None:
    lib.eci_watch_put(shown.head, ffi.new("struct eci_event *", {"tid": tid}))


def tids(shown: Watch) -> list[int]:
    return [event.tid for event in shown.events()]


def test_events_come_in_order_and_once(shown: Watch) -> None:
    for tid in range(5):
        put(shown, tid)
    assert tids(shown) == [0, 1, 2, 3, 4]
    put(shown, 5)
    assert tids(shown) == [5]
    assert tids(shown) == []


def test_a_slow_reader_loses_the_oldest_and_is_told(shown: Watch) -> None:
    for tid in range(3 * SLOTS + 1):
        put(shown, tid)
    assert tids(shown) == list(range(2 * SLOTS + 1, 3 * SLOTS + 1))
    assert shown.lost == 2 * SLOTS + 1


def test_readers_are_in_nobodys_way(shown: Watch, tmp_path: Path) -> None:
    other = Watch(str(tmp_path))
    put(shown, 1)
    assert tids(other) == [1]
    assert tids(shown) == [1]
    other.close()


def test_a_hole_does_not_stop_a_reader(shown: Watch) -> None:
    """A writer that took a turn and was overtaken before it wrote leaves one."""
    shown.head.head += 1
    put(shown, 2)
    assert tids(shown) == []
    shown.patience = 0
    assert tids(shown) == [2]
    assert shown.lost == 1


def test_many_writers_tear_nothing(shown: Watch) -> None:
    writers, each = 4, 2000

    def write(first: int) -> None:
        for i in range(each):
            event = {"tid": first + i, "args": [first + i] * 6, "nr": first + i}
            lib.eci_watch_put(shown.head, ffi.new("struct eci_event *", event))

    threads = [threading.Thread(target=write, args=(n * each,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen += shown.events()
    shown.patience = 0
    seen += shown.events()
    assert all(event.args == (event.tid,) * 6 and event.nr == event.tid for event in seen)
    assert len(seen) + shown.lost == writers * each
    assert len({event.tid for event in seen}) == len(seen)


def test_counts_add_up(shown: Watch, tmp_path: Path) -> None:
    lib.eci_watch_count(shown.head, 1, lib.ECI_REASON_PERFORMED)
    lib.eci_watch_count(shown.head, 1, lib.ECI_REASON_PERFORMED)
    lib.eci_watch_count(shown.head, 2, lib.ECI_REASON_LOOSEN)
    for spent in (0, 999, 1000, 10**12):
        lib.eci_watch_time(shown.head, spent)
    counts = shown.counts()
    assert counts.calls == {("mount", "performed"): 2, ("umount2", "refused:no-loosening"): 1}
    assert counts.times == (2, 1, *[0] * (lib.ECI_TIMES - 3), 1)
    assert counts.times_ns == 10**12 + 1999
    assert watch.read_counts(str(tmp_path / watch.FILE)) == counts
    assert (counts + counts).calls["mount", "performed"] == 4


def test_the_lease_only_grows(shown: Watch) -> None:
    lib.eci_watch_follow(shown.head, 100)
    lib.eci_watch_follow(shown.head, 50)
    assert shown.head.follow_until == 100
    shown.follow()
    assert shown.head.follow_until > 100


def test_the_file_is_root_s_alone_and_shows_who_lives(tmp_path: Path) -> None:
    path = tmp_path / watch.FILE
    assert not holding.is_held(str(path))
    fd = watch.create(str(tmp_path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert holding.is_held(str(path))
    assert holding.is_held(str(path)), "asking does not take it"
    os.close(fd)
    assert not holding.is_held(str(path))


@pytest.mark.parametrize("damage", ["cut", "magic", "slots"])
def test_another_versions_file_is_refused(tmp_path: Path, damage: str) -> None:
    os.close(watch.create(str(tmp_path)))
    path = tmp_path / watch.FILE
    if damage == "cut":
        os.truncate(path, 100)
    with path.open("r+b") as file:
        file.seek(0 if damage == "magic" else ffi.offsetof("struct eci_watch", "slots"))
        if damage != "cut":
            file.write(b"\3\0\0\0")
    with pytest.raises(WatchError, match=str(path)):
        Watch(str(tmp_path))
    if damage == "magic":
        assert watch.read_counts(str(path)) == watch.NONE


def test_no_file_no_counts(tmp_path: Path) -> None:
    assert watch.read_counts(str(tmp_path / watch.FILE)) is None
    with pytest.raises(FileNotFoundError):
        Watch(str(tmp_path))


def test_numbers_in_files_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "number")
    assert watch.counted_in(path) == 0
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(200):
                    watch.count_in(path)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert watch.counted_in(path) == 800
    assert os.stat(path).st_size == 8


def test_slot_of_a_writer_that_was_killed_is_used_again(shown: Watch) -> None:
    """It was writing; its successor gives the event up."""
    for tid in range(SLOTS):
        put(shown, tid)
    slots = ffi.cast("char *", shown.head) + lib.ECI_WATCH_HEAD
    ffi.cast("struct eci_event *", slots)[1].turn = 1 | 1 << 63
    lib.eci_watch_mend(shown.head)
    assert tids(shown) == [0, *range(2, SLOTS)]
    for tid in range(SLOTS, 2 * SLOTS):
        put(shown, tid)
    assert tids(shown) == list(range(SLOTS, 2 * SLOTS))


def test_a_reader_stays_in_the_file_whatever_a_worker_makes_of_it(tmp_path: Path) -> None:
    os.close(watch.create(str(tmp_path)))
    reader = Watch(str(tmp_path))
    reader.patience = 0.0
    reader.head.slots = 1 << 31
    reader.head.head = (1 << 24) + 3
    assert reader.events() == []
    assert reader.lost == (1 << 24) + 3
    reader.close()
