"""How many containers and commands were refused, by reason.

    /run/eci/refusals/CODE    the number

Nobody waits for anybody, and no count is lost or shrinks: kernel/watch.py, which has those of
refused calls as well.
"""

from __future__ import annotations

import contextlib
import os

from eci_supervisor.kernel import watch
from eci_supervisor.policy.refusals import TEXTS
from eci_supervisor.runtime import state

FOLDER = "refusals"


def directory() -> str:
    """Return where they lie."""
    return f"{state.root()}/{FOLDER}"


def _path(state_root: str, reason: str) -> str:
    return f"{state_root}/{FOLDER}/{reason.removeprefix('refused:')}"


def add(reason: str) -> None:
    """Count one; nothing fails for it."""
    root = state.root()
    path = _path(root, reason)
    with contextlib.suppress(OSError):
        os.makedirs(root, mode=0o711, exist_ok=True)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        watch.count_in(path)


def read(state_root: str | None = None) -> dict[str, int]:
    """Return how many there were of each reason that has a text; 0 where there were none."""
    root = state.root() if state_root is None else state_root
    return {reason: watch.counted_in(_path(root, reason)) for reason in TEXTS}
