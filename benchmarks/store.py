"""The file of results: `{"environment": {...}, "results": [...]}`."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - msgspec reads the types when it decodes
from typing import Any

import msgspec

from benchmarks.frame import Result  # noqa: TC001 - likewise


class Report(msgspec.Struct, frozen=True):
    """One run: the machine, and what was found on it."""

    environment: dict[str, Any]
    results: Sequence[Result]


def dump(path: str, report: Report) -> None:
    """Write the file anew."""
    with open(path, "wb") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def load(path: str) -> Report:
    """Read a file; raises msgspec.MsgspecError with the place where it is not as it should be."""
    with open(path, "rb") as stream:
        return msgspec.json.decode(stream.read(), type=Report)
