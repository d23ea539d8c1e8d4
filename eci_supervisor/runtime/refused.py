"""A container that was refused, in the audit log."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from eci_supervisor.observe import audit
from eci_supervisor.runtime import engine
from eci_supervisor.runtime.errors import EciError
from eci_supervisor.runtime.lifecycle import read_spec

if TYPE_CHECKING:
    from eci_supervisor.runtime.args import Invocation


def record(call: Invocation, reason: str, message: str, pid: int) -> None:
    """Write down that `call` of process `pid` was refused, for `reason`; nothing fails for it."""
    entry = audit.refusal("container", reason)
    entry.call = call.subcommand
    entry.container = audit.printable(call.container_id)
    entry.message = audit.printable(message)
    entry.pid = pid
    with contextlib.suppress(OSError, EciError):
        spec = read_spec(call.config)
        directory = engine.record_directory(spec, call.container_id)
        entry.image = audit.printable(engine.image_name(spec) or engine.recorded_image(directory))
    audit.write(entry)
