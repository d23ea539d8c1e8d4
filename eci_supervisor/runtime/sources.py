"""The sources of bind mounts, opened once: what is judged is what is mounted.

Each source of mounts[] becomes a descriptor, and everything that is asked about it is asked of that
descriptor: so neither a symbolic link nor a rename makes it another one between the question and
the mount (stage.py clones the descriptor).  Paths that the kernel tells of it serve for messages,
and for the directory that a file lies in, where they are verified.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Self

import msgspec

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.policy.paths import Identity, Place
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import RefusedError, StageError

if TYPE_CHECKING:
    from eci_supervisor.runtime.spec import Spec

_DEEPEST = 4096
_LAYERS = ("lowerdir", "datadir", "upperdir", "workdir")
_UP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


Chain = tuple[Identity, ...]
"""A file or directory, and those that it lies in, up to the root of the mount tree."""


class HostMount(msgspec.Struct, frozen=True):
    """One mount of this process's mount namespace, as far as sources need it."""

    mount_id: int
    device: bytes
    """`major:minor` of the superblock."""
    root: bytes
    target: bytes
    fstype: bytes
    source: bytes


class Source(msgspec.Struct, frozen=True):
    """One source of mounts[], open.  The descriptor belongs to the `Sources` that it is in."""

    index: int
    """In mounts[]; of an overlay there is one source for each layer."""
    destination: str
    """As the spec has it."""
    written: str
    """The path as the spec has it."""
    fd: int
    """O_PATH, on what the path led to when it was opened, symbolic links followed."""
    real: bytes
    """Where that lies, from the root directory of this process, as the kernel tells it."""
    mode: int
    """st_mode."""
    rdev: int
    """st_rdev: of a device node, its numbers."""
    chain: tuple[Identity, ...]
    """Itself, and the directories that it lies in, up to the host's root."""
    mount: HostMount
    """The mount that it lies in."""
    layer: str = ""
    """Of an overlay, the option that names it: `lowerdir` and so on.  The runtime opens it again,
    as the container's root and not the host's."""

    @property
    def identity(self) -> Identity:
        """Device and inode."""
        return self.chain[0]

    @property
    def place(self) -> Place:
        """Where it lies in its own file system."""
        inside = below(self.real, self.mount.target)
        return Place(self.mount.device, join(self.mount.root, inside))

    @property
    def depth(self) -> int:
        """How many directories of its mount it lies in: 0 for the root of a mount."""
        inside = below(self.real, self.mount.target)
        return len(inside.split(b"/")) if inside else 0


def below(path: bytes, above: bytes) -> bytes:
    """Return `path` from the directory `above`, which it is or lies in; both absolute."""
    return path[len(above) :].strip(b"/")


def join(directory: bytes, inside: bytes) -> bytes:
    """Return the absolute path of `inside`, which may be empty, from `directory`."""
    return b"%s/%s" % (directory.rstrip(b"/"), inside) if inside else directory


