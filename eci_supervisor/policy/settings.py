"""The administrator's settings: /etc/eci/admin-settings.json as typed values.

The keys under `enhancedContainerIsolation` are Docker Desktop's; `vm` is this project's.
Unknown keys, a byte-order mark and a missing version are accepted.  Anything of a wrong type
is a `SettingsError` that names file, line and key, and then no container may start.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PATH = "/etc/eci/admin-settings.json"

DEFAULT_PROTECTED_PATHS = (
    # What the host boots from and is configured by, its devices, and what it is doing right now:
    # sockets of services and engines are in /run, memory is in swap files.
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/ostree",
    "/proc",
    "/root",
    "/run",
    "/swap.img",
    "/swapfile",
    "/sys",
    "/sysroot",
    # Programs that the host's root executes.  There is nothing secret about them.
    "/bin:ro",
    "/gnu/store:ro",
    "/lib32:ro",
    "/lib64:ro",
    "/lib:ro",
    "/libx32:ro",
    "/nix/store:ro",
    "/opt/cni:ro",
    "/opt/containerd:ro",
    "/opt/eci:ro",
    "/sbin:ro",
    "/snap:ro",
    "/usr:ro",
    # Of /etc, what programs in containers are commonly given.
    "/etc/localtime:ro",
    "/etc/os-release:ro",
    "/etc/pki/ca-trust/extracted:ro",
    "/etc/ssl/certs:ro",
    "/etc/timezone:ro",
    # What the host's services keep: their data, secrets, queues, and what they execute.
    "/var/backups",
    "/var/cache",
    "/var/crash",
    "/var/lib",
    "/var/mail",
    "/var/spool",
    # ... and what they say, for collectors of logs.
    "/var/log:ro",
    # Other containers, also where somebody shares more of /var/lib.
    "/var/lib/buildkit",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/crio",
    "/var/lib/docker",
    "/var/lib/eci",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/nerdctl",
    "/var/lib/rancher",
)
"""What no container gets of the host, or with `:ro` only read-only, unless the settings differ."""

DEFAULT_SHARED_PATHS = ("/",)
"""Everything that is not protected."""


DEFAULT_MOUNT_MEMORY = 64
"""MiB.  A bind takes 0.4 KiB of it, a new tmpfs 1.3 (measured on 6.18)."""
MOST_MOUNT_MEMORY = 1 << 20
"""MiB."""


class SettingsError(ValueError):
    """The settings cannot be used; the text is for the administrator."""


# The forms that values have to have.  What images and commands mean is said where they are used.
_DIGEST = r"@sha256:[0-9a-f]{64}"
_HOST = r"[A-Za-z0-9*](?:[A-Za-z0-9*.-]*[A-Za-z0-9*])?(?::[0-9]+)?"
_PART = r"[a-z0-9*]+(?:(?:\.|__?|-+)[a-z0-9*]+)*"
IMAGE = rf"^(?:\*|(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::(?:\*|\w[\w.-]{{0,127}}))?(?:{_DIGEST})?)$"
"""`name[:tag]` or `name@sha256:…`, as docker reads it, with `*` in the name or for the tag."""
COMMAND = r"^[a-z]+(?:[ -][a-z]+)*\*?$"
"""A verb as `docker --help` has it, `*` after it for a family."""
HOST_PATH = r"^/[^\u0000]*$"

Image = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": IMAGE})]
Command = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": COMMAND})]
HostPath = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": HOST_PATH})]


class ImageList(msgspec.Struct, frozen=True, rename="camel"):
    """Images whose containers may have the engine's socket."""

    images: Annotated[
        tuple[Image, ...],
        msgspec.Meta(description="Images whose containers may have the socket of an engine."),
    ] = ()
    allow_derived_images: Annotated[
        bool, msgspec.Meta(description="Images made from one of these as well.")
    ] = False


class CommandList(msgspec.Struct, frozen=True, rename="camel"):
    """Commands on an allowed socket."""

    type: Annotated[
        str,
        msgspec.Meta(
            description="Whether the commands are forbidden, or the only allowed ones.",
            extra_json_schema={"enum": ["deny", "allow"]},
        ),
    ] = "deny"
    commands: Annotated[
        tuple[Command, ...], msgspec.Meta(description="Commands of docker on such a socket.")
    ] = ()


class DockerSocketMount(msgspec.Struct, frozen=True, rename="camel"):
    """Who may have the engine's socket, and for what."""

    image_list: ImageList = ImageList()
    command_list: CommandList = CommandList()


class Isolation(msgspec.Struct, frozen=True, rename="camel"):
    """`enhancedContainerIsolation`."""

    value: Annotated[
        bool,
        msgspec.Meta(
            description="Whether containers are protected; false leaves them to runc or crun."
        ),
    ] = True
    locked: Annotated[
        bool,
        msgspec.Meta(
            description="In /etc/eci/admin-settings.json: no other file of settings is taken."
        ),
    ] = False
    docker_socket_mount: DockerSocketMount = DockerSocketMount()


