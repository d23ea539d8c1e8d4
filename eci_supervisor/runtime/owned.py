"""What an engine binds on its own account: its files for one container, and its volumes.

resolv.conf, hosts, secrets, /dev/shm and volumes lie where no container may have anything: in the
engine's own directories.  They are known by where the engine keeps them, never by a file's name:

- In a directory that has the container's id for its name.  The id is the engine's, 64 hexadecimal
  digits of chance that nobody knows before the container has been made.  So whoever wrote a path
  with it into the bundle was the engine; what a user asked for was written down before.  (So is the
  id of a Kubernetes sandbox, and the uid of a pod.)
- In a volume (`volumes/NAME/_data`) of a directory in which the engine keeps this very container.
- In another container's directory where this one joins a namespace of the other and is given, in
  the same place, the very file that is mounted there for the other: hosts, hostname, resolv.conf
  and /dev/shm, which come with a network, a host name or shared memory.
- BuildKit's: a bundle in its `executor` directory, which has its database beside it; such a bundle
  has no mounts but BuildKit's own.

Each of these holds for one source.  Another that leads to the same place by a link was a user's
choice, and gets nothing by it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.policy.paths import Access, Named, Place
from eci_supervisor.runtime import elsewhere as places
from eci_supervisor.runtime import points
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.sources import identity_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from eci_supervisor.policy.paths import Identity
    from eci_supervisor.runtime.overlay import Layers
    from eci_supervisor.runtime.sources import Chain, HostMounts, Source, Sources
    from eci_supervisor.runtime.spec import Spec

_ID = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ANNOTATIONS = (
    ("io.kubernetes.cri.sandbox-id", _ID),
    ("io.kubernetes.cri.sandbox-uid", _UID),
)
_CRI = "k8s.io"
"""containerd's namespace for Kubernetes: the directory that its bundles are in."""
_NAMESPACE = re.compile(r"/proc/([1-9][0-9]*)/ns/([a-z]+)")
_KINDS = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
"""The namespaces that engines have containers share, as the spec and as /proc calls them."""
_SHM = "/dev/shm"  # noqa: S108 - a place in the container
_JOINED = {
    "/etc/hosts": b"hosts",
    "/etc/hostname": b"hostname",
    "/etc/resolv.conf": b"resolv.conf",
    _SHM: b"shm",
}
"""What containers share with a namespace, by its place, and what engines call it."""
_PLUGINS = (b"io.containerd.runtime.", b"io.containerd.snapshotter.")
_TASKS = "io.containerd.runtime.v2.task"
_DATABASES = ("metadata_v2.db", "metadata.db")
"""What BuildKit has beside the directory of its bundles."""
_PATH = os.O_PATH | os.O_CLOEXEC
_STORES = "containers"
"""Ends the name of the directory that has one for each container, in Docker and Podman."""


class Owned(msgspec.Struct):
    """What was found out about an engine from the sources of one container."""

    shared: dict[int, list[Named]] = msgspec.field(default_factory=dict)
    """Directories of the engine's that a source, by its position, may lie in."""
    protected: set[str] = msgspec.field(default_factory=set)
    """The engine's own directories, wherever its administrator has put them."""
    elsewhere: dict[int, tuple[Chain, ...]] = msgspec.field(default_factory=dict)
    """As in Found, of the sources that show what the engine has mounted, by position."""


def own(sources: Sources, spec: Spec, container_id: str, bundle: str) -> Owned:
    """Find what is the engine's own among `sources`."""
    found = Owned()
    names = set(_names(spec, container_id, bundle))
    builder = _buildkit(bundle, container_id)
    for position, source in enumerate(sources.all):
        shared, root, elsewhere = _own(sources.mounts, source, spec, container_id, names)
        depth = None if builder is None else _depth_below(source.real, os.fsencode(builder))
        if depth is not None:
            shared = [*shared, _named(source, depth)]
        if shared:
            found.shared[position] = shared
        if root is not None:
            found.protected.add(root)
        if elsewhere is not None:
            found.elsewhere[position] = elsewhere
    return found


