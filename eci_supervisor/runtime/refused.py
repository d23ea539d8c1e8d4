"""A container that was refused, in the audit log."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from eci_supervisor.engines import identity
from eci_supervisor.observe import audit, tally
from eci_supervisor.runtime import engine, engine_sockets, overlay
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.request import read_spec
from eci_supervisor.runtime.stage import root_mount

if TYPE_CHECKING:
    from eci_supervisor.runtime.args import Invocation
    from eci_supervisor.runtime.spec import Spec


def _image(call: Invocation, spec: Spec) -> str:
    """Return the image's name: what the bundle says, or Docker's record, or an engine's store."""
    directory = engine.record_directory(spec, call.container_id)
    name = engine.image_name(spec) or engine.recorded_image(directory)
    if name:
        return name
    root = os.path.realpath(os.path.join(os.fsencode(call.bundle), os.fsencode(_root(spec))))
    mount = root_mount(root)
    layers = None if mount is None else overlay.layers(mount)
    container = engine_sockets.container_of(spec, call.container_id, call.bundle, root, layers)
    found = identity.find(container)
    return "" if found.image is None else found.shown


def _root(spec: Spec) -> str:
    return str(oci.part(spec, "root", dict).get("path") or "")


def record(call: Invocation, reason: str, message: str, pid: int) -> None:
    """Write down that `call` of process `pid` was refused, for `reason`; nothing fails for it."""
    tally.add(reason)
    entry = audit.refusal("container", reason)
    entry.call = call.subcommand
    entry.container = audit.printable(call.container_id)
    entry.message = audit.printable(message)
    entry.pid = pid
    # Whatever is in the bundle or the store: the record is written.
    with contextlib.suppress(Exception):
        spec = read_spec(call.config)
        entry.image = audit.printable(_image(call, spec))
    audit.write(entry)
