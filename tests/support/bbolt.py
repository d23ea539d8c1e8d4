"""Writes a bbolt database, as far as reading one is to be tested: page.go, db.go, bucket.go."""

from __future__ import annotations

import struct
from typing import TypeAlias

Tree: TypeAlias = "dict[bytes, bytes | Tree]"
PAGE = 4096
_MAGIC = 0xED0CDAED


def checksum(data: bytes) -> int:
    """Return the FNV-1a hash, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def meta(number: int, root: int, txid: int) -> bytes:
    """Return a meta page."""
    body = struct.pack("<IIIIQQQQQ", _MAGIC, 2, PAGE, 0, root, 0, 2, 100, txid)
    page = struct.pack("<QHHI", number, 4, 0, 0) + body + struct.pack("<Q", checksum(body))
    return page.ljust(PAGE, b"\0")


class Database:
    """The pages of one committed tree, with `most` elements in each page."""

    def __init__(self, tree: Tree, most: int = 3) -> None:
        """Lay the pages out; two meta pages and a freelist come first."""
        self.most = most
        self.pages: dict[int, bytes] = {}
        self.next = 3
        self.root = self._tree(tree)

    def data(self, txid: int = 7) -> bytes:
        """Return the file: one meta page of this transaction, one of the last."""
        found = [meta(0, self.root, txid - 1), meta(1, self.root, txid)]
        found += [bytes(PAGE)] + [self.pages[number] for number in sorted(self.pages)]
        return b"".join(found)

    def _put(self, flags: int, count: int, body: bytes) -> int:
        number = self.next
        size = 16 + len(body)
        overflow = (size - 1) // PAGE
        page = struct.pack("<QHHI", number, flags, count, overflow) + body
        self.pages[number] = page.ljust((overflow + 1) * PAGE, b"\0")
        self.next += overflow + 1
        return number

    def _tree(self, tree: Tree) -> int:
        items = sorted(tree.items())
        parts = [items[at : at + self.most] for at in range(0, len(items), self.most)] or [[]]
        level = [(part[0][0] if part else b"", self._leaf(part)) for part in parts]
        while len(level) > 1:
            groups = [level[at : at + self.most] for at in range(0, len(level), self.most)]
            level = [(group[0][0], self._branch(group)) for group in groups]
        return level[0][1]

    def _leaf(self, items: list[tuple[bytes, bytes | Tree]]) -> int:
        return self._put(2, len(items), self._leaf_body(items))

    def _leaf_body(self, items: list[tuple[bytes, bytes | Tree]]) -> bytes:
        heads, data = b"", b""
        for index, (key, value) in enumerate(items):
            kind, stored = (0, value) if isinstance(value, bytes) else (1, self._bucket(value))
            position = 16 * (len(items) - index) + len(data)
            heads += struct.pack("<IIII", kind, position, len(key), len(stored))
            data += key + stored
        return heads + data

    def _bucket(self, tree: Tree) -> bytes:
        """Small buckets lie within their element."""
        items = sorted(tree.items())
        if len(items) <= 1 and all(isinstance(value, bytes) for _, value in items):
            page = struct.pack("<QHHI", 0, 2, len(items), 0)
            return struct.pack("<QQ", 0, 0) + page + self._leaf_body(items)
        return struct.pack("<QQ", self._tree(tree), 0)

    def _branch(self, children: list[tuple[bytes, int]]) -> int:
        heads, data = b"", b""
        for index, (key, child) in enumerate(children):
            position = 16 * (len(children) - index) + len(data)
            heads += struct.pack("<IIQ", position, len(key), child)
            data += key
        return self._put(1, len(children), heads + data)
