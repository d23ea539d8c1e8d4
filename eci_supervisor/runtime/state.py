"""The state on disk: one directory per container, under the state root.

    /run/eci/lock                 flock: ranges and directories are made and removed under it
    /run/eci/ranges/SLOT/KEY      who uses which ID range (ranges.py)
    /run/eci/fork/                socket and lock of each fork server (fork_server.py), root's alone
    /run/eci/containers/KEY/      container.json, bundle/, lock, sockets, mount points

The directories are 0711: root of a container's user namespace must be able to pass through
them to its root file system, and to list none.
"""

from __future__ import annotations

import hashlib
import os
import re

import msgspec

import eci_supervisor
from eci_supervisor.runtime.errors import EciError
from eci_supervisor.runtime.ranges import RangeStore, limits

DEFAULT_ROOT = "/run/eci"
_UNREADABLE = re.compile("[^A-Za-z0-9_.-]")
FORMAT = 1
"""Of what a keeper leaves to whoever comes after it: supervisor/rest.py has the rule."""
FORMATS = f"{eci_supervisor.__path__[0]}/supervisor/formats"
"""The numbers that this version reads; csrc/keeper.c looks there as well."""
RECORD = "container.json"
BUSY = "create.lock"
"""Held (flock) until the runtime has taken over."""
MOUNT_POINTS = ("rootfs", "m")
"""Directories that the stage mounts on.  They are removed with rmdir(2) and nothing else."""
KEPT = "lock"
"""Held (flock) by the keeper for as long as it lives."""


class Record(msgspec.Struct, frozen=True):
    """container.json: what clearing up has to know.

    Every version reads that of every other one, older or newer: fields are added at the end, with a
    default, and none is renamed, taken away or given another meaning.
    """

    id: str
    key: str
    nonce: str
    """Tells two containers of one key apart, so that nobody clears up after the next one."""
    runtime: str
    runtime_root: str
    base: int
    size: int
    slots: tuple[int, ...] = ()
    own_maps: bool = False
    """The range is the engine's (userns-remap); several of its containers may share it."""
    work: str | None = None
    """Our overlay work directory beside the engine's."""
    engine_rootfs: str | None = None
    mount_namespace: int = 0
    """Inode of the mount namespace that the engine lives in and has its own mount in."""
    supervised: bool = False
    version: str = ""
    """Of eci-supervisor, when the container was made; empty where it was not yet written down."""
    format: int = 1
    """FORMAT of that version."""


def root() -> str:
    """Return the state root: ECI_STATE_DIR, or the default."""
    return os.environ.get("ECI_STATE_DIR") or DEFAULT_ROOT


def key_of(container_id: str, runtime_root: str) -> str:
    """Return the name of a container's state directory: readable, and unique."""
    readable = _UNREADABLE.sub("_", container_id)[:32].lstrip(".") or "_"
    digest = hashlib.sha256(f"{runtime_root}\0{container_id}".encode("utf-8", "surrogateescape"))
    return f"{readable}-{digest.hexdigest()[:8]}"


def open_store(state_root: str) -> RangeStore:
    """Make the state root if need be and return its range store; EciError if it cannot be made."""
    try:
        os.makedirs(f"{state_root}/containers", mode=0o711, exist_ok=True)
        # makedirs applies the umask, and gives parents the default mode.
        for path in (state_root, f"{state_root}/containers"):
            if os.stat(path).st_mode & 0o777 != 0o711:  # noqa: PLR2004 - a mode
                os.chmod(path, 0o711)
        return RangeStore(state_root, *limits(os.environ.get("ECI_RANGES")))
    except OSError as error:
        raise EciError(
            f"the state directory {state_root} cannot be used: {error.strerror}: "
            f"{error.filename or ''}; eci-runtime must be started by root and needs it writable "
            "(ECI_STATE_DIR names another)"
        ) from error


def write_record(state_dir: str, record: Record) -> None:
    """Write container.json; readers see the old or the new one."""
    write_file(f"{state_dir}/{RECORD}", msgspec.json.encode(record))


def read_record(state_dir: str) -> Record | None:
    """Return container.json, or None where there is none or a create was cut short."""
    try:
        with open(f"{state_dir}/{RECORD}", "rb") as file:
            return msgspec.json.decode(file.read(), type=Record)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


COVER = "cover"
"""What the worker has to cover, NUL-terminated records: csrc/kernfs.c."""
SPARED = b"u"
"""The record, for the keeper, of a container that is spared what no rule asks about: spare.py."""


def write_file(path: str, data: bytes) -> None:
    """Replace the file `path`, mode 0600."""
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.rename(temporary, path)


def bin_path(name: str) -> str:
    """Return the path of one of our own programs."""
    return f"{eci_supervisor.__path__[0]}/bin/{name}"


def formats() -> list[int]:
    """Return the numbers that the package reads, as it is on disk now.  OSError without one."""
    with open(FORMATS, encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def start_path() -> str:
    """Return the path of the script that starts one part of the Python half."""
    return f"{eci_supervisor.__path__[0]}/start.py"
