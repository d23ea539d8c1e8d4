"""The whole picture: engines, settings, containers, as values that do not change their form.

`eci status --json` prints `Status` as it is: fields are added, never renamed or taken away.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

import eci_supervisor
from eci_supervisor.engines import processes, running, switch
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.launcher import Launcher, installed
from eci_supervisor.policy import settings as policy
from eci_supervisor.runtime import state

if TYPE_CHECKING:
    from eci_supervisor.engines.journal import Switched
    from eci_supervisor.engines.plan import Where
    from eci_supervisor.engines.processes import Daemon
    from eci_supervisor.engines.running import Container


class Process(msgspec.Struct, frozen=True):
    """A daemon that runs."""

    pid: int
    config: str
    """The configuration file that it was started with."""
    shadowed: bool
    """Whether `runc` on its PATH is our launcher."""
    current: bool
    """False: a file was changed after it started, so it has to be started anew."""


class Engine(msgspec.Struct, frozen=True):
    """One engine."""

    name: str
    program: str
    """Path; empty where it is not installed."""
    enabled: bool
    """Whether `eci enable` switched it over."""
    complete: bool
    """False: `eci enable` was cut short; run it again."""
    edited: list[str]
    """Files that somebody has changed since."""
    processes: list[Process]
    problems: list[str]
    """What keeps its containers from being protected, one line each."""


class SettingsState(msgspec.Struct, frozen=True):
    """The administrator's settings."""

    path: str
    state: str
    """`file`, `defaults` (there is no file) or `error`."""
    error: str
    """Empty, or what is wrong: then no container starts."""
    protects: bool
    """False: `enhancedContainerIsolation.value` is false, and new containers are bare ones."""


class Status(msgspec.Struct, frozen=True):
    """All of it."""

    format: int
    """1; another number if ever a field has to change its meaning."""
    version: str
    kernel: str
    settings: SettingsState
    engines: list[Engine]
    containers: list[Container]


def settings_state() -> SettingsState:
    """Return which settings are in force."""
    named = os.environ.get("ECI_SETTINGS")
    path = named or policy.DEFAULT_PATH
    try:
        found = policy.load(named or None)
    except policy.SettingsError as error:
        return SettingsState(path, "error", str(error), protects=True)
    state = "file" if os.path.exists(path) else "defaults"
    return SettingsState(path, state, "", protects=found.enhanced_container_isolation.value)


def _process(daemon: Daemon, launcher: Launcher, files: list[str]) -> Process:
    first = daemon.path.split(":")[0]
    changed = [os.stat(path).st_mtime for path in (*files, daemon.config) if os.path.exists(path)]
    return Process(
        pid=daemon.pid,
        config=daemon.config,
        shadowed=bool(first) and launcher.is_ours(f"{first}/runc"),
        current=all(when <= daemon.begun for when in changed),
    )


def _edited(where: Where, switched: Switched) -> list[str]:
    found = []
    for change in switched.changes:
        try:
            data = where.tree.read(change.path)
        except EngineError:
            data = None
        if data != change.after:
            found.append(change.path)
    return found


def _problems(where: Where, name: str, enabled: Switched | None, found: list[Process]) -> list[str]:
    if enabled is None:
        return ["not switched over: eci enable"]
    problems = []
    if not enabled.complete:
        problems.append("eci enable was cut short: run it again")
    for target in dict.fromkeys(link.target for link in enabled.links):
        own = state.bin_path("eci-runtime")
        if target != own and os.path.basename(target) == os.path.basename(own):
            problems.append(
                f"new containers are made by another installation, {target}: eci enable takes this "
                "one"
            )
    by_class = enabled.options.get("pods") == "by-class"
    known = {getattr(where, name), *(change.path for change in enabled.changes)}
    for process in found:
        if process.config not in known:
            problems.append(
                f"process {process.pid} reads {process.config}, which is not switched over"
            )
            continue
        if not process.current:
            problems.append(f"process {process.pid} is older than its configuration: restart it")
        if not process.shadowed and not by_class:
            problems.append(
                f"process {process.pid} finds the bare runc on its PATH"
                + (": --runtime=runc and BuildKit are not protected" if name == "docker" else "")
            )
    return problems


def _engine(
    where: Where, name: str, switched: dict[str, Switched], running_daemons: list[Daemon]
) -> Engine:
    enabled = switched.get(name)
    program = installed(where.tree, switch.PROGRAMS[name]) or ""
    if not program and name == "podman":
        program = installed(where.tree, "buildah") or ""
    files = [where.tree.real(change.path) for change in enabled.changes] if enabled else []
    found = [
        _process(daemon, where.launcher, files)
        for daemon in running_daemons
        if daemon.name == switch.PROGRAMS[name]
    ]
    return Engine(
        name=name,
        program=program,
        enabled=enabled is not None,
        complete=enabled is not None and enabled.complete,
        edited=_edited(where, enabled) if enabled else [],
        processes=found,
        problems=_problems(where, name, enabled, found) if program else [],
    )


def gather(where: Where) -> Status:
    """Look at everything.  Needs root.  EngineError where the record is damaged."""
    switched = switch.switched(where)
    daemons = processes.daemons()
    engines = [_engine(where, name, switched, daemons) for name in switch.PROGRAMS]
    addresses = {daemon.pid: os.path.realpath(daemon.address) for daemon in daemons}
    shadowed = {
        addresses[one.pid]
        for engine in engines
        for one in engine.processes
        if one.shadowed and engine.name == "containerd"
    }

    def restart(address: str) -> bool:
        """Say whether what this containerd starts next comes to our launcher."""
        return os.path.realpath(address) in shadowed

    return Status(
        format=1,
        version=eci_supervisor.__version__,
        kernel=os.uname().release,
        settings=settings_state(),
        engines=engines,
        containers=running.find(restart=restart),
    )
