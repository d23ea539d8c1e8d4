"""Where a container's trace goes: a file that is as large as it may be, or standard error."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

TRACE_BYTES = 64 << 20
"""Of one file; the one before it is kept beside it, as NAME.1."""
STDERR = "stderr"


class TraceFile:
    """The end of a file, or of the wrapper's standard error; owns its descriptor.

    Several keepers may write to the same file, a line at a time.
    """

    def __init__(self, name: str, most: int = TRACE_BYTES, fd: int | None = None) -> None:
        """Open it; OSError where it cannot be.  `most`: bytes after which a new one is begun.

        `fd` is the file as another process had it open; it is ours then.
        """
        self._path = None if name == STDERR else Path(name)
        self._most = most
        self._fd = self._open() if fd is None else fd

    @classmethod
    def of(cls, name: str | None, fd: int | None = None) -> TraceFile | None:
        """Return the file of that name, where there is one."""
        return None if name is None else cls(name, fd=fd)

    def fileno(self) -> int:
        """Return its descriptor, which stays ours."""
        return self._fd

    def _open(self) -> int:
        if self._path is None:
            return os.dup(2)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)

    def write(self, line: str) -> None:
        """Add a line; OSError where that cannot be."""
        data = line.encode() + b"\n"
        stat = os.fstat(self._fd)
        if self._path and S_ISREG(stat.st_mode) and stat.st_size + len(data) > self._most:
            self._turn_over(self._path)
        while data:
            data = data[os.write(self._fd, data) :]

    def _turn_over(self, path: Path) -> None:
        """Begin a new file.  Whoever else has this one open finds that it was done."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(self._fd)):
                path.replace(f"{path}.1")
        new = self._open()
        self.close()
        self._fd = new

    def close(self) -> None:
        """Close it; more than once is a fault."""
        os.close(self._fd)
