"""The fork servers of a state directory, which wait for more to do when all else has ended."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil


def fork_servers(state_dir: str | Path) -> set[int]:
    """Return their pids."""
    found = set()
    for lock in Path(state_dir).glob("fork/*.lock"):
        text = lock.read_text()
        with suppress(ValueError, psutil.NoSuchProcess):
            if psutil.Process(int(text)).name() == "eci-fork-server":
                found.add(int(text))
    return found


def end_fork_servers(state_dir: str | Path) -> None:
    """End them, and wait for it."""
    for pid in fork_servers(state_dir):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.terminate()
            process.wait(5)
