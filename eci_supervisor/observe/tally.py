"""How many containers and commands were refused, by reason.

    /run/eci/refusals/CODE    one byte for each: its size is the count

Appended to, so that no two processes can lose one, none waits for another, and the count never
shrinks.  Refused calls are counted by the workers: kernel/watch.py.
"""

from __future__ import annotations

import contextlib
import os

from eci_supervisor.policy.refusals import TEXTS
from eci_supervisor.runtime import state

FOLDER = "refusals"


def _path(state_root: str, reason: str) -> str:
    return f"{state_root}/{FOLDER}/{reason.removeprefix('refused:')}"


def add(reason: str) -> None:
    """Count one; nothing fails for it."""
    root = state.root()
    path = _path(root, reason)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        os.makedirs(root, mode=0o711, exist_ok=True)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, b".")
        finally:
            os.close(fd)


def read(state_root: str | None = None) -> dict[str, int]:
    """Return how many there were of each reason that has a text; 0 where there were none."""
    root = state.root() if state_root is None else state_root
    found = dict.fromkeys(TEXTS, 0)
    for reason in found:
        with contextlib.suppress(FileNotFoundError):
            found[reason] = os.stat(_path(root, reason)).st_size
    return found