class Vm(msgspec.Struct, frozen=True, rename="camel"):
    """`vm`: what containers may have of the host."""

    protected_paths: Annotated[
        tuple[HostPath, ...],
        msgspec.Meta(
            description="What no container gets of the host; with :ro at the end, only read-only."
        ),
    ] = DEFAULT_PROTECTED_PATHS
    shared_paths: Annotated[
        tuple[HostPath, ...],
        msgspec.Meta(
            description="What containers may get; nothing else of the host. Of a protected and a "
            "shared path the deeper one counts."
        ),
    ] = DEFAULT_SHARED_PATHS
    mount_memory: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=MOST_MOUNT_MEMORY,
            description="MiB of the kernel's memory that the mounts of one container may take; "
            "0: no bound.",
        ),
    ] = DEFAULT_MOUNT_MEMORY


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


def locate(text: str, steps: Sequence[str | int]) -> int:
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


def line_of(text: str, steps: Sequence[str | int]) -> int:
    """Return the line, from 1, of the value at `steps`: see `locate`."""
    return _line(text, locate(text, steps))


def _is_image(text: str) -> bool:
    """Say whether an entry is one that can be judged by; `IMAGE` alone is a little wider."""
    from eci_supervisor.policy.images import parse_entry  # noqa: PLC0415 - most lists are empty

    try:
        parse_entry(text)
    except ValueError:
        return False
    return re.fullmatch(IMAGE, text) is not None


def _why_no_command(command: str) -> str | None:
    """Return why a word of a command list is no command of docker's, or None."""
    # Knows this module, and is not wanted where no list has commands.
    from eci_supervisor.policy import commands  # noqa: PLC0415

    try:
        commands.expand(command)
    except commands.CommandError as error:
        return str(error)
    return None


def _check_values(settings: Settings) -> None:
    """Raise ValueError (key, message) for a value that its type alone does not exclude."""
    mount = settings.enhanced_container_isolation.docker_socket_mount
    top = "$.enhancedContainerIsolation.dockerSocketMount"
    if mount.command_list.type not in ("deny", "allow"):
        raise ValueError(
            f"{top}.commandList.type",
            f'expected "deny" or "allow", got {json.dumps(mount.command_list.type)}',
        )
    for index, image in enumerate(mount.image_list.images):
        if not _is_image(image):
            raise ValueError(
                f"{top}.imageList.images[{index}]",
                "expected an image, as docker.io/library/docker:cli or NAME@sha256:DIGEST (a tag "
                f'may be "*"), got {json.dumps(image)}',
            )
    for index, command in enumerate(mount.command_list.commands):
        what = _why_no_command(command)
        if what is not None:
            raise ValueError(f"{top}.commandList.commands[{index}]", what)
    for name, paths in (
        ("protectedPaths", settings.vm.protected_paths),
        ("sharedPaths", settings.vm.shared_paths),
    ):
        for index, path in enumerate(paths):
            if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
                raise ValueError(
                    f"$.vm.{name}[{index}]",
                    f"expected an absolute path without '..', got {json.dumps(path)}",
                )


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
    line = line_of(text, _steps(key))
    msg = f"{source}: line {line}: {key.removeprefix('$.')}: {what[:1].lower()}{what[1:]}"
    raise SettingsError(msg)


def _read(path: str) -> bytes | None:
    """Return the text of a settings file; None where there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise SettingsError(msg) from error


def load(path: str | None = None) -> Settings:
    """Read settings from `path`, or from /etc/eci/admin-settings.json if `path` is None.

    Without that file the defaults hold.  Where it says `locked`, no other file may be named: it is
    looked at in any case, and `path` is then an error.  SettingsError also where a file cannot be
    read: never silently unprotected.
    """
    data = _read(DEFAULT_PATH)
    own = Settings() if data is None else parse(data, DEFAULT_PATH)
    if path is None or _is_same(path):
        return own
    if own.enhanced_container_isolation.locked:
        key = "enhancedContainerIsolation.locked"
        text = (data or b"").decode("utf-8-sig")
        line = line_of(text, key.split("."))
        msg = (
            f"{DEFAULT_PATH}: line {line}: {key}: the settings are locked, and {path} is not used: "
            "leave out --settings and ECI_SETTINGS"
        )
        raise SettingsError(msg)
    return read(path)


def read(path: str) -> Settings:
    """Read the settings that `path` names, whatever is in force.  SettingsError as of `load`."""
    data = _read(path)
    if data is None:
        msg = f"{path}: no such settings file"
        raise SettingsError(msg)
    return parse(data, path)


def _is_same(path: str) -> bool:
    """Say whether `path` is the file that is read without one, too."""
    try:
        return os.path.samefile(path, DEFAULT_PATH)
    except OSError:
        return False
