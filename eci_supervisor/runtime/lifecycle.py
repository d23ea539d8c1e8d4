"""create, run and restore: from the engine's bundle to the runtime's.

The order is that of what can fail.  First everything is read, and refused that must be; then
the state directory and the ID range are taken, under the lock; then the keeper is forked,
which from there on clears up whatever happens to us; then the stage is built in a mount
namespace of its own; and at last the process that the engine called becomes the runtime: this one,
or the launcher for which it was forked (successor.py).
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, NoReturn

from eci_supervisor.kernel import features, syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime import (
    cleanup,
    engine,
    engine_sockets,
    killable,
    seccomp,
    spare,
    state,
)
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import UsageError
from eci_supervisor.runtime.prepare import prepare, trace_path
from eci_supervisor.runtime.request import read_request, read_settings
from eci_supervisor.runtime.stage import (
    has_unified,
    hide_unified,
    leave_host,
)
from eci_supervisor.runtime.take import take
from eci_supervisor.supervisor.charge import Charge

if TYPE_CHECKING:
    from eci_supervisor.runtime.args import Invocation
    from eci_supervisor.runtime.request import Request
    from eci_supervisor.runtime.successor import Successor
    from eci_supervisor.runtime.take import Taken

_ID = re.compile(r"[\w+.-]+")


def _charge(request: Request, taken: Taken, profile: seccomp.Profile | None) -> Charge:
    record = taken.record
    return Charge(
        container_id=record.id,
        key=record.key,
        nonce=record.nonce,
        state_dir=taken.state_dir,
        runtime_root=record.runtime_root,
        runtime=record.runtime,
        base=record.base,
        size=record.size,
        supervised=record.supervised,
        waits_killable=seccomp.waits_killable(profile),
        # What is restored may have the filters of another version.
        tells_of_parting=request.call.subcommand != "restore" and seccomp.tells_of_parting(profile),
        masked_paths=tuple(oci.items(request.spec, "linux.maskedPaths", str)),
        readonly_paths=tuple(oci.items(request.spec, "linux.readonlyPaths", str)),
        host_paths=request.host_paths,
        protected=() if profile is None else request.protected,
        hooks_meddle=spare.hooks_meddle(request.spec),
        trace=trace_path(record.key),
        cgroups_path=_cgroups_path(request.spec),
        engine_rootfs=record.engine_rootfs if taken.shift else None,
        readonly_root=oci.has_readonly_root(request.spec),
        image=engine.image_name(request.spec),
        engine_record=engine.record_directory(request.spec, record.id),
        mount_memory=request.mount_memory,
        clearing=cleanup.words_of(record),
    )


def _cgroups_path(spec: oci.Spec) -> str | None:
    path = oci.part(spec, "linux", dict).get("cgroupsPath")
    return path if isinstance(path, str) and path.startswith("/") else None


def pass_on(call: Invocation, binary: str, successor: Successor) -> NoReturn:
    """Leave the container to the runtime as the engine asked for it: the settings say so."""
    if call.runtime == "crun" and has_unified():
        leave_host()
        hide_unified()
    successor.become(binary, call.as_given())


def create(call: Invocation, binary: str, successor: Successor) -> NoReturn:
    """Make a protected container of `call`; `successor` becomes the runtime.

    Raises what goes wrong.
    """
    if _ID.fullmatch(call.container_id) is None or call.container_id in (".", ".."):
        raise UsageError(f"invalid container ID format: {call.container_id!r}")
    settings = read_settings(call)
    if not settings.enhanced_container_isolation.value:
        pass_on(call, binary, successor)
    features.require()
    with contextlib.ExitStack() as undo, read_request(call, settings) as request:
        _make(request, binary, successor, undo)


def _make(
    request: Request, binary: str, successor: Successor, undo: contextlib.ExitStack
) -> NoReturn:
    """Take, prepare, and go; `undo` gets what is to be done where that fails."""
    call = request.call
    state_dir = f"{state.root()}/containers/{state.key_of(call.container_id, call.root)}"
    profile = seccomp.supervise(
        request.spec,
        f"{state_dir}/notify.sock",
        wait_killable=killable.waits_killable(call.runtime, binary, state.root()),
    )
    hand_over = successor.stand_by(state.root())
    from eci_supervisor.supervisor import keeper  # noqa: PLC0415 - heavy, and imported by now

    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    taken = take(request, supervised=profile is not None)
    undo.callback(_clear_up, taken, home)
    charge = _charge(request, taken, profile)
    hand_over(charge, keeper.hold(charge, successor.pid))
    if request.replaced:
        base = 0 if taken.shift else taken.record.base
        holder = engine_sockets.Holder(call.container_id, taken.state_dir, base)
        engine_sockets.serve(request.replaced, request.sources, request.commands, holder)
    network = prepare(request, taken, profile, charge, successor.pid)
    argv = call.with_bundle(f"{taken.state_dir}/bundle")
    successor.become(binary, argv, held=taken.busy, network=network)


def _clear_up(taken: Taken, home: int) -> None:
    """Leave nothing of a container that could not be made; `home`: the engine's mount namespace.

    The keeper does the same when we are gone; but the caller shall find nothing when we return.
    All that was opened of the request is closed by now, as it can be descriptors that are wanting.
    """
    # Back home first: the stage's mounts are gone then, and the engine's reachable.
    syscalls.setns(home, lib.CLONE_NEWNS)
    cleanup.clean(taken.state_dir, taken.record.nonce)