class HostMounts:
    """The mount table of this process, read once, or anew by `renew`."""

    def __init__(self, text: bytes) -> None:
        """Take the text of mountinfo."""
        self._take(text)

    def _take(self, text: bytes) -> None:
        self._lines = [line for line in text.split(b"\n") if line]
        self._ids: dict[int, bytes] = {int(line.split(b" ", 1)[0]): line for line in self._lines}
        self._parsed: dict[int, HostMount] = {}
        self.chains: dict[tuple[Identity, int], Chain] = {}
        """What `chain_of` has found out about directories."""

    @classmethod
    def read(cls) -> Self:
        """Read it."""
        with open("/proc/self/mountinfo", "rb") as file:
            return cls(file.read())

    def renew(self) -> None:
        """Read it again: something has been mounted or moved since."""
        with open("/proc/self/mountinfo", "rb") as file:
            self._take(file.read())

    def holding(self, fd: int, real: bytes) -> HostMount:
        """Return the mount that `fd`, at the path `real`, lies in.

        ENOENT where that is none of this mount namespace, or not where `real` says.
        """
        mount_id = _mount_id(fd)
        mount = self._parsed.get(mount_id)
        if mount is None and mount_id in self._ids:
            mount = self._parsed[mount_id] = _mount(self._ids[mount_id])
        if mount is None or not (real + b"/").startswith(mount.target.rstrip(b"/") + b"/"):
            raise _gone(real)
        return mount

    def beneath(self, directory: bytes) -> list[HostMount]:
        """Return the mounts beneath a directory, an absolute path."""
        prefix = directory.rstrip(b"/") + b"/"
        found = (_mount(line) for line in self._lines if _may_begin(line, prefix))
        return [mount for mount in found if mount.target.startswith(prefix)]

    def showing(self, place: Place, but: int) -> list[bytes]:
        """Return where mounts other than `but` have a place; it may be hidden there."""
        lines = [line for line in self._lines if line.split(b" ", 3)[2] == place.device]
        return [
            join(mount.target, below(place.path, mount.root))
            for mount in map(_mount, lines)
            if mount.mount_id != but and Place(mount.device, mount.root).holds(place)
        ]


def _may_begin(line: bytes, prefix: bytes) -> bool:
    target = line.split(b" ", 5)[4]
    return b"\\" in target or target.startswith(prefix)


def _mount(line: bytes) -> HostMount:
    from eci_supervisor.kernel.mountinfo import parse_line  # noqa: PLC0415

    mount = parse_line(line)
    return HostMount(
        mount.mount_id, mount.device, mount.root, mount.target, mount.fstype, mount.source
    )


def identity_of(st: os.stat_result) -> Identity:
    """Return device and inode."""
    return st.st_dev, st.st_ino


def chain_of(
    fd: int, st: os.stat_result, real: bytes, known: dict[tuple[Identity, int], Chain]
) -> Chain:
    """Return the identities of `fd` and of the directories that it lies in, up to the root.

    `real` is the path that the kernel has for it.  ENOENT where a file is not where that says: it
    has just been moved or removed.  `known`: the chains of directories, by identity and mount;
    those on the way are added.
    """
    own = identity_of(st)
    is_directory = stat.S_ISDIR(st.st_mode)
    at = os.open("..", _UP, dir_fd=fd) if is_directory else _directory_of(real, own)
    way = [(own, _mount_id(fd))]
    rest: Chain = ()
    try:
        while True:
            here = (identity_of(os.fstat(at)), _mount_id(at))
            # A directory may be bound on one that lies in it: the root alone is its own `..`, and
            # in the same mount.
            if here == way[-1]:
                break
            if here in known:
                rest = known[here]
                break
            if len(way) == _DEEPEST:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(real))
            way.append(here)
            up = os.open("..", _UP, dir_fd=at)
            os.close(at)
            at = up
    finally:
        os.close(at)
    for one in reversed(way):
        rest = (one[0], *rest)
        if one is not way[0]:
            known[one] = rest
    return rest


def _directory_of(path: bytes, identity: Identity) -> int:
    """Open the directory of a file, and see that the file is in it."""
    directory, name = os.path.split(path)
    at = os.open(directory, _UP)
    try:
        found = identity_of(os.stat(name, dir_fd=at, follow_symlinks=False))
    except BaseException:
        os.close(at)
        raise
    if found != identity:
        os.close(at)
        raise _gone(path)
    return at


def _gone(path: bytes) -> OSError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))


def _mount_id(fd: int) -> int:
    return syscalls.statx_mnt_id(fd, b"", lib.AT_EMPTY_PATH)


