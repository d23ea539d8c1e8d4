"""meta.db: any bytes are a tree, in bounded time, or an error that says so.

An input is pages without the zeros at their end: two bytes of length before each.  The search would
never guess a checksum, so the two meta pages get theirs; the rest is as it comes.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from eci_supervisor.engines import bolt
from eci_supervisor.engines.bolt import BoltError, Bucket
from tests.fuzz.python.source import Source
from tests.support.bbolt import PAGE, checksum

DEPTH = 4
_fd = os.memfd_create("meta.db")
_PATH = f"/proc/self/fd/{_fd}"


def _whole(bucket: Bucket, depth: int = 0) -> dict[bytes, Any]:
    """Return all that is in a bucket, to some depth: one bucket may lie in itself."""
    found: dict[bytes, Any] = {}
    for key, value in bucket.items():
        assert isinstance(key, bytes)
        if isinstance(value, Bucket):
            found[key] = _whole(value, depth + 1) if depth < DEPTH else None
        else:
            found[key] = value
    return found


def _sealed(data: bytes) -> bytes:
    """Return the file, with the checksums of its meta pages right."""
    source = Source(data)
    file = bytearray()
    while source:
        file += source.take(source.number(1 << 16)).ljust(PAGE, b"\0")[:PAGE]
    for offset in (0, PAGE):
        if len(file) >= offset + 88:
            file[offset + 16 : offset + 24] = struct.pack("<II", bolt.MAGIC, bolt.VERSION)
            body = bytes(file[offset + 16 : offset + 72])
            file[offset + 72 : offset + 80] = struct.pack("<Q", checksum(body))
    return bytes(file)


def one(data: bytes) -> None:
    """Read everything, and a key that is there by its name."""
    os.ftruncate(_fd, 0)
    os.pwrite(_fd, _sealed(data), 0)
    try:
        found = bolt.snapshot(_PATH, _whole)
        names = list(found)[:3]
        for name in names:
            bolt.snapshot(_PATH, lambda top, name=name: (top.get(name), top.bucket(name, b"x")))  # type: ignore[misc]
    except BoltError:
        return
