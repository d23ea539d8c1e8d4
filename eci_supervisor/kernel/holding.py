"""A file that shows whether somebody lives, to be asked without being in anybody's way.

A lock of an open file description (fcntl(2), F_OFD_SETLK): it is held as long as any process has
the description, and F_OFD_GETLK tells of it without taking it.  flock(2) can be asked only by
taking it, and whoever wants it in that moment fails.
"""

from __future__ import annotations

import fcntl
import os
import struct

# struct flock of x86-64: type, whence, start, length, pid; length 0 is all of it.
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def hold(fd: int) -> None:
    """Hold the file of this descriptor, open for writing.  BlockingIOError: somebody does."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE)


def is_held(path: str) -> bool:
    """Say whether somebody holds the file; False where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE)
    finally:
        os.close(fd)
    kind, *_ = _FLOCK.unpack(answer)
    return bool(kind != fcntl.F_UNLCK)