def _own(
    mounts: HostMounts, source: Source, spec: Spec, container_id: str, names: Collection[bytes]
) -> tuple[list[Named], str | None, tuple[Chain, ...] | None]:
    """Return what of the engine's the source may lie in, the engine's data root, and `elsewhere`.

    `elsewhere` as in Found.
    """
    steps = _in_own_directory(source, names)
    if steps is not None:
        root = os.fsdecode(_data_root(_up(source.real, steps + 1)))
        shared, elsewhere = _within(mounts, source, _named(source, steps), steps)
        return shared, root, elsewhere
    volume = _volume(source.real, container_id)
    if volume is not None:
        within = _is_within(source.mount.target, volume.data)
        elsewhere = places.of_volume(mounts, source) if within else None
        return [_named(source, volume.steps)], volume.root, elsewhere
    parts = _parts_of_volumes(mounts, source, container_id)
    if parts:
        known = [_of_part(mounts, volume) for volume in parts]
        whole = [chain for one in known if one is not None for chain in one]
        elsewhere = None if None in known else tuple(whole)
        return [_named(source, source.depth)], parts[0].root, elsewhere
    if _belongs_to_joined(source, spec):
        return [_named(source, 0)], _root_above_id(source.real), None
    return [], None, None


def _within(
    mounts: HostMounts, source: Source, own: Named, steps: int
) -> tuple[list[Named], tuple[Chain, ...] | None]:
    """Return what of the container's directory `own` the source may lie in, and `elsewhere`."""
    if source.depth > steps:
        return [own], None
    if source.mount.root != b"/" and places.lies_in(mounts, source, own.identity):
        return [own, _named(source, 0)], None
    return [own], places.of_own(mounts, source, own.identity)


class _Volume(msgspec.Struct, frozen=True):
    """A volume that a path lies in."""

    steps: int
    """How many steps above the path the directory is that may be had."""
    data: bytes
    """Where the engine, or a plugin of its, mounts what the volume is made of."""
    root: str
    """The engine's data root."""


def _parts_of_volumes(mounts: HostMounts, source: Source, container_id: str) -> list[_Volume]:
    """Return the volumes that the source's mount is a part of, bound anew.

    So Docker has it for `volume-subpath`: a bind in its temporary directory.
    """
    if source.mount.root == b"/":
        return []
    top = Place(source.mount.device, source.mount.root)
    found = []
    for path in mounts.showing(top, but=source.mount.mount_id):
        volume = _volume(path, container_id)
        there = None if volume is None else places.look_up(mounts, path)
        # Another mount may hide it.
        if volume and there and there.identity == source.chain[source.depth]:
            found.append(volume)
    return found


def _of_part(mounts: HostMounts, volume: _Volume) -> tuple[Chain, ...] | None:
    """Return `elsewhere`, as in Found, of a volume of which a part was bound."""
    data = places.look_up(mounts, volume.data)
    if data is None:
        return ()
    is_mounted = _is_within(data.mount.target, volume.data)
    return places.of_volume(mounts, data) if is_mounted else None


def _names(spec: Spec, container_id: str, bundle: str) -> Iterator[bytes]:
    """Return what the engine's directories for this container are called."""
    if _ID.fullmatch(container_id):
        yield container_id.encode("ascii")
    # Others let their users write annotations; where the bundle lies says that this is the CRI.
    if os.path.basename(os.path.dirname(bundle)) != _CRI:
        return
    annotations = spec.get("annotations")
    for key, form in _ANNOTATIONS:
        value = annotations.get(key) if isinstance(annotations, dict) else None
        if isinstance(value, str) and form.fullmatch(value):
            yield value.encode("ascii")


def _up(path: bytes, steps: int) -> bytes:
    """Return the directory so many steps above."""
    for _ in range(steps):
        path = os.path.dirname(path)
    return path


