"""The administrator's settings: /etc/eci/admin-settings.json as typed values.

The keys under `enhancedContainerIsolation` are Docker Desktop's; `vm` is this project's.
Unknown keys, a byte-order mark and a missing version are accepted.  Anything of a wrong type
is a `SettingsError` that names file, line and key, and then no container may start.
"""

from __future__ import annotations

import json
import re

import msgspec

DEFAULT_PATH = "/etc/eci/admin-settings.json"

DEFAULT_PROTECTED_PATHS = (
    "/boot",
    "/etc",
    "/root/.docker",
    "/run/containerd",
    "/run/eci",
    "/run/runc",
    "/run/crun",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/eci",
    "/var/lib/kubelet",
    "/var/log/eci",
)
"""Directories of the host that no container may reach, unless the settings name others."""


class SettingsError(ValueError):
    """The settings cannot be used; the text is for the administrator."""


class ImageList(msgspec.Struct, frozen=True, rename="camel"):
    """Images whose containers may have the engine's socket."""

    images: tuple[str, ...] = ()
    allow_derived_images: bool = False


class CommandList(msgspec.Struct, frozen=True, rename="camel"):
    """Commands on an allowed socket."""

    type: str = "deny"
    commands: tuple[str, ...] = ()


class DockerSocketMount(msgspec.Struct, frozen=True, rename="camel"):
    """Who may have the engine's socket, and for what."""

    image_list: ImageList = ImageList()
    command_list: CommandList = CommandList()


class Isolation(msgspec.Struct, frozen=True, rename="camel"):
    """`enhancedContainerIsolation`."""

    value: bool = True
    """Whether containers are protected at all."""
    locked: bool = False
    docker_socket_mount: DockerSocketMount = DockerSocketMount()


class Vm(msgspec.Struct, frozen=True, rename="camel"):
    """`vm`: directories of the host."""

    protected_paths: tuple[str, ...] = DEFAULT_PROTECTED_PATHS
    shared_paths: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, rename="camel"):
    """The whole file."""

    configuration_file_version: int = 2
    enhanced_container_isolation: Isolation = Isolation()
    vm: Vm = Vm()


_SPACE = re.compile(r"[ \t\r\n]*")


def _after_space(text: str, at: int) -> int:
    """Return the first index from `at` on that is not JSON white space."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def locate(text: str, steps: list[str | int]) -> int:
    """Return the index in the valid JSON `text` of the value at `steps` (keys and indices).

    Where a step is not there, the innermost value that is.
    """
    decoder = json.JSONDecoder()
    at = _after_space(text, 0)
    for step in steps:
        if text[at] not in "{[":
            return at
        is_object = text[at] == "{"
        inner = _after_space(text, at + 1)
        count = 0
        found = None
        while text[inner] not in "}]":
            name: object = count
            if is_object:
                name, inner = decoder.raw_decode(text, inner)
                inner = _after_space(text, _after_space(text, inner) + 1)  # over the colon
            if name == step:
                found = inner  # no break: of two equal keys the last one counts
            _, inner = decoder.raw_decode(text, inner)
            inner = _after_space(text, inner)
            if text[inner] == ",":
                inner = _after_space(text, inner + 1)
            count += 1
        if found is None:
            return at
        at = found
    return at


def _steps(path: str) -> list[str | int]:
    """Split msgspec's path (`$.a.b[0]`) into keys and indices."""
    return [
        int(index) if index else key for key, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path)
    ]


def _line(text: str, at: int) -> int:
    """Return the line number, from 1, of index `at`."""
    return text.count("\n", 0, at) + 1


def _check_values(settings: Settings) -> None:
    """Raise ValueError (key, message) for a value that its type alone does not exclude."""
    kind = settings.enhanced_container_isolation.docker_socket_mount.command_list.type
    if kind not in ("deny", "allow"):
        key = "$.enhancedContainerIsolation.dockerSocketMount.commandList.type"
        msg = f'expected "deny" or "allow", got "{kind}"'
        raise ValueError(key, msg)
    for name, paths in (
        ("protectedPaths", settings.vm.protected_paths),
        ("sharedPaths", settings.vm.shared_paths),
    ):
        for index, path in enumerate(paths):
            if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
                key = f"$.vm.{name}[{index}]"
                msg = f"expected an absolute path without '..', got {json.dumps(path)}"
                raise ValueError(key, msg)


def parse(data: bytes, source: str) -> Settings:
    """Parse the text of a settings file; `source` is its name for messages.

    SettingsError: not UTF-8, not JSON, a wrong type or a value out of range.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{source}: line {data[: error.start].count(10) + 1}: not UTF-8 text"
        raise SettingsError(msg) from error
    try:
        json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        msg = f"{source}: line {line}: not valid JSON: {error.args[0]}"
        raise SettingsError(msg) from error
    except RecursionError as error:
        msg = f"{source}: nested too deeply"
        raise SettingsError(msg) from error
    try:
        settings = msgspec.json.decode(text.encode(), type=Settings)
        _check_values(settings)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        key = path.rstrip("`") or "$"
    except ValueError as error:
        key, what = error.args
    else:
        return settings
    line = _line(text, locate(text, _steps(key)))
    msg = f"{source}: line {line}: {key.removeprefix('$.')}: {what[:1].lower()}{what[1:]}"
    raise SettingsError(msg)


def load(path: str | None = None) -> Settings:
    """Read settings from `path`, or the defaults if `path` is None and there is no file.

    SettingsError also where the file cannot be read: never silently unprotected.
    """
    try:
        with open(path or DEFAULT_PATH, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        if path is None:
            return Settings()
        msg = f"{path}: no such settings file"
        raise SettingsError(msg) from error
    except OSError as error:
        msg = f"{path or DEFAULT_PATH}: cannot be read: {error.strerror}"
        raise SettingsError(msg) from error
    return parse(data, path or DEFAULT_PATH)
