"""Reading a bbolt database (containerd's metadata) while its owner has it open, without a lock.

The owner holds flock(2) on the file for as long as it runs.  bbolt is copy-on-write: a
transaction writes only pages that no committed tree uses, syncs them, and then writes one of the
two meta pages.  The pages that transaction N+1 frees, those of tree N, are written over by
transaction N+2 at the earliest, and that comes after the meta page of N+1.  So what was read of
tree N is whole if N is still the newest transaction when all has been read.  `snapshot` sees to
that, and reads again where it is not so.

Format: go.etcd.io/bbolt, page.go, db.go and bucket.go.  Little-endian machines.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = 0xED0CDAED
VERSION = 2
_PAGE = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQ")
_BRANCH = struct.Struct("<IIQ")
_LEAF = struct.Struct("<IIII")
_BUCKET = struct.Struct("<QQ")
_BRANCH_PAGE, _LEAF_PAGE = 1, 2
_IS_BUCKET = 1
_PAGE_SIZES = (4096, 8192, 16384, 65536)
_DEEPEST = 32
_LARGEST = 64 << 20
"""Bytes of one page with its overflow."""
_PAGES = 1 << 40
"""More than a file has."""
ATTEMPTS = 50

T = TypeVar("T")


class BoltError(Exception):
    """The file is no bbolt database, or changes too fast; the text says which."""


class _Meta:
    def __init__(self, data: bytes) -> None:
        """Read a meta page; BoltError where it is none, or half written."""
        if len(data) < _PAGE.size + _META.size + 8:
            raise BoltError("the file is too short")
        body = data[_PAGE.size : _PAGE.size + _META.size]
        magic, version, self.page_size, _, self.root, _, _, _, self.txid = _META.unpack(body)
        (checksum,) = struct.unpack_from("<Q", data, _PAGE.size + _META.size)
        fits = magic == MAGIC and version == VERSION and self.page_size in _PAGE_SIZES
        if not fits or checksum != _fnv(body):
            raise BoltError("not a bbolt database")


def _fnv(data: bytes) -> int:
    """Return the FNV-1a hash, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _newest(fd: int) -> _Meta:
    """Return the meta page of the newest committed transaction."""
    found: list[_Meta] = []
    for offset in (0, *_PAGE_SIZES):
        try:
            meta = _Meta(os.pread(fd, 4096, offset))
        except BoltError:
            continue
        if offset in (0, meta.page_size):
            found.append(meta)
    if not found:
        raise BoltError("not a bbolt database")
    return max(found, key=lambda meta: meta.txid)


class Bucket:
    """One bucket of one committed tree.  Valid as long as the descriptor is open."""

    def __init__(self, fd: int, page_size: int, root: int, inline: bytes = b"") -> None:
        self._fd = fd
        self._page_size = page_size
        self._root = root
        self._inline = inline

    def _page(self, number: int) -> bytes:
        if number == 0 and self._inline:
            return self._inline
        if number >= _PAGES:
            raise BoltError("a page lies outside of the file")
        offset = number * self._page_size
        data = os.pread(self._fd, self._page_size, offset)
        if len(data) < _PAGE.size:
            raise BoltError("a page lies outside of the file")
        overflow = _PAGE.unpack_from(data)[3]
        if overflow:
            size = (overflow + 1) * self._page_size
            if size > _LARGEST:
                raise BoltError("a page is too large")
            data = os.pread(self._fd, size, offset)
        return data

    def _seek(self, key: bytes) -> tuple[int, bytes] | None:
        """Return flags and value of `key`, or None."""
        number = self._root
        for _ in range(_DEEPEST):
            page = self._page(number)
            _, flags, count, _ = _PAGE.unpack_from(page)
            if flags & _LEAF_PAGE:
                return next(
                    ((kind, value) for kind, name, value in _leaves(page, count) if name == key),
                    None,
                )
            if not flags & _BRANCH_PAGE:
                raise BoltError("a page of a tree is neither branch nor leaf")
            children = [child for name, child in _branches(page, count) if name <= key]
            if not children:
                return None
            number = children[-1]
        raise BoltError("a tree is too deep")

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None where there is none, or a bucket."""
        found = self._seek(key)
        return None if found is None or found[0] & _IS_BUCKET else found[1]

    def bucket(self, *keys: bytes) -> Bucket | None:
        """Return the bucket at this path of names, or None."""
        here = self
        for key in keys:
            found = here._seek(key)
            if found is None or not found[0] & _IS_BUCKET:
                return None
            here = here._open(found[1])
        return here

    def _open(self, value: bytes) -> Bucket:
        root, _ = _BUCKET.unpack_from(value)
        return Bucket(self._fd, self._page_size, root, b"" if root else value[_BUCKET.size :])

    def items(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Yield each key with its value or bucket, in order."""
        # What is being written over can lead round in a circle: no page is met twice.
        pages = os.fstat(self._fd).st_size // self._page_size + 1
        yield from self._walk(self._root, _DEEPEST, iter(range(pages)))

    def _walk(
        self, number: int, left: int, pages: Iterator[int]
    ) -> Iterator[tuple[bytes, bytes | Bucket]]:
        if not left or next(pages, None) is None:
            raise BoltError("a tree is too deep")
        page = self._page(number)
        _, flags, count, _ = _PAGE.unpack_from(page)
        if flags & _LEAF_PAGE:
            for kind, key, value in _leaves(page, count):
                yield key, self._open(value) if kind & _IS_BUCKET else value
        elif flags & _BRANCH_PAGE:
            for _, child in _branches(page, count):
                yield from self._walk(child, left - 1, pages)
        else:
            raise BoltError("a page of a tree is neither branch nor leaf")


def _leaves(page: bytes, count: int) -> Iterator[tuple[int, bytes, bytes]]:
    for at in range(_PAGE.size, _PAGE.size + count * _LEAF.size, _LEAF.size):
        flags, position, key_size, value_size = _LEAF.unpack_from(page, at)
        start = at + position
        end = start + key_size
        if end + value_size > len(page):
            raise BoltError("an element lies outside of its page")
        yield flags, page[start:end], page[end : end + value_size]


def _branches(page: bytes, count: int) -> Iterator[tuple[bytes, int]]:
    for at in range(_PAGE.size, _PAGE.size + count * _BRANCH.size, _BRANCH.size):
        position, key_size, child = _BRANCH.unpack_from(page, at)
        if at + position + key_size > len(page):
            raise BoltError("an element lies outside of its page")
        yield page[at + position : at + position + key_size], child


def snapshot(path: str, read: Callable[[Bucket], T]) -> T:
    """Return what `read` makes of the database's root bucket in one committed state of it.

    `read` may be called several times, and on pages that are being written over: what it returns
    or raises counts only where the state is known to have been whole.  BoltError where it is not a
    database, or changed all the time; OSError where it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(ATTEMPTS):
            before = _newest(fd)
            try:
                value = read(Bucket(fd, before.page_size, before.root))
            except Exception:
                if _newest(fd).txid == before.txid:
                    raise
                continue
            if _newest(fd).txid == before.txid:
                return value
    except struct.error as error:
        raise BoltError(f"{path}: {error}") from error
    finally:
        os.close(fd)
    raise BoltError(f"{path}: it changed {ATTEMPTS} times while it was read")
