"""What a finished program has to say for itself when it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess


def require_success(done: subprocess.CompletedProcess[str], what: str) -> None:
    """Fail with all that the program printed, unless it exited with 0."""
    if done.returncode != 0:
        message = f"{what}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        raise AssertionError(message)
