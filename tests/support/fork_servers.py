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


def standing_by(server: int) -> list[psutil.Process]:
    """Return what it has ready for the next create: who prepares it, and its keeper."""
    with suppress(psutil.NoSuchProcess):
        return [one for one in psutil.Process(server).children() if one.name() == "eci-standby"]
    return []


def all_standing_by(server: int) -> list[psutil.Process]:
    """Return the same where both are there, and else none."""
    found = standing_by(server)
    return found if len(found) == len(("child", "keeper")) else []


def end_fork_servers(state_dir: str | Path) -> None:
    """End them and what stands by, and wait for it."""
    for pid in fork_servers(state_dir):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            ready = standing_by(pid)
            process.terminate()
            process.wait(5)
            _, alive = psutil.wait_procs(ready, 5)
            assert not alive
