"""Podman and buildah: which program each name of a runtime stands for, in containers.conf.

A drop-in of ours, read last, lets `runc` and `crun` and every other name that stands for one of
them lead to our launcher, and adds `eci` and `eci-crun`.  So the default, `--runtime=NAME`, and
containers that remember a name are covered.  `--runtime /a/path` is not: whoever calls podman as
root is root already.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from eci_supervisor.engines import toml_text
from eci_supervisor.engines.edits import Change, TomlEdit
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.launcher import NAMES
from eci_supervisor.engines.plan import Plan, not_protected

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.plan import Options, Where

FILES = (
    "/usr/share/containers/containers.conf",
    "/usr/share/containers/containers.conf.d",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d",
)
"""What podman and buildah read as root, in this order; a directory's files by name."""
DROP_IN = "/etc/containers/containers.conf.d/zz-eci.conf"
PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/sbin", "/bin")
"""Where they look for the runtimes that they know themselves."""
KNOWN = {
    "crun": "crun",
    "runc": "runc",
    "kata": "kata-runtime",
    "runsc": "runsc",
    "youki": "youki",
    "krun": "krun",
    "crun-wasm": "crun-wasm",
    "crun-vm": "crun-vm",
    "ocijail": "ocijail",
}
"""Those: name -> program."""
DEFAULTS = ("crun", "runc")
"""Which of them they take where nothing is set: the first that is installed."""


def plan(where: Where, options: Options, read: Callable[[str], bytes | None]) -> Plan:
    """Return what is to be done.  EngineError for what is not understood or not allowed."""
    found = Plan()
    found.link(where.launcher.links())
    runtimes, default = _in_force(where, read)
    lines, chosen = _names(where, options, runtimes, default, found)
    if where.podman:
        edit = TomlEdit(where.podman, read(where.podman))
        edit.set(("engine", "runtime"), chosen)
        for name, paths in lines.items():
            edit.set(("engine", "runtimes", name), paths)
        found.add(edit.change())
    else:
        found.add(Change(DROP_IN, "own", read(DROP_IN), _drop_in(chosen, lines)))
    return found


def _files(where: Where) -> list[str]:
    """Return the files that have a say, but for ours, in the order in which they are read."""
    if where.podman:
        return [where.podman]
    paths: list[str] = []
    for path in FILES:
        if not path.endswith(".d"):
            paths.append(path)
            continue
        paths += [f"{path}/{name}" for name in where.tree.listdir(path) if name.endswith(".conf")]
    return [path for path in paths if path != DROP_IN]


def _in_force(
    where: Where, read: Callable[[str], bytes | None]
) -> tuple[dict[str, list[str]], str | None]:
    """Return name -> paths of all runtimes, and the name of the default one, without us."""
    runtimes = {name: [f"{place}/{program}" for place in PLACES] for name, program in KNOWN.items()}
    default = None
    for path in _files(where):
        data = read(path)
        if data is None:
            continue
        _, tables = toml_text.load(data, path)
        engine = tables.get("engine")
        if not isinstance(engine, dict):
            continue
        entries = engine.get("runtimes", {})
        for name, paths in entries.items() if isinstance(entries, dict) else ():
            if not isinstance(paths, list) or not all(isinstance(entry, str) for entry in paths):
                raise EngineError(f"{path}: engine.runtimes.{name}: is no list of paths")
            runtimes[name] = paths
        default = engine.get("runtime") or default
        last = os.path.basename(path) > os.path.basename(DROP_IN)
        if (
            os.path.dirname(path) == os.path.dirname(DROP_IN)
            and last
            and (engine.get("runtime") or entries)
        ):
            raise EngineError(
                f"{path}: sets runtimes, and is read after {os.path.basename(DROP_IN)}: give it a "
                "name that comes before"
            )
    if default is not None and not isinstance(default, str):
        raise EngineError("containers.conf: engine.runtime: is no string")
    return runtimes, default


def _names(
    where: Where,
    options: Options,
    runtimes: dict[str, list[str]],
    default: str | None,
    found: Plan,
) -> tuple[dict[str, list[str]], str]:
    """Return what each name is to stand for, and which is the default."""
    launcher = where.launcher
    tree = where.tree
    lines: dict[str, list[str]] = {}
    safe: list[str] = []
    for name, paths in runtimes.items():
        real = next((path for path in paths if os.path.isfile(tree.real(path))), None)
        if real is None or name in NAMES:
            continue
        if launcher.is_ours(real):
            safe.append(name)
            continue
        kind = launcher.kind(real)
        if kind is not None:
            path, links = launcher.wrapped(name, kind, real)
            found.link(links)
            lines[name] = [path]
            safe.append(name)
        elif options.drop_runtimes:
            lines[name] = []
            found.notes.append(f"containers.conf: runtime {name} ({real}) is taken out")
        else:
            raise not_protected("containers.conf: engine.runtimes", name, real)
    for name, program in NAMES.items():
        lines[name] = [launcher.path(program)]
    chosen = default
    if chosen not in safe and chosen not in NAMES:
        if chosen is not None and "/" in chosen and not launcher.is_ours(chosen):
            kind = launcher.kind(chosen)
            if kind is None and not options.drop_runtimes:
                raise not_protected("containers.conf: engine.runtime", chosen, chosen)
        chosen = next((name for name in DEFAULTS if name in safe), "eci")
    return lines, chosen


def _drop_in(chosen: str, lines: dict[str, list[str]]) -> bytes:
    """Return the text of the drop-in."""
    import tomlkit  # noqa: PLC0415 - slow to import

    document: Any = tomlkit.document()
    document.add(tomlkit.comment("Made by `eci enable`, removed by `eci disable`."))
    engine = tomlkit.table()
    engine.add("runtime", chosen)
    runtimes = tomlkit.table()
    for name, paths in lines.items():
        runtimes.add(name, paths)
    engine.add("runtimes", runtimes)
    document.add("engine", engine)
    text: str = document.as_string()
    return text.encode()


def check(where: Where, change: Change) -> None:
    """EngineError unless the change is TOML that says what was meant."""
    _, tables = toml_text.load(change.after, change.path)
    runtimes = toml_text.find(tables, ("engine", "runtimes")) or {}
    for name, program in NAMES.items():
        if runtimes.get(name) != [where.launcher.path(program)]:
            raise EngineError(f"{change.path}: runtime {name} did not get into it")
