"""containerd: the runtime handlers of its CRI plugin (Kubernetes), and `runc` on its PATH.

Which pods are protected is the administrator's to say on a node of a cluster, as pods of the
host's network, kube-proxy among them, cannot be:

- `all`: every pod, and whatever else containerd starts (ctr, nerdctl, Docker);
- `by-class`: those that ask for the RuntimeClass `eci` (or `eci-crun`).  PATH stays as it is.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

from eci_supervisor.engines import toml_text
from eci_supervisor.engines.docker import SHIMS, is_service, refuse_shims, shadow
from eci_supervisor.engines.edits import Change, TomlEdit
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.launcher import NAMES, installed
from eci_supervisor.engines.plan import Plan, is_node, not_protected

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.launcher import Launcher
    from eci_supervisor.engines.plan import Options, Where

SECTIONS = {
    2: ("plugins", "io.containerd.grpc.v1.cri", "containerd"),
    3: ("plugins", "io.containerd.cri.v1.runtime", "containerd"),
}
"""Version of the file -> where the handlers stand."""
PLUGINS = {"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"}
SHIM = "io.containerd.runc.v2"
MANIFEST_NAME = "runtimeclass.yaml"
MANIFEST = """\
# kubectl apply -f this file.  A pod asks for protection with `runtimeClassName: eci`.
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: eci
handler: eci
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: eci-crun
handler: eci-crun
"""
_SECONDS = 20.0


def plan(where: Where, options: Options, read: Callable[[str], bytes | None]) -> Plan:
    """Return what is to be done.  EngineError for what is not understood or not allowed."""
    found = Plan()
    found.link(where.launcher.links())
    pods = options.pods or _pods(where)
    data = read(where.containerd)
    edit = TomlEdit(where.containerd, data)
    if _has_cri(edit.value):
        _handlers(edit, where, options, pods, found)
        found.add(edit.change())
        path = f"{where.library}/{MANIFEST_NAME}"
        found.add(Change(path, "own", None, MANIFEST.encode()))
        found.notes.append(f"for Kubernetes: kubectl apply -f {path}")
    else:
        found.notes.append(f"{where.containerd}: the CRI plugin is disabled there, and stays so")
    if pods != "by-class":
        refuse_shims(found, where.launcher, options)
    own = is_service(where, "containerd", read)
    if pods == "by-class":
        found.restart += ["containerd"] if own else []
    elif own:
        shadow(found, where, ("containerd",), read)
    else:
        found.notes.append(
            f"start this containerd with PATH={where.launcher.directory}:$PATH: without it what "
            "names no runtime is not protected"
        )
    return found


def _pods(where: Where) -> str:
    """Return `all`, unless the machine is a node of a cluster: then somebody has to say."""
    if is_node(where):
        raise EngineError(
            "this machine is a node of a Kubernetes cluster, whose pods with hostNetwork "
            "(kube-proxy and its like) cannot be protected: say --pods=by-class (pods with "
            "runtimeClassName eci) or --pods=all"
        )
    return "all"


def _has_cri(tables: dict[str, Any]) -> bool:
    disabled = tables.get("disabled_plugins", [])
    return not (isinstance(disabled, list) and PLUGINS & {str(name) for name in disabled})


def version_of(where: Where) -> int:
    """Return the version of the file that the installed containerd reads best; 2 without one."""
    program = installed(where.tree, "containerd")
    if program is None or where.tree.root != "/":
        return 2
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 2
    match = re.search(r" v?(\d+)\.\d+", done.stdout)
    return 3 if match is not None and int(match[1]) >= 2 else 2  # noqa: PLR2004 - containerd 2


def _handlers(edit: TomlEdit, where: Where, options: Options, pods: str, found: Plan) -> None:
    """Add our handlers and put the others into order."""
    section = _section(edit, where)
    _refuse_imports(edit, section, where)
    handlers = toml_text.find(edit.value, (*section, "runtimes")) or {}
    if not isinstance(handlers, dict):
        raise EngineError(edit.where((*section, "runtimes"), "is no table"))
    safe = set(NAMES)
    for name, handler in handlers.items():
        if pods != "all" or name in NAMES:
            continue
        steps = (*section, "runtimes", name)
        problem = _wrap(edit, steps, handler, where.launcher, found)
        if not problem:
            safe.add(name)
        elif options.drop_runtimes:
            edit.set(steps, None)
            found.notes.append(f"{edit.path}: handler {name} ({problem}) is taken out")
        else:
            raise not_protected(edit.where(steps, "")[:-2], name, problem)
    for name, program in NAMES.items():
        handler = _like_runc(handlers.get("runc"))
        handler["options"]["BinaryName"] = where.launcher.path(program)
        edit.set((*section, "runtimes", name), handler)
    default = toml_text.find(edit.value, (*section, "default_runtime_name"))
    if pods == "all" and (default not in safe or default == "runc"):
        edit.set((*section, "default_runtime_name"), "eci")


def _section(edit: TomlEdit, where: Where) -> tuple[str, ...]:
    """Return where the handlers stand in this file; EngineError where that is beyond us."""
    version = edit.value.get("version")
    if version is None and not edit.value:
        version = version_of(where)
        edit.set(("version",), version)
    section = SECTIONS.get(version) if isinstance(version, int) else None
    if section is None:
        raise EngineError(
            f"{edit.path}: is of version {version or 1}, eci knows {', '.join(map(str, SECTIONS))}:"
            " convert it with `containerd config migrate`"
        )
    for old in ("default_runtime", "untrusted_workload_runtime"):
        table = toml_text.find(edit.value, (*section, old))
        if isinstance(table, dict) and table.get("runtime_type"):
            raise EngineError(edit.where((*section, old), "is deprecated: make it a handler"))
    return section


def _like_runc(runc: Any) -> dict[str, Any]:
    """Return a handler with what the one for runc says, of cgroups above all."""
    handler = {
        key: value
        for key, value in (runc if isinstance(runc, dict) else {}).items()
        if key not in ("runtime_path", "runtime_engine", "runtime_root") and value not in ("", [])
    }
    handler["runtime_type"] = SHIM
    given = handler.get("options")
    handler["options"] = dict(given) if isinstance(given, dict) else {}
    return handler


def _wrap(
    edit: TomlEdit, steps: tuple[str, ...], handler: Any, launcher: Launcher, found: Plan
) -> str | None:
    """Let one handler lead to our launcher; returns what it is if that cannot be."""
    if not isinstance(handler, dict):
        raise EngineError(edit.where(steps, "is no table"))
    kind = handler.get("runtime_type")
    if kind not in SHIMS or handler.get("runtime_path"):
        return str(handler.get("runtime_path") or kind)
    binary = toml_text.find(handler, ("options", "BinaryName"))
    if not binary:
        return None  # runc on PATH
    if launcher.is_ours(binary):
        return None
    known = launcher.kind(binary)
    real = launcher.absolute(binary)
    if known is None or real is None:
        return str(binary)
    path, links = launcher.wrapped(steps[-1], known, real)
    found.link(links)
    edit.set((*steps, "options", "BinaryName"), path)
    return None


def _refuse_imports(edit: TomlEdit, section: tuple[str, ...], where: Where) -> None:
    """EngineError if a file that is imported has a say in the same things: it would win."""
    for pattern in edit.value.get("imports", []):
        if not isinstance(pattern, str):
            continue
        full = os.path.join(os.path.dirname(where.containerd), pattern)
        for real in sorted(glob.glob(where.tree.real(full))):
            with open(real, "rb") as file:
                _, tables = toml_text.load(file.read(), real)
            for other in {section, *SECTIONS.values()}:
                if toml_text.find(tables, other) is not None:
                    raise EngineError(
                        f"{real}: has runtimes too, and is imported by {edit.path}: move them there"
                    )


def check(where: Where, change: Change) -> None:
    """EngineError unless containerd itself reads the change as it is meant."""
    program = installed(where.tree, "containerd")
    if program is None or where.tree.root != "/":
        return
    done = subprocess.run(
        [program, "--config", where.containerd, "config", "dump"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise EngineError(f"{change.path}: containerd does not take it: {lines[-1]}")
    _, tables = toml_text.load(done.stdout, "containerd config dump")
    for section in SECTIONS.values():
        handlers = toml_text.find(tables, (*section, "runtimes"))
        if isinstance(handlers, dict) and set(NAMES) <= set(handlers):
            return
    raise EngineError(f"{change.path}: containerd does not see the handler eci in it")
