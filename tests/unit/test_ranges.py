"""The store of ID ranges: exclusive, lowest first, given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.runtime.errors import RangeError
from eci_supervisor.runtime.ranges import DEFAULT, SIZE, RangeStore, limits

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> RangeStore:
    return RangeStore(str(tmp_path), 100000, 3)


def test_the_first_two_are_those_that_users_know(store: RangeStore) -> None:
    assert (store.allocate("a").base, store.allocate("b").base) == (100000, 165536)


def test_the_lowest_free_one_is_next(store: RangeStore) -> None:
    for key in "abc":
        store.allocate(key)
    store.release("b")
    assert store.allocate("d").slot == 1


def test_exhaustion_says_so_after_one_collection(store: RangeStore) -> None:
    for key in "abc":
        store.allocate(key)
    calls: list[int] = []
    with pytest.raises(RangeError, match="all 3 ranges of 65536 ids from 100000"):
        store.allocate("d", lambda: calls.append(1))
    assert calls == [1]
    assert store.allocate("d", lambda: store.release("c")).slot == 2


def test_a_shared_range_is_free_when_the_last_leaves(store: RangeStore) -> None:
    slot = store.allocate("a").slot
    store.join(slot, "b")
    store.release("a")
    assert store.holders(slot) == ["b"]
    assert store.allocate("c").slot == 1
    store.release("b")
    store.release("b")
    assert store.allocate("d").slot == slot


def test_a_crash_between_directory_and_holder_takes_nothing(
    store: RangeStore, tmp_path: Path
) -> None:
    (tmp_path / "ranges" / "0").mkdir()
    assert store.allocate("a").slot == 0


def test_only_exact_blocks_are_slots(store: RangeStore) -> None:
    assert store.slot_of(165536, SIZE) == 1
    assert store.slot_of(165537, SIZE) is None
    assert store.slot_of(165536, 1000) is None
    assert store.slot_of(100000 + 3 * SIZE, SIZE) is None
    assert store.slot_of(100000 - SIZE, SIZE) is None


@given(st.integers(1, 500000), st.integers(1, 200000))
def test_a_foreign_block_touches_what_it_overlaps(base: int, size: int) -> None:
    store = RangeStore.__new__(RangeStore)
    store.first, store.count = 100000, 3
    expected = [
        slot
        for slot in range(3)
        if base < 100000 + (slot + 1) * SIZE and base + size > 100000 + slot * SIZE
    ]
    assert list(store.slots_over(base, size)) == expected


@pytest.mark.parametrize("text", ["x", "1", "0:1", "1:0", "-1:5", "4294901760:1", "100000:70000"])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(RangeError, match="ECI_RANGES"):
        limits(text)


def test_limits() -> None:
    assert limits(None) == DEFAULT
    assert limits("4294901759:1") == (4294901759, 1)
    assert DEFAULT[0] + DEFAULT[1] * SIZE < 2**32
