"""Reading containerd's database without its lock."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.engines import bolt
from eci_supervisor.engines.bolt import BoltError, Bucket
from tests.support import bbolt
from tests.support.bbolt import Database, Tree

if TYPE_CHECKING:
    from pathlib import Path

keys = st.binary(min_size=1, max_size=6)
trees = st.recursive(
    st.dictionaries(keys, st.binary(max_size=20), max_size=12),
    lambda inner: st.dictionaries(keys, st.one_of(st.binary(max_size=5000), inner), max_size=8),
    max_leaves=6,
)


def whole(bucket: Bucket) -> Tree:
    """Return all that is in a bucket."""
    return {
        key: whole(value) if isinstance(value, Bucket) else value for key, value in bucket.items()
    }


def write(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "meta.db"
    path.write_bytes(data)
    return str(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bolt")


@given(trees)
def test_all_that_was_written_is_read(directory: Path, tree: Tree) -> None:
    path = write(directory, Database(tree).data())
    assert bolt.snapshot(path, whole) == tree

    def one_by_one(bucket: Bucket) -> bool:
        for key, value in tree.items():
            if isinstance(value, bytes):
                assert bucket.get(key) == value
                assert bucket.bucket(key) is None
            else:
                inner = bucket.bucket(key)
                assert inner is not None
                assert whole(inner) == value
                assert bucket.get(key) is None
        return bucket.get(b"no such key") is None

    assert bolt.snapshot(path, one_by_one)


@given(st.data())
def test_damage_is_an_error_and_nothing_else(directory: Path, data: st.DataObject) -> None:
    good = Database({b"a": {b"b": b"c", b"d": b"e" * 5000}, b"f": b"g"}).data()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + data.draw(st.binary(min_size=1, max_size=8)) + good[at + 8 :]
    path = write(directory, bad[: data.draw(st.integers(0, len(bad)))])
    with contextlib.suppress(BoltError):
        bolt.snapshot(path, whole)


def test_the_newer_meta_page_counts_and_a_half_written_one_does_not(tmp_path: Path) -> None:
    old, new = Database({b"a": b"old"}), Database({b"a": b"new"})
    page = new.pages[3]
    data = bytearray(old.data(7) + page)  # the new tree's only page is page 4
    data[: bbolt.PAGE] = bbolt.meta(0, 4, 8)
    assert bolt.snapshot(write(tmp_path, bytes(data)), whole) == {b"a": b"new"}
    data[40] ^= 1  # its checksum is wrong
    assert bolt.snapshot(write(tmp_path, bytes(data)), whole) == {b"a": b"old"}


def test_a_transaction_that_comes_between_has_it_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, Database({b"a": b"old"}).data(7))
    seen = []

    def read(bucket: Bucket) -> bytes | None:
        value = bucket.get(b"a")
        seen.append(value)
        if len(seen) == 1:
            # What was read is of no worth any more; nor is what it raises.
            with open(path, "r+b") as file:
                file.write(Database({b"a": b"new"}).data(8))
            raise ValueError
        return value

    assert bolt.snapshot(path, read) == b"new"
    assert seen == [b"old", b"new"]


def test_one_that_never_rests_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, Database({b"a": b"b"}).data(1))
    count = 1

    def read(_: Bucket) -> None:
        nonlocal count
        count += 1
        with open(path, "r+b") as file:
            file.write(Database({b"a": b"b"}).data(count))

    with pytest.raises(BoltError, match="it changed 50 times"):
        bolt.snapshot(path, read)
    assert count == 1 + bolt.ATTEMPTS


@pytest.mark.parametrize("data", [b"", b"x", bytes(8192)])
def test_another_file_is_no_database(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BoltError, match="not a bbolt database"):
        bolt.snapshot(write(tmp_path, data), whole)


def test_a_missing_file_is_what_open_says(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bolt.snapshot(os.path.join(tmp_path, "none"), whole)


@pytest.mark.parametrize("size", [0, 1, 2**32 - 1])
def test_a_page_has_one_of_the_usual_sizes(tmp_path: Path, size: int) -> None:
    data = bytearray(Database({b"a": b"b"}).data())
    for offset in (0, bbolt.PAGE):
        struct.pack_into("<I", data, offset + 24, size)
        body = bytes(data[offset + 16 : offset + 72])
        struct.pack_into("<Q", data, offset + 72, bbolt.checksum(body))
    with pytest.raises(BoltError, match="not a bbolt database"):
        bolt.snapshot(write(tmp_path, bytes(data)), whole)


def branch(number: int, child: int) -> bytes:
    """Return a page with nine children, all of them the same."""
    page = struct.pack("<QHHI", number, 1, 9, 0) + struct.pack("<IIQ", 0, 0, child) * 9
    return page.ljust(bbolt.PAGE, b"\0")


def test_a_page_that_lies_nowhere_is_an_error(tmp_path: Path) -> None:
    data = bytearray(Database({b"a": b"b"}).data())
    data[3 * bbolt.PAGE :] = branch(3, 2**63)
    with pytest.raises(BoltError, match="outside of the file"):
        bolt.snapshot(write(tmp_path, bytes(data)), whole)


def test_a_page_that_is_met_again_and_again_is_an_error(tmp_path: Path) -> None:
    data = bytearray(Database({b"a": b"b"}).data())
    leaf = data[3 * bbolt.PAGE :]
    # 9 to the 20th leaves, of which there is one.
    data[3 * bbolt.PAGE :] = b"".join(branch(n, n + 1) for n in range(3, 23)) + leaf
    with pytest.raises(BoltError, match="too deep"):
        bolt.snapshot(write(tmp_path, bytes(data)), whole)
