"""Changes of the policy: what a create finds in force, compared with what the last one found.

/run/eci/policy/NAME     the settings in force; NAME stands for the file that they came from
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from eci_supervisor.policy.settings import Settings

FOLDER = "policy"


def differing(before: Any, now: Any, key: str = "") -> list[str]:
    """Return the keys, joined by dots, in which two JSON values differ.  Pure."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for name in sorted({*before, *now})
            for found in differing(
                before.get(name), now.get(name), f"{key}.{name}" if key else name
            )
        ]
    return [] if before == now else [key]


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def note(state_root: str, settings: Settings, source: str) -> None:
    """Write a record if these settings, of the file `source`, are not those of the last create.

    Nothing fails for it: whoever cannot write it down leaves it to the next create.
    """
    data = msgspec.json.encode(settings)
    name = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = f"{state_root}/{FOLDER}/{name}"
    with contextlib.suppress(OSError, ValueError):
        if _read(path) != data:
            _note(path, data, source)


def _note(path: str, data: bytes, source: str) -> None:
    # Imported where there is something to tell: of most creates there is not.
    from eci_supervisor.observe import audit  # noqa: PLC0415
    from eci_supervisor.observe.ids import new_id  # noqa: PLC0415

    folder = os.path.dirname(path)
    os.makedirs(os.path.dirname(folder), mode=0o711, exist_ok=True)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = _read(path)
        if before == data:
            return  # another create was quicker
        with open(f"{path}.new", "wb") as file:
            file.write(data)
        os.rename(f"{path}.new", path)
    finally:
        os.close(fd)
    now = time.time_ns()
    known = msgspec.json.decode(before) if before else None
    audit.write(
        audit.Record(
            time=audit.stamp(now),
            id=new_id(now),
            event="policy-change",
            settings=audit.printable(source),
            sha256=hashlib.sha256(data).hexdigest(),
            before="" if before is None else hashlib.sha256(before).hexdigest(),
            changed=()
            if known is None
            else tuple(audit.printable(key) for key in differing(known, msgspec.json.decode(data))),
        )
    )
