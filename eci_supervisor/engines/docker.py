"""Docker: daemon.json, and what dockerd and containerd find as `runc`.

Every way to name a runtime has to end at our launcher:

- the default, `default-runtime`;
- `--runtime=NAME`, with NAME from `runtimes`: those that are runc or crun are wrapped, ours go
  before them; all others are refused, or taken out;
- `--runtime=runc`, `--runtime=io.containerd.runc.v2`, and BuildKit, which look `runc` up on PATH.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from eci_supervisor.engines import json_text, service
from eci_supervisor.engines.edits import JsonEdit
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.launcher import NAMES
from eci_supervisor.engines.plan import Plan, Where, is_node, not_protected

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.launcher import Launcher
    from eci_supervisor.engines.plan import Options

SHIMS = ("io.containerd.runc.v1", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux")
"""Types of runtimes that come to `runc` on PATH or to the BinaryName of their options."""


def plan(where: Where, options: Options, read: Callable[[str], bytes | None]) -> Plan:
    """Return what is to be done.  EngineError for what is not understood or not allowed."""
    found = Plan()
    found.link(where.launcher.links())
    edit = JsonEdit(where.docker, read(where.docker))
    _runtimes(edit, where.launcher, options, found)
    found.add(edit.change())
    refuse_shims(found, where.launcher, options)
    if is_service(where, "docker", read):
        services: tuple[str, ...] = ("containerd", "docker")
        if is_node(where) and options.pods != "all":
            services = ("docker",)
            found.notes.append(
                "this machine is a node of a Kubernetes cluster: containerd's PATH stays as it is, "
                "so --runtime=runc is not protected (--pods=all protects both)"
            )
        shadow(found, where, services, read)
    else:
        found.notes.append(
            f"start this dockerd, and its containerd, with PATH={where.launcher.directory}:$PATH: "
            "without it --runtime=runc and BuildKit are not protected"
        )
    return found


FLAGS = {"docker": ("--config-file",), "containerd": ("--config", "-c")}


def is_service(where: Where, engine: str, read: Callable[[str], bytes | None]) -> bool:
    """Say whether the file that is to be changed is that of the machine's own service.

    EngineError if that reads another one, and no file was named.
    """
    usual: str = getattr(Where(), engine)
    unit = service.read_unit(where.tree, engine, read)
    named = service.config_of(unit, FLAGS[engine], usual)
    if named != usual and where.is_usual(engine):
        raise EngineError(
            f"the service {engine} reads {named} and not {usual}: say --{engine}-config {named}"
        )
    mine: str = getattr(where, engine)
    return mine == named


def _field(entry: dict[str, Any], name: str, edit: JsonEdit, steps: tuple[str, ...]) -> str | None:
    """Return the key that dockerd takes for `name`: as Go does, in whatever case it is written."""
    keys = [key for key in entry if key.casefold() == name.casefold()]
    if len(keys) > 1:
        raise EngineError(edit.where((*steps, keys[1]), f"says {name} a second time"))
    return keys[0] if keys else None


def _runtimes(edit: JsonEdit, launcher: Launcher, options: Options, found: Plan) -> None:
    """Put `runtimes` and `default-runtime` into order."""
    entries = _entries(edit)
    safe = set(NAMES)
    for name, entry in entries.items():
        steps = ("runtimes", name)
        problem = _wrap(edit, steps, entry, launcher, found)
        if not problem:
            safe.add(name)
        elif name in NAMES:
            raise EngineError(
                edit.where(steps, f"is {problem}, and the name is wanted for eci-runtime")
            )
        elif options.drop_runtimes:
            edit.take(steps)
            found.notes.append(f"{edit.path}: runtime {name} ({problem}) is taken out")
        else:
            raise not_protected(edit.where(steps, "")[:-2], name, problem)
    for name, program in NAMES.items():
        if name not in entries:
            edit.set(("runtimes", name), {"path": launcher.path(program)})
    if edit.value.get("default-runtime") not in safe:
        edit.set(("default-runtime",), "eci")


def _entries(edit: JsonEdit) -> dict[str, dict[str, Any]]:
    """Return the registered runtimes; EngineError where something is not what it should be."""
    entries = edit.value.get("runtimes", {})
    if not isinstance(entries, dict):
        raise EngineError(edit.where(("runtimes",), "is no object"))
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise EngineError(edit.where(("runtimes", name), "is no object"))
    if not isinstance(edit.value.get("default-runtime", ""), str):
        raise EngineError(edit.where(("default-runtime",), "is no string"))
    return entries


def _program(
    edit: JsonEdit, steps: tuple[str, ...], entry: dict[str, Any]
) -> tuple[tuple[str, ...], str]:
    """Return the keys, within a registered runtime, of its program, and its type.

    Without keys: it is `runc` on PATH if the type is one of SHIMS.
    """
    path_key = _field(entry, "path", edit, steps)
    type_key = _field(entry, "runtimeType", edit, steps)
    options_key = _field(entry, "options", edit, steps)
    if path_key is not None and entry[path_key]:
        return (path_key,), ""
    if type_key is None or not entry[type_key]:
        raise EngineError(edit.where(steps, "names no program"))
    given = entry[options_key] if options_key is not None else {}
    name = None
    if options_key is not None and isinstance(given, dict):
        name = _field(given, "BinaryName", edit, (*steps, options_key))
    keys = () if options_key is None or name is None else (options_key, name)
    return keys, str(entry[type_key])


def _wrap(
    edit: JsonEdit,
    steps: tuple[str, ...],
    entry: dict[str, Any],
    launcher: Launcher,
    found: Plan,
) -> str | None:
    """Let one registered runtime lead to our launcher; returns what it is if that cannot be."""
    keys, shim = _program(edit, steps, entry)
    if shim and shim not in SHIMS:
        return shim
    if not keys:
        return None
    value: Any = entry
    for key in keys:
        value = value[key]
    if not isinstance(value, str) or not value:
        raise EngineError(edit.where((*steps, *keys), "is no program"))
    if launcher.is_ours(value):
        # Registered by hand, or by an older version: from now on by the name that stays.
        name = os.path.basename(value)
        link = launcher.path(name if name in NAMES.values() else NAMES["eci"])
        if os.path.dirname(value) != launcher.directory and steps[-1] in NAMES:
            edit.set((*steps, *keys), link)
        return None
    kind = launcher.kind(value)
    real = launcher.absolute(value)
    if kind is None or real is None:
        return value
    path, links = launcher.wrapped(steps[-1], kind, real)
    found.link(links)
    edit.set((*steps, *keys), path)
    return None


def refuse_shims(found: Plan, launcher: Launcher, options: Options) -> None:
    """Stand before the shims that start something else than runc; EngineError if not asked to."""
    for name, path in launcher.other_shims().items():
        if not options.drop_runtimes:
            runtime = name.replace("containerd-shim-", "io.containerd.").replace("-v", ".v")
            raise not_protected(path, runtime, name)
        found.notes.append(f"{path} is hidden from the engine")
    found.link(launcher.shim_links())


def stranded(where: Where, read: Callable[[str], bytes | None]) -> list[str]:
    """Return a note about containers that remember our runtimes, which are gone when disabled."""
    _, value = json_text.load(read(where.docker) or b"", where.docker)
    root = value.get("data-root")
    place = f"{root if isinstance(root, str) else '/var/lib/docker'}/containers"
    names = []
    for container in where.tree.listdir(place):
        host = _record(read, f"{place}/{container}/hostconfig.json")
        if host.get("Runtime") in NAMES:
            config = _record(read, f"{place}/{container}/config.v2.json")
            names.append(str(config.get("Name", container)).lstrip("/"))
    if not names:
        return []
    listed = ", ".join(names)
    return [f"docker start knows no runtime eci any more: remove and make anew: {listed}"]


def _record(read: Callable[[str], bytes | None], path: str) -> dict[str, Any]:
    """Return one of Docker's records of a container; an empty one where it cannot be read."""
    try:
        found = json.loads(read(path) or b"{}")
    except (EngineError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def shadow(
    found: Plan,
    where: Where,
    services: tuple[str, ...],
    read: Callable[[str], bytes | None],
) -> None:
    """Let each service's PATH begin with our directory, or say what could not be done."""
    tree = where.tree
    directory = where.launcher.directory
    for name in services:
        unit = service.read_unit(tree, name, read)
        script = service.script_file(tree, name)
        if name == "docker" and unit is not None:
            service.refuse_conflicts(unit.files)
        if unit is not None:
            change = service.drop_in(name, directory, unit.path)
            change = service.with_before(change, read(change.path))
            found.add(change)
            if service.is_booted(tree):
                found.restart.append(name)
        if script is not None and not service.is_booted(tree):
            text = (read(script) or b"").decode("utf-8", "replace")
            if name == "docker":
                service.refuse_conflicts(((script, text),))
            found.add(service.line(script, read(script), directory))
            if name not in found.restart:
                found.restart.append(name)
        started = script is not None or (
            unit is not None and (service.is_booted(tree) or tree.root != "/")
        )
        if not started:
            found.notes.append(
                f"nothing is found that starts {name} here: start it with "
                f"PATH={directory}:$PATH, or what looks up runc there is not protected"
            )
