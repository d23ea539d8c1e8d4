"""What an engine binds on its own account: its files for one container, and its volumes.

resolv.conf, hosts, secrets, /dev/shm and volumes lie where no container may have anything: in the
engine's own directories.  They are known by where the engine keeps them, never by a file's name:

- In a directory that has the container's id for its name.  The id is the engine's, 64 hexadecimal
  digits of chance that nobody knows before the container has been made.  So whoever wrote a path
  with it into the bundle was the engine; what a user asked for was written down before.  (So is the
  id of a Kubernetes sandbox, and the uid of a pod.)
- In a volume (`volumes/NAME/_data`) of a directory in which the engine keeps this very container.
- In another container's directory where this one joins a namespace of the other and is given, in
  the same place, the very file that the other has there.
- BuildKit's: a bundle in its `executor` directory, whose mounts are none but its own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.policy.paths import Access, Named, Place
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.sources import identity_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from eci_supervisor.runtime.sources import HostMounts, Source, Sources
    from eci_supervisor.runtime.spec import Spec

_ID = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ANNOTATIONS = (
    ("io.kubernetes.cri.sandbox-id", _ID),
    ("io.kubernetes.cri.sandbox-uid", _UID),
)
_CRI = "k8s.io"
"""containerd's namespace for Kubernetes: the directory that its bundles are in."""
_NAMESPACE = re.compile(r"/proc/([1-9][0-9]*)/ns/[a-z]+")
_STORES = "containers"
"""Ends the name of the directory that has one for each container, in Docker and Podman."""


class Owned(msgspec.Struct):
    """What was found out about an engine from the sources of one container."""

    shared: list[Named] = msgspec.field(default_factory=list)
    """Directories of the engine's that the container's sources may lie in."""
    protected: set[str] = msgspec.field(default_factory=set)
    """The engine's own directories, wherever its administrator has put them."""
    volumes: set[int] = msgspec.field(default_factory=set)
    """Of the given sources, by position: those that show a volume that the engine has mounted."""


def own(sources: Sources, spec: Spec, container_id: str, bundle: str) -> Owned:
    """Find what is the engine's own among `sources`."""
    found = Owned()
    names = set(_names(spec, container_id, bundle))
    for position, source in enumerate(sources.all):
        steps = _in_own_directory(source, names)
        if steps is not None:
            found.shared.append(_named(source, steps))
            found.protected.add(os.fsdecode(_data_root(_up(source.real, steps + 1))))
            continue
        volume = _volume(source.real, container_id)
        if volume is not None:
            found.shared.append(_named(source, volume.steps))
            found.protected.add(volume.root)
            if _is_within(source.mount.target, volume.data):
                found.volumes.add(position)
            continue
        volume = _part_of_volume(sources.mounts, source, container_id)
        if volume is not None:
            found.shared.append(_named(source, source.depth))
            found.protected.add(volume.root)
        elif _belongs_to_joined(source, spec):
            found.shared.append(_named(source, 0))
    root = _buildkit(bundle, container_id)
    if root is not None:
        found.shared += [
            _named(source, depth)
            for source in sources.all
            if (depth := _depth_below(source.real, os.fsencode(root))) is not None
        ]
    return found


class _Volume(msgspec.Struct, frozen=True):
    """A volume that a path lies in."""

    steps: int
    """How many steps above the path the directory is that may be had."""
    data: bytes
    """Where the engine, or a plugin of its, mounts what the volume is made of."""
    root: str
    """The engine's data root."""


def _part_of_volume(mounts: HostMounts, source: Source, container_id: str) -> _Volume | None:
    """Return the volume that the source's mount is a part of, bound anew; None for no such.

    So Docker has it for `volume-subpath`: a bind in its temporary directory.
    """
    if source.mount.root == b"/":
        return None
    top = Place(source.mount.device, source.mount.root)
    found = (_volume(path, container_id) for path in mounts.showing(top, but=source.mount.mount_id))
    return next((volume for volume in found if volume is not None), None)


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
    """Say whether a container that this one joins has the very same in the very same place."""
    if not any(_ID.fullmatch(os.fsdecode(part)) for part in source.real.split(b"/")):
        return False
    for path in oci.namespaces(spec).values():
        match = _NAMESPACE.fullmatch(path)
        if match is None:
            continue
        try:
            st = os.stat(f"/proc/{match[1]}/root{oci.inside(source.destination)}")
        except OSError:
            continue
        if identity_of(st) == source.identity:
            return True
    return False


def _buildkit(bundle: str, container_id: str) -> str | None:
    """Return the directory in which BuildKit keeps all that it binds, for a bundle of its own."""
    executor, name = os.path.split(os.path.realpath(bundle))
    root, last = os.path.split(executor)
    if name != container_id or last != "executor":
        return None
    above, kind = os.path.split(root)
    return above if kind == "buildkit" else root


def _depth_below(path: bytes, directory: bytes) -> int | None:
    """Return how many steps `path` lies below `directory`, or None where it does not."""
    if not path.startswith(directory.rstrip(b"/") + b"/"):
        return None
    return len(path[len(directory) :].strip(b"/").split(b"/"))