class Sources:
    """The open sources of one container: closed as a whole, by `close` or a `with` block."""

    def __init__(self, mounts: HostMounts) -> None:
        """Begin with none."""
        self.mounts = mounts
        self.all: list[Source] = []
        self.root: Source | None = None
        """The root file system."""
        self.root_layers: dict[bytes, Source] = {}
        """Layers of it that were judged, by path: of the upper one, the directory above."""

    def __enter__(self) -> Self:
        """Own them for the length of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()

    def close(self) -> None:
        """Close every descriptor."""
        root = () if self.root is None else (self.root,)
        for source in (*self.all, *root, *self.root_layers.values()):
            os.close(source.fd)
        self.all.clear()
        self.root = None
        self.root_layers.clear()

    def bind(self, index: int) -> Source:
        """Return the source of the bind mount that entry `index` of mounts[] is."""
        return next(source for source in self.all if source.index == index and not source.layer)

    def open(self, index: int, destination: str, written: str, path: str, layer: str = "") -> None:
        """Open `path` as the source of an entry; StageError where there is nothing to be had."""
        try:
            source = look_up(self.mounts, index, destination, written, path)
        except OSError as error:
            raise StageError(
                f"mounts[{index}]: {layer or 'bind source'} {path}: {os.strerror(error.errno or 0)}"
            ) from error
        self.all.append(msgspec.structs.replace(source, layer=layer) if layer else source)

    def replace(self, index: int, path: str) -> None:
        """Have `path` as the source of the bind mount `index`, and close what it was."""
        old = self.bind(index)
        new = look_up(self.mounts, index, old.destination, old.written, path)
        self.all[self.all.index(old)] = new
        os.close(old.fd)


def look_up(
    mounts: HostMounts, index: int, destination: str, written: str, path: str | bytes
) -> Source:
    """Return an open source, the caller's to close; OSError where there is nothing to be had.

    ENOENT also for what is in no mount of this namespace: it cannot be bound.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    return describe(mounts, index, destination, written, fd)


def describe(mounts: HostMounts, index: int, destination: str, written: str, fd: int) -> Source:
    """Return the same of `fd` (O_PATH), which is closed where it fails."""
    try:
        st = os.fstat(fd)
        real = os.readlink(b"/proc/self/fd/%d" % fd)
        mount = mounts.holding(fd, real)
        chain = chain_of(fd, st, real, mounts.chains)
    except BaseException:
        os.close(fd)
        raise
    return Source(index, destination, written, fd, real, st.st_mode, st.st_rdev, chain, mount)


def overlay_layers(index: int, options: list[str]) -> list[tuple[str, str]]:
    """Return what the options of an overlay name, as (option, path).  Pure.

    RefusedError for what cannot be read with certainty: relative paths, and backslashes, which are
    not decoded in the same way everywhere.
    """
    found: list[tuple[str, str]] = []
    for word in ",".join(options).split(","):
        key, _, value = word.partition("=")
        name = key.rstrip("+")
        if name in _LAYERS:
            found += [(name, path) for path in value.split(":") if path]
    if any("\\" in word for word in options) or any(path[0] != "/" for _, path in found):
        raise RefusedError(
            f"error in the container spec: mounts[{index}]: the layers of an overlay have to be "
            "absolute paths without backslashes"
        )
    return found


def open_sources(spec: Spec, bundle: str) -> Sources:
    """Open what mounts[] binds; StageError where a source is not there.

    In the mount namespace of the engine.  Relative paths begin at the bundle.
    """
    sources = Sources(HostMounts.read())
    try:
        for index, mount in enumerate(oci.items(spec, "mounts", dict)):
            if oci.is_bind(mount):
                written = str(mount.get("source") or "")
                destination = str(mount.get("destination") or "")
                sources.open(index, destination, written, os.path.join(bundle, written))
            elif mount.get("type") == "overlay":
                destination = str(mount.get("destination") or "")
                for layer, path in overlay_layers(index, oci.options(mount)):
                    sources.open(index, destination, path, path, layer)
    except BaseException:
        sources.close()
        raise
    return sources