def _named(source: Source, steps: int) -> Named:
    """Share the directory so many steps above the source: 0 for the source itself."""
    path = _up(source.real, steps)
    # In the source's own file system, or in one that it is mounted in: then there is no telling.
    below = source.place.path if steps <= source.depth else None
    place = Place(source.mount.device, _up(below, steps)) if below else Place(b"", path)
    return Named(Access.SHARED, source.chain[steps], source.chain[steps + 1 :], place)


def _in_own_directory(source: Source, names: Collection[bytes]) -> int | None:
    """Return how many steps above the source a directory has one of `names`; None for none.

    Both as it was written and where it leads: what a link leads to was not the engine's choice.
    """
    written = set(os.fsencode(source.written).split(b"/"))
    parts = source.real.split(b"/")
    for steps, part in enumerate(reversed(parts)):
        if steps > 0 and part in names and part in written:
            return steps
    return None


def _data_root(store: bytes) -> bytes:
    """Return the engine's data directory, of the one that has a directory for each container."""
    return os.path.dirname(store) if store.endswith(_STORES.encode()) else store


def _volume(path: bytes, container_id: str) -> _Volume | None:
    """Return the volume, of an engine that keeps this container, that `path` lies in."""
    parts = path.split(b"/")
    for steps in range(len(parts) - 3):
        at = len(parts) - 1 - steps
        last = parts[at]
        # Docker and Podman have volumes/NAME/_data, nerdctl has its namespace before the name.
        for up in (2, 3):
            if last == b"_data" and at > up and parts[at - up] == b"volumes":
                root, group = b"/".join(parts[: at - up]), b"/".join(parts[at - up + 1 : at - 1])
                if _keeps(root, group, container_id):
                    return _Volume(steps + 1, _up(path, steps), os.fsdecode(root))
        # Those of Docker's managed plugins, each of which has one directory for all.
        if last == b"propagated-mount" and parts[at - 2] == b"plugins" and steps > 0:
            root = b"/".join(parts[: at - 2])
            if _keeps(root, b"", container_id):
                return _Volume(steps - 1, _up(path, steps), os.fsdecode(root))
    return None


