"""The processes of ours that answer a container's calls."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

PATIENCE = 5.0
"""Seconds: where one was killed the next one needs a moment."""


def worker_of(pid: int) -> int:
    """Return the pid of the worker that serves the container whose first process has `pid`."""
    return _wait_for(pid, "eci-worker")


def holder_of(pid: int) -> int:
    """Return the pid of that worker's holder, which starts the next one where it is killed."""
    return _wait_for(pid, "eci-holder")


def _wait_for(pid: int, name: str) -> int:
    deadline = time.monotonic() + PATIENCE
    while (found := _find(pid, name)) is None:
        assert time.monotonic() < deadline, f"no {name} for {pid}"
        time.sleep(0.01)
    return found


def _find(pid: int, name: str) -> int | None:
    place = Path(f"/proc/{pid}/ns/mnt").stat().st_ino
    for proc in Path("/proc").iterdir():
        if proc.name.isdigit():
            with suppress(OSError):
                program = (proc / "cmdline").read_bytes().partition(b"\0")[0]
                # It stands where the container's first process does.
                is_it = program.endswith(b"eci-worker") and (proc / "ns/mnt").stat().st_ino == place
                if is_it and (proc / "comm").read_text() == f"{name}\n":
                    return int(proc.name)
    return None
