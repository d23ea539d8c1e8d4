"""Waiting for what happens soon, and not at once."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NR_MOUNT, NR_UMOUNT2 = 165, 166  # of x86-64


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait until `condition` holds; `what` stands in the failure if it does not come in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def call_of(pid: int) -> int:
    """Return the number of the system call that a process waits in, or -1; `pid` as seen here."""
    try:
        word = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except (OSError, IndexError):
        return -1
    return int(word) if word.isdecimal() else -1


def stop(pid: int) -> None:
    """Stop a process with SIGSTOP; no thread of it does anything from here on.

    The signal stops the others once one of them has taken it, which under load takes a while.
    """
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _states(pid) <= {"T"}, f"{pid} does not stop")


def kill(pid: int) -> None:
    """Kill it, and wait until nothing of it runs."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 20)[0], f"{pid} lives"
    finally:
        os.close(pidfd)


def _states(pid: int) -> set[str]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads}