def _is_within(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")


def _keeps(directory: bytes, group: bytes, container_id: str) -> bool:
    """Say whether an engine keeps this container in a data directory that is root's alone.

    `group`: what it has between its store and the containers, or nothing.
    """
    if not _ID.fullmatch(container_id):
        return False
    name = os.path.join(os.fsdecode(group), container_id)
    try:
        with os.scandir(os.fsdecode(directory)) as entries:
            stores = [entry.path for entry in entries if entry.name.endswith(_STORES)]
        owners = {
            os.stat(path, follow_symlinks=False).st_uid
            for store in stores
            if os.path.isdir(f"{store}/{name}")
            for path in (directory, store, f"{store}/{name}")
        }
    except OSError:
        return False
    return owners == {0}


def _belongs_to_joined(source: Source, spec: Spec) -> bool:
    """Say whether a container that this one joins has the very same in the very same place.

    It has to be mounted there, and be what engines share: what a link in the other's root file
    system leads to, or what its users have mounted elsewhere in it, is no sign of the engine's.
    """
    destination = os.path.normpath(source.destination)
    if _JOINED.get(destination) != os.path.basename(source.real):
        return False
    if destination == _SHM:
        is_kind = source.mount.fstype == b"tmpfs" and source.depth == 0
    else:
        is_kind = stat.S_ISREG(source.mode)
    if not is_kind or _root_above_id(source.real) is None:
        return False
    for kind, path in oci.namespaces(spec).items():
        match = _NAMESPACE.fullmatch(path)
        if match is None or _KINDS.get(kind) != match[2]:
            continue
        try:
            if _is_hosts(path, match[2]):
                continue
            if _mounted_in(match[1], destination) == source.identity:
                return True
        except OSError:
            continue
    return False


def _is_hosts(path: str, name: str) -> bool:
    return identity_of(os.stat(path)) == identity_of(os.stat(f"/proc/self/ns/{name}"))


def _mounted_in(pid: str, destination: str) -> Identity | None:
    """Return what is mounted at a place in the root of process `pid`; None where nothing is.

    No link leads out of that root.  OSError where it is not to be had.
    """
    directory, name = os.path.split(destination)
    with contextlib.ExitStack() as stack:
        root = os.open(f"/proc/{pid}/root", _PATH | os.O_DIRECTORY)
        stack.callback(os.close, root)
        above = syscalls.openat2(root, directory, _PATH | os.O_DIRECTORY, resolve=points.IN_ROOT)
        stack.callback(os.close, above)
        there = syscalls.openat2(above, name, _PATH | os.O_NOFOLLOW, resolve=points.NO_LINKS)
        stack.callback(os.close, there)
        ids = [syscalls.statx_mnt_id(fd, b"", lib.AT_EMPTY_PATH) for fd in (above, there)]
        return None if ids[0] == ids[1] else identity_of(os.fstat(there))


def _root_above_id(path: bytes) -> str | None:
    """Return the data directory of the engine that has a container's directory on this path."""
    parts = path.split(b"/")
    for steps, part in enumerate(reversed(parts)):
        if steps > 0 and _ID.fullmatch(os.fsdecode(part)):
            return os.fsdecode(_data_root(_up(path, steps + 1)))
    return None


def is_volume(source: Source, container_id: str) -> bool:
    """Say whether it lies in a volume of an engine that keeps this container."""
    return _volume(source.real, container_id) is not None


def data_roots(container_id: str, bundle: str, root: bytes, layers: Layers | None) -> set[str]:
    """Return the data directories of the engine, by where it keeps bundle and root file system.

    `root`: its path, absolute, and `layers`: those of the overlay that it is.  So they are known
    where no source tells them, as where the container has all its files from a joined one.
    """
    if not _ID.fullmatch(container_id):
        return set()
    found = set()
    real = os.fsencode(os.path.realpath(bundle))
    if container_id.encode("ascii") in real.split(b"/"):
        while os.path.basename(real) != container_id.encode("ascii"):
            real = os.path.dirname(real)
        found.add(_containerd_root(real) or _data_root(os.path.dirname(real)))
    paths = [] if layers is None else [layers.upper, *layers.lower, *layers.data_only]
    for path in (root, *(path for path in paths if path is not None)):
        # Docker and Podman: DRIVER/ID/merged, DRIVER/dir/ID or rootfs/DRIVER/ID.
        top = _up(path, 3)
        if top not in found and _keeps(top, b"", container_id):
            found.add(top)
        snapshots = _containerd_root(path)
        if snapshots is not None:
            found.add(snapshots)
    return {os.fsdecode(path) for path in found if path != b"/"}


def _containerd_root(path: bytes) -> bytes | None:
    """Return the directory of containerd's that has one for each of its plugins on this path."""
    parts = path.split(b"/")
    at = next((i for i, part in enumerate(parts) if part.startswith(_PLUGINS)), None)
    return None if at is None else b"/".join(parts[:at])


def _buildkit(bundle: str, container_id: str) -> str | None:
    """Return the directory in which BuildKit keeps all that it binds, for a bundle of its own."""
    executor, name = os.path.split(os.path.realpath(bundle))
    root, last = os.path.split(executor)
    if name != container_id or last != "executor" or not _has_database(root):
        return None
    above, kind = os.path.split(root)
    return above if kind == "buildkit" else root


def _has_database(directory: str) -> bool:
    """Say whether it is BuildKit's: containerd's tasks lie by the name of a user's choice, too."""
    if _TASKS in directory.split("/"):
        return False
    for name in _DATABASES:
        try:
            if os.lstat(f"{directory}/{name}").st_uid == 0:
                return True
        except OSError:
            continue
    return False


def _depth_below(path: bytes, directory: bytes) -> int | None:
    """Return how many steps `path` lies below `directory`, or None where it does not."""
    if not path.startswith(directory.rstrip(b"/") + b"/"):
        return None
    return len(path[len(directory) :].strip(b"/").split(b"/"))
