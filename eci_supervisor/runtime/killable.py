"""Whether a runtime's filters can wait killable, so that no signal interrupts a supervised call.

crun takes the flag since 1.6.  runc does so since 1.5, where its libseccomp has it (2.6), and
refuses a flag that it does not know; `runc features` says which it supports.  As that costs the
start of a program, the answer is kept in the state directory for as long as the program stays the
same file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import msgspec

from eci_supervisor.runtime import state
from eci_supervisor.runtime.seccomp import WAIT_KILLABLE

CACHE = "waits-killable"
_SECONDS = 10.0


def waits_killable(runtime: str, binary: str, state_root: str) -> bool:
    """Return whether the runtime `binary` takes the flag; without an answer from it, no."""
    if runtime == "crun":
        return True
    stat = os.stat(binary)
    identity = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
    cache = f"{state_root}/{CACHE}"
    with suppress(FileNotFoundError, NotADirectoryError), open(cache, encoding="ascii") as file:
        known, _, answer = file.read().partition(" ")
        if known == identity and answer in {"yes", "no"}:
            return answer == "yes"
    found = WAIT_KILLABLE in _supported_flags(binary)
    # The directory may not be there yet, or another create writes the same: it is asked once more.
    with suppress(FileNotFoundError, NotADirectoryError):
        state.write_file(cache, f"{identity} {'yes' if found else 'no'}".encode())
    return found


def _supported_flags(binary: str) -> list[Any]:
    """Return what `features` says; nothing for a program that has no such word (before 1.1)."""
    import subprocess  # noqa: PLC0415 - most creates find the answer

    try:
        done = subprocess.run(
            [binary, "features"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
        node: Any = msgspec.json.decode(done.stdout)
    except (subprocess.SubprocessError, msgspec.DecodeError):
        return []
    for key in ("linux", "seccomp", "supportedFlags"):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, list) else []
