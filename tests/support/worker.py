"""The process of ours that answers a container's calls."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def worker_of(pid: int) -> int:
    """Return the pid of the worker that serves the container whose first process has `pid`."""
    for proc in Path("/proc").iterdir():
        if proc.name.isdigit():
            with suppress(OSError):
                words = (proc / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"eci-worker") and words[-2] == b"%d" % pid:
                    return int(proc.name)
    message = f"no worker for {pid}"
    raise AssertionError(message)
