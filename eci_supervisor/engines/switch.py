"""Switching engines over, and back."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines import containerd, docker, podman, processes
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.journal import Journal, Switched
from eci_supervisor.engines.launcher import installed
from eci_supervisor.engines.service import is_booted

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.edits import Change
    from eci_supervisor.engines.plan import Options, Plan, Where

PROGRAMS = {"docker": "dockerd", "containerd": "containerd", "podman": "podman"}
"""Engine -> its program."""
_PLANS = {"docker": docker.plan, "containerd": containerd.plan, "podman": podman.plan}
_SECONDS = 30.0


class Outcome(msgspec.Struct, frozen=True):
    """What was done for one engine."""

    engine: str
    changed: list[str]
    """Paths of files; none where all was so already."""
    notes: list[str]
    restart: list[str]
    """Services that are to be started anew for it to take effect, in this order."""


def present(where: Where) -> list[str]:
    """Return the engines that are installed.  Buildah reads what podman reads."""
    found = [name for name, program in PROGRAMS.items() if installed(where.tree, program)]
    if "podman" not in found and installed(where.tree, "buildah"):
        found.append("podman")
    return found


def rehearse(where: Where, engine: str, options: Options) -> None:
    """EngineError where `enable` would refuse; changes nothing."""
    journal = Journal(where.tree, where.library)
    plan = _PLANS[engine](where, options, journal.base(journal.load(), []))
    _check_before(where, engine, plan)


def enable(where: Where, engine: str, options: Options) -> Outcome:
    """Switch one engine over.  EngineError where it cannot be; then all is as it was."""
    journal = Journal(where.tree, where.library)
    with journal.locked() as record:
        notes: list[str] = []
        read = journal.base(record, notes)
        plan = _PLANS[engine](where, options, read)
        _check_before(where, engine, plan)
        wanted = Switched(
            changes=tuple(plan.changes),
            links=tuple(plan.links),
            options={"pods": options.pods} if options.pods else {},
        )
        changed = journal.apply(record, engine, wanted, _check_after(where, engine, plan))
    notes += plan.notes + _others(where, engine)
    return Outcome(engine, changed, notes, plan.restart if changed else [])


def _others(where: Where, engine: str) -> list[str]:
    """Return a note for each daemon of this engine that runs with files of its own."""
    if where.tree.root != "/" or not where.is_usual(engine):
        return []
    flag = {"docker": "--docker-config", "containerd": "--containerd-config"}.get(engine, "")
    return [
        f"process {daemon.pid} is a {daemon.name} with another configuration, which this does not "
        f"change: eci enable --engine {engine} {flag} {daemon.config}"
        for daemon in processes.daemons()
        if daemon.name == PROGRAMS[engine] and daemon.config != getattr(where, engine)
    ]


def disable(where: Where, engine: str) -> Outcome | None:
    """Switch one engine back to what it was; None where it was never switched over."""
    journal = Journal(where.tree, where.library)
    with journal.locked() as record:
        if engine not in record.engines:
            return None
        services = _services(record.engines[engine])
        changed, notes = journal.revert(record, engine)
        if engine == "docker":
            notes += docker.stranded(where, where.tree.read)
    return Outcome(engine, changed, notes, services if changed else [])


def switched(where: Where) -> dict[str, Switched]:
    """Return what is switched over, by the record; EngineError where that is damaged."""
    return Journal(where.tree, where.library).load().engines


def _services(switched: Switched) -> list[str]:
    """Return the services whose files were changed, containerd first."""
    found = []
    for service in ("containerd", "docker"):
        names = (f"/{service}.service.d/", f"/default/{service}", f"/conf.d/{service}")
        if any(name in change.path for change in switched.changes for name in names):
            found.append(service)
    return found


def _change_of(plan: Plan, path: str) -> Change | None:
    return next((change for change in plan.changes if change.path == path), None)


def _check_before(where: Where, engine: str, plan: Plan) -> None:
    """Have dockerd, where it can (from 23.0 on), read the new daemon.json before it is one."""
    change = _change_of(plan, where.docker)
    program = installed(where.tree, "dockerd")
    if engine != "docker" or change is None or program is None or where.tree.root != "/":
        return
    words = subprocess.run(
        [program, "--help"], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if "--validate" not in words.stdout:
        return
    with tempfile.NamedTemporaryFile(prefix="eci-daemon-", suffix=".json") as file:
        file.write(change.after)
        file.flush()
        done = subprocess.run(
            [program, "--validate", f"--config-file={file.name}"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise EngineError(f"{where.docker}: dockerd does not take what it would be: {reason[0]}")


def _check_after(where: Where, engine: str, plan: Plan) -> Callable[[], None]:
    """Return what looks at the result."""

    def check() -> None:
        if engine == "containerd":
            change = _change_of(plan, where.containerd)
            if change is not None:
                containerd.check(where, change)
        if engine == "podman":
            for change in plan.changes:
                podman.check(where, change)

    return check


# -- services ---------------------------------------------------------------------------------


def commands(where: Where, services: list[str]) -> list[list[str]]:
    """Return the commands that let services see what was changed; none in another tree."""
    if not services or where.tree.root != "/":
        return []
    if is_booted(where.tree):
        return [["systemctl", "daemon-reload"], ["systemctl", "restart", *services]]
    return [
        ["service", service, "restart"]
        for service in services
        if where.tree.exists(f"/etc/init.d/{service}")
    ]


def reload_units(where: Where) -> None:
    """Have systemd, where it runs, read its units again: no service is touched by that."""
    if is_booted(where.tree):
        subprocess.run(["systemctl", "daemon-reload"], timeout=_SECONDS, check=False)


def restart(where: Where, services: list[str]) -> None:
    """Run `commands`; EngineError where one fails."""
    for words in commands(where, services):
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(f"{' '.join(words)}: {error}") from error
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["failed"]
            raise EngineError(f"{' '.join(words)}: {lines[-1]}")
