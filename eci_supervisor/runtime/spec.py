"""config.json as values: what the rewriting reads, checked; everything else kept.  Pure.

The document stays a plain tree, so that keys that we do not know reach the runtime as they
were.  The functions here read one part each and raise `SpecError` with the key's path where
its form is not the OCI runtime specification's.
"""

from __future__ import annotations

import posixpath
from typing import Any

import msgspec

from eci_supervisor.runtime.errors import SpecError

Spec = dict[str, Any]
LIMIT = 16 * 1024 * 1024
"""Largest config.json, in bytes, that is read."""

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")


class Mapping(msgspec.Struct, frozen=True):
    """One line of a user namespace's map."""

    inside: int
    outside: int
    size: int


class Device(msgspec.Struct, frozen=True):
    """One device node that the container shall have."""

    path: str
    kind: str
    """`c`, `b`, `u` or `p`."""
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    """Owner, as ids of the container."""


def loads(data: bytes, source: str = "config.json") -> Spec:
    """Parse a config.json; SpecError unless what is rewritten of it has the form that it must."""
    try:
        spec = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        msg = f"{source}: not valid JSON: {error}"
        raise SpecError(msg) from error
    if not isinstance(spec, dict):
        msg = f"{source}: expected an object"
        raise SpecError(msg)
    if not isinstance(spec.get("root"), dict) or not isinstance(spec["root"].get("path"), str):
        msg = f"{source}: root.path: expected a string"
        raise SpecError(msg)
    _check_forms(spec)
    return spec


def _check_forms(spec: Spec) -> None:
    """Raise SpecError for a part that is rewritten, and not otherwise read before."""
    for key in ("linux.resources", "linux.sysctl", "process", "hooks"):
        part(spec, key, dict)
    for key in ("mounts", "linux.resources.devices", "hooks.createRuntime", "hooks.poststop"):
        items(spec, key, dict)
    for key in ("linux.maskedPaths", "linux.readonlyPaths"):
        items(spec, key, str)
    for index, limit in enumerate(items(spec, "process.rlimits", dict)):
        for name in ("hard", "soft"):
            _typed(limit.get(name, 0), int, f"process.rlimits[{index}].{name}")


def dumps(spec: Spec) -> bytes:
    """Return the document's text."""
    return msgspec.json.encode(spec)


def _typed(value: object, kind: type, key: str) -> Any:
    """Return `value` if it is a `kind`; a bool is no int."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        name = {
            dict: "an object",
            list: "an array",
            str: "a string",
            int: "an integer",
            bool: "true or false",
        }[kind]
        msg = f"config.json: {key}: expected {name}"
        raise SpecError(msg)
    return value


def part(spec: Spec, key: str, kind: type) -> Any:
    """Return the value at the dotted `key`; an empty `kind` where there is none, or null."""
    node: Any = spec
    seen: list[str] = []
    for step in key.split("."):
        _typed(node, dict, ".".join(seen) or "the document")
        seen.append(step)
        node = node.get(step)
        if node is None:
            return kind()
    return _typed(node, kind, key)


def items(spec: Spec, key: str, kind: type) -> list[Any]:
    """Return the array at the dotted `key`, each of its elements a `kind`."""
    values = part(spec, key, list)
    return [_typed(value, kind, f"{key}[{index}]") for index, value in enumerate(values)]


def namespaces(spec: Spec) -> dict[str, str]:
    """Return the listed namespaces: type → path, "" for a new one."""
    found: dict[str, str] = {}
    for index, entry in enumerate(items(spec, "linux.namespaces", dict)):
        key = f"linux.namespaces[{index}]"
        kind = _typed(entry.get("type"), str, f"{key}.type")
        if kind not in NAMESPACES:
            msg = f'config.json: {key}.type: unknown namespace "{kind}"'
            raise SpecError(msg)
        if kind in found:
            msg = f'config.json: {key}: namespace "{kind}" is listed twice'
            raise SpecError(msg)
        found[kind] = _typed(entry.get("path") or "", str, f"{key}.path")
    return found


def mappings(entries: object, key: str) -> tuple[Mapping, ...]:
    """Read an array of ID mappings; overlapping or empty ones are a SpecError."""
    if entries is None:
        return ()
    found = []
    for index, entry in enumerate(_typed(entries, list, key)):
        where = f"{key}[{index}]"
        _typed(entry, dict, where)
        numbers = [
            _typed(entry.get(name, 0), int, f"{where}.{name}")
            for name in ("containerID", "hostID", "size")
        ]
        if min(numbers) < 0 or numbers[2] == 0 or numbers[1] + numbers[2] > 2**32 - 1:
            msg = f"config.json: {where}: not a range of ids"
            raise SpecError(msg)
        found.append(Mapping(*numbers))
    return tuple(found)


def map_text(entries: tuple[Mapping, ...]) -> str:
    """Return the lines that go into uid_map or gid_map."""
    return "".join(f"{entry.inside} {entry.outside} {entry.size}\n" for entry in entries)


def devices(spec: Spec) -> list[Device]:
    """Return linux.devices."""
    found = []
    for index, entry in enumerate(items(spec, "linux.devices", dict)):
        key = f"linux.devices[{index}]"
        kind = _typed(entry.get("type"), str, f"{key}.type")
        if kind not in ("c", "b", "u", "p"):
            msg = f'config.json: {key}.type: unknown device type "{kind}"'
            raise SpecError(msg)
        mode = entry.get("fileMode")
        found.append(
            Device(
                path=_typed(entry.get("path"), str, f"{key}.path"),
                kind=kind,
                major=_typed(entry.get("major", 0), int, f"{key}.major"),
                minor=_typed(entry.get("minor", 0), int, f"{key}.minor"),
                mode=0o666 if mode is None else _typed(mode, int, f"{key}.fileMode") & 0o7777,
                uid=_typed(entry.get("uid") or 0, int, f"{key}.uid"),
                gid=_typed(entry.get("gid") or 0, int, f"{key}.gid"),
            )
        )
    return found


def options(mount: dict[str, Any]) -> list[str]:
    """Return a mount's options."""
    found = _typed(mount.get("options") or [], list, "mounts[].options")
    return [_typed(option, str, "mounts[].options") for option in found]


def inside(path: object) -> str:
    """Return a path of the container in its shortest form, from its root, links not looked at."""
    # Two slashes at the beginning would stay two: posixpath.normpath(), as POSIX has it.
    return posixpath.normpath("/" + str(path or "").lstrip("/"))


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether this entry of mounts[] binds something of the host.

    Both runtimes go by the options or the type, whichever says so.
    """
    return mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(options(mount))


def has_readonly_root(spec: Spec) -> bool:
    """Whether the container's root file system is to be read-only."""
    return spec["root"].get("readonly") is True
