"""How an engine's daemon is started, and how a directory of ours gets first into its PATH.

- systemd: a drop-in for the unit, read last.
- sysvinit, OpenRC: a line in the file that the service's script reads (/etc/default/docker,
  /etc/conf.d/docker).
- Else somebody starts it by hand, and is told what PATH it needs.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines.edits import Change
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.launcher import PATH

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.files import Tree

UNITS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
DROP_IN = "zz-eci.conf"
CONFLICTS = ("--default-runtime", "--add-runtime")
"""Words that dockerd does not take while its configuration file says the same."""


class Unit(msgspec.Struct, frozen=True):
    """A systemd service with its drop-ins, as far as this program must know."""

    path: str
    """What PATH it gets without us."""
    files: tuple[tuple[str, str], ...]
    """Files that have a say, in the order in which they are read: path and text."""


def is_booted(tree: Tree) -> bool:
    """Say whether systemd runs here: sd_booted(3)."""
    return tree.root == "/" and os.path.isdir("/run/systemd/system")


def _logical(text: str) -> list[str]:
    """Return the lines of a unit file, continued ones joined: systemd.syntax(7)."""
    return [
        line.strip()
        for line in re.sub(r"\\\r?\n", " ", text).splitlines()
        if line.strip() and line.strip()[0] not in "#;"
    ]


def _assigned(value: str, path: str) -> str | None:
    """Return what the assignments of an Environment= line make of PATH, or None."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise EngineError(f"{path}: Environment={value}: {error}") from error
    found = None
    for word in words:
        key, _, text = word.partition("=")
        if key == "PATH":
            found = text.replace("%%", "%")
    return found


def read_unit(tree: Tree, service: str, read: Callable[[str], bytes | None]) -> Unit | None:
    """Return the unit `service`, or None if there is none.  EngineError where PATH is beyond us."""
    name = f"{service}.service"
    main = next((f"{place}/{name}" for place in UNITS if tree.exists(f"{place}/{name}")), None)
    if main is None or tree.real(main).endswith("/dev/null"):
        return None  # or masked
    drop_ins: dict[str, str] = {}
    for place in reversed(UNITS):
        for entry in tree.listdir(f"{place}/{name}.d"):
            if entry.endswith(".conf") and entry != DROP_IN:
                drop_ins[entry] = f"{place}/{name}.d/{entry}"
    paths = [main, *(drop_ins[entry] for entry in sorted(drop_ins))]
    return _read_files(paths, read)


def _read_files(paths: list[str], read: Callable[[str], bytes | None]) -> Unit:
    """Return what a unit file with its drop-ins comes to."""
    files: list[tuple[str, str]] = []
    found = PATH
    for path in paths:
        text = (read(path) or b"").decode("utf-8", "replace")
        files.append((path, text))
        for line in _logical(text):
            key, _, value = (part.strip() for part in line.partition("="))
            if key == "Environment":
                assigned = PATH if not value else _assigned(value, path)
                if assigned is not None:
                    found = assigned
                    if path != paths[0] and os.path.basename(path) > DROP_IN:
                        raise EngineError(
                            f"{path}: sets PATH, and is read after {DROP_IN}: give it a name that "
                            "comes before"
                        )
            elif key == "EnvironmentFile" and value:
                other = value.removeprefix("-")
                words = (read(other) or b"").decode("utf-8", "replace")
                files.append((other, words))
                _refuse_path(other, words)
    return Unit(found, tuple(files))


def _refuse_path(path: str, text: str) -> None:
    """EngineError if an EnvironmentFile sets PATH: it would have the last word."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*PATH\s*=", line):
            raise EngineError(
                f"{path}: line {number}: sets PATH, which has the last word under systemd: set it "
                "in a drop-in of the unit instead (Environment=)"
            )


def refuse_conflicts(files: tuple[tuple[str, str], ...]) -> None:
    """EngineError where dockerd is given on its command line what we put into daemon.json."""
    for path, text in files:
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith(("#", ";")):
                continue
            for word in CONFLICTS:
                if word in line:
                    raise EngineError(
                        f"{path}: line {number}: dockerd gets {word} there, and then takes no "
                        "runtimes from daemon.json: move it into that file"
                    )


def config_of(unit: Unit | None, flags: tuple[str, ...], usual: str) -> str:
    """Return the configuration file that a unit gives its daemon with one of these flags."""
    for path, text in unit.files if unit else ():
        for number, line in enumerate(_logical(text), 1):
            if not line.startswith(("ExecStart", "DOCKER_OPTS")):
                continue
            try:
                words = shlex.split(line.partition("=")[2])
            except ValueError as error:
                raise EngineError(f"{path}: command {number}: {error}") from error
            for index, word in enumerate(words):
                name, equals, value = word.partition("=")
                if name in flags:
                    return value if equals else "".join(words[index + 1 : index + 2])
    return usual


def drop_in(service: str, directory: str, path: str) -> Change:
    """Return the drop-in that puts `directory` before `path`."""
    value = ":".join([directory, *(part for part in path.split(":") if part != directory)])
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    text = (
        "# Made by `eci enable`, removed by `eci disable`: whatever looks up runc gets the\n"
        "# protected one.\n"
        "[Service]\n"
        f'Environment="PATH={quoted}"\n'
    )
    name = f"/etc/systemd/system/{service}.service.d/{DROP_IN}"
    return Change(name, "own", None, text.encode())


def with_before(change: Change, before: bytes | None) -> Change:
    """Return the change of a file that was `before`."""
    return msgspec.structs.replace(change, before=before)


def script_file(tree: Tree, service: str) -> str | None:
    """Return the file that the service's start script reads its environment from, or None."""
    script = f"/etc/init.d/{service}"
    data = tree.read(script)
    if data is None:
        return None
    if b"openrc-run" in data:
        return f"/etc/conf.d/{service}"
    default = f"/etc/default/{service}"
    return default if b"/etc/default/" in data else None


def line(path: str, before: bytes | None, directory: str) -> Change:
    """Return a change of such a file that puts `directory` first in PATH."""
    old = before or b""
    gap = b"" if not old or old.endswith(b"\n") else b"\n"
    new = f'# Made by `eci enable`, removed by `eci disable`.\nexport PATH="{directory}:$PATH"\n'
    return Change(path, "lines", before, old + gap + new.encode())
