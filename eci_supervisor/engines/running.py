"""The containers that run on this machine, and which of them are protected.

No engine is asked, as one that hangs or is down must not hide what runs.  A container is found by
what stands beside it, containerd's shim or podman's conmon, by our own records, and by what runc
and crun keep in their usual directories.  It is protected if our record names its first process
and that process has the ID range of the record.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec

import eci_supervisor
from eci_supervisor.engines import processes, recreate
from eci_supervisor.kernel import watch
from eci_supervisor.observe import counts
from eci_supervisor.runtime import engine, state
from eci_supervisor.runtime.errors import SpecError
from eci_supervisor.runtime.spec import LIMIT, Spec, loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.processes import Beside
    from eci_supervisor.observe.counts import Seen

ROOTS = ("/run/runc", "/run/crun")
"""Where runc and crun keep their state, unless told otherwise."""
_EVERYBODY = 4294967295


class Container(msgspec.Struct, frozen=True):
    """One running container."""

    id: str
    name: str
    """What the engine calls it; empty if nobody has a name for it."""
    engine: str
    """`docker`, `containerd:NAMESPACE`, `podman`, `eci run`; `-`: somebody called a runtime."""
    image: str
    """As the engine's record says; empty where it says nothing."""
    pid: int
    """Its first process, in the host's PID namespace."""
    protected: bool
    why: str
    """In a few words."""
    runtime: str
    """`runc` or `crun`; empty where it is not known."""
    first_id: int | None
    """First host id of its range; None without a user namespace of its own."""
    ids: int
    """How many."""
    supervisor: int | None
    """Pid of the keeper; None without one."""
    calls: int | None
    """How many calls were trapped; None without a supervisor, or counts that this version reads."""
    refusals: int | None
    drops: int | None
    """Refusals that could not be logged."""
    recreate: str
    """The command that puts it under protection; empty for those that are."""
    version: str = ""
    """Of eci-supervisor, which it was made by and whose programs supervise it; empty: not known."""
    renew: str = ""
    """The command that puts it under the version that is installed; empty where it is."""


def id_range(pid: int) -> tuple[int | None, int]:
    """Return first host id and length of what a process's ids are mapped to; None: not mapped."""
    try:
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
            words = file.readline().split()
    except OSError:
        return None, 0
    if len(words) != 3 or words[1:] == ["0", str(_EVERYBODY)]:  # noqa: PLR2004 - the line has three
        return None, 0
    return int(words[1]), int(words[2])


def _read_spec(bundle: str) -> Spec:
    """Return the bundle's spec; an empty one where it cannot be read."""
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            return loads(file.read(LIMIT), bundle)
    except (OSError, SpecError):
        return {}


def _record(directory: str, name: str) -> dict[str, Any]:
    """Return one of Docker's records of a container; an empty one where it cannot be read."""
    try:
        with open(f"{directory}/{name}", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _init_of(runtime_root: str, container: str) -> int:
    """Return the first process of a container, from what runc or crun wrote down; 0 if none runs.

    runc: state.json, init_process_pid.  crun: status, pid.
    """
    for name, key in (("state.json", "init_process_pid"), ("status", "pid")):
        pid = _record(f"{runtime_root}/{container}", name).get(key)
        if isinstance(pid, int) and pid > 0:
            return pid if processes.alive(pid) else 0
    return 0


def find(*, restart: Callable[[str], bool]) -> list[Container]:
    """Return all, those that are not protected first.  Needs root.

    `restart`: says whether whatever the containerd at this address starts is protected.
    """
    keepers = processes.keepers()
    seen = {}
    for one in counts.containers():
        pid = _init_of(one.runtime_root, one.id)
        if pid:
            seen[pid] = one
    beside = {one.pid: one for one in processes.beside()}
    bare: dict[int, str] = {}
    for root in ROOTS:
        for name in os.listdir(root) if os.path.isdir(root) else ():
            bare.setdefault(_init_of(root, name), name)
    found = [
        _describe(
            pid,
            seen.get(pid),
            beside.get(pid) or processes.Beside("-", bare.get(pid, ""), "", pid, ""),
            keepers,
            restart,
        )
        for pid in sorted({*seen, *beside, *bare} - {0})
    ]
    return sorted(found, key=lambda one: (one.protected, one.engine, one.name, one.id))


def _describe(
    pid: int,
    seen: Seen | None,
    beside: Beside,
    keepers: dict[str, int],
    restart: Callable[[str], bool],
) -> Container:
    first, ids = id_range(pid)
    record = None if seen is None else state.read_record(seen.state_dir)
    protected = record is not None and first == record.base
    supervised = protected and seen is not None and seen.supervised
    # Those of another version may be in a form that is not known here.
    counted = supervised and seen is not None and seen.counts is not watch.NONE
    # What is protected comes to our launcher again, whatever the engine finds on its PATH.
    name, image, command = _named(beside, (lambda _: True) if protected else restart)
    version = record.version if record is not None and protected else ""
    container = beside.id or (seen.id if seen else "")
    return Container(
        id=container,
        name=name,
        engine="eci run"
        if beside.engine == "-" and container.startswith("eci-run-")
        else beside.engine,
        image=image,
        pid=pid,
        protected=protected,
        why=_why(seen, record, first, protected=protected),
        runtime=record.runtime if record is not None else "",
        first_id=first,
        ids=ids,
        supervisor=keepers.get(seen.state_dir) if supervised and seen is not None else None,
        calls=seen.calls if counted and seen is not None else None,
        refusals=seen.refusals if counted and seen is not None else None,
        drops=seen.drops if counted and seen is not None else None,
        recreate="" if protected else command,
        version=version,
        renew=command if protected and version != eci_supervisor.__version__ else "",
    )


def _why(
    seen: Seen | None, record: state.Record | None, first: int | None, *, protected: bool
) -> str:
    if not protected:
        if first is None:
            return "not started by eci-runtime: root in it is root of the host"
        return "not started by eci-runtime: a user namespace, and nothing else of ours"
    if seen is None or not seen.supervised:
        return "cannot mount, so needs no supervisor"
    if not (seen.keeper_alive and seen.worker_alive):
        return "its supervisor is lost: mount calls in it fail"
    if record is not None and record.format not in state.formats():
        return "supervised; refusals are counted, and not logged"
    return "supervised; plain mounts need no asking" if seen.spared else "supervised"


def _named(beside: Beside, restart: Callable[[str], bool]) -> tuple[str, str, str]:
    """Return name, image, and the command that makes it anew."""
    if beside.engine == "podman":
        return beside.name, "", recreate.podman(beside.name or beside.id)
    if beside.engine == "-":
        return "", "", "stop it, and start it with eci-runtime in the place of its runtime"
    spec = _read_spec(beside.bundle)
    if beside.engine == "docker":
        directory = engine.record_directory(spec, beside.id)
        config = _record(directory, "config.v2.json") if directory else {}
        host = _record(directory, "hostconfig.json") if directory else {}
        config.setdefault("ID", beside.id)
        inner = config.get("Config")
        image = str(inner.get("Image", "")) if isinstance(inner, dict) else ""
        command = recreate.docker(config, host, restart=restart(beside.address))
        return str(config.get("Name", "")).lstrip("/"), image, command
    annotations = spec.get("annotations")
    notes = annotations if isinstance(annotations, dict) else {}
    return (
        str(
            notes.get("io.kubernetes.cri.container-name")
            or notes.get("io.kubernetes.cri.sandbox-name")
            or ""
        ),
        str(notes.get("io.kubernetes.cri.image-name", "")),
        recreate.containerd(beside.engine.partition(":")[2], beside.id, notes),
    )
