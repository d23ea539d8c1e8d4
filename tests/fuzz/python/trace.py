"""An event with anything in it becomes one line of plain ASCII, in the trace and in the log."""

from __future__ import annotations

import json
import os
import time

from eci_supervisor._eci import ffi

from eci_supervisor.kernel import ring
from eci_supervisor.observe import audit, calls
from eci_supervisor.supervisor import trace

os.environ["TZ"] = "UTC"
time.tzset()


def _is_plain(line: str) -> bool:
    return all(" " <= character <= "~" for character in line)


def one(data: bytes) -> None:
    """Fill an event with it, as a worker could."""
    raw = ffi.new("struct eci_event *")
    size = min(len(data), ffi.sizeof("struct eci_event"))
    ffi.memmove(raw, data, size)
    event = ring.event_of(raw)
    for text, length in event.texts:
        assert text is None or len(text) <= max(length, 0)
    line = trace.line("c" * 64, event)
    assert _is_plain(line)
    assert _is_plain(calls.line(event, "c1\x1b"))
    assert _is_plain(calls.json_of(event, "c1\n"))
    record = calls.record_of(event, "c1\x1b", "image\n")
    written = audit.line_of(record)
    assert len(written) <= audit.LINE
    assert written.endswith(b"\n")
    assert _is_plain(written[:-1].decode("ascii"))
    assert json.loads(written)["event"] == "refusal"
