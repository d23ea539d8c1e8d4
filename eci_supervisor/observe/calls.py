"""From a worker's event to what is shown of it: a record of the audit log, or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel.reasons import NAMES
from eci_supervisor.observe import audit
from eci_supervisor.observe.audit import Thing
from eci_supervisor.supervisor import trace

if TYPE_CHECKING:
    from eci_supervisor.kernel.ring import Event, Object
    from eci_supervisor.observe.audit import Record


def _thing(what: Object | None) -> Thing | None:
    if what is None:
        return None
    cut = "..." if what.length > len(what.path) else ""
    return Thing(
        path=trace.quote(what.path) + cut,
        device=f"{what.major}:{what.minor}",
        inode=what.ino,
        mount=what.mnt_id,
    )


def record_of(event: Event, container: str, image: str) -> Record:
    """Return the record of a refused call.  Pure, but for its id."""
    record = audit.refusal("call", NAMES.get(event.reason, str(event.reason)), event.time_ns)
    record.container, record.image = audit.printable(container), audit.printable(image)
    record.pid, record.comm = event.tid, trace.quote(event.comm)
    record.call, record.result = trace.call(event), trace.result(event)
    record.source, record.target = _thing(event.source), _thing(event.target)
    return record


def shown(event: Event, container: str) -> dict[str, object]:
    """Return one call as `eci trace --json` prints it.  Pure."""
    things = {"source": _thing(event.source), "target": _thing(event.target)}
    return {
        "time": audit.stamp(event.time_ns),
        "container": container,
        "pid": event.tid,
        "comm": trace.quote(event.comm),
        "call": trace.call(event),
        "result": trace.result(event),
        "reason": NAMES.get(event.reason, f"reason-{event.reason}"),
        "microseconds": round(event.spent_ns / 1000, 3),
        **{name: thing for name, thing in things.items() if thing is not None},
    }


def json_of(event: Event, container: str) -> str:
    """Return the same in JSON, on one line.  Pure."""
    return msgspec.json.encode(shown(event, audit.printable(container))).decode()


def line(event: Event, container: str) -> str:
    """Return one call as `eci trace` prints it, in strace's form.  Pure."""
    return trace.line(audit.printable(container), event)
