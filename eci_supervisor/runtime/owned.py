"""What an engine binds on its own account: its files for one container, and its volumes.

resolv.conf, hosts, secrets, /dev/shm and volumes lie where no container may have anything: in the
engine's own directories.  They are known by where the engine keeps them, never by a file's name:

- In a directory that has the container's id for its name.  The id is the engine's, 64 hexadecimal
  digits of chance that nobody knows before the container has been made.  So whoever wrote a path
  with it into the bundle was the engine; what a user asked for was written down before.  (So is the
  id of a Kubernetes sandbox, and the uid of a pod.)
- In `volumes/NAME/_data` of a directory in which the engine keeps this very container.
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
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ANNOTATIONS = (
    ("io.kubernetes.cri.sandbox-id", _ID),
    ("io.kubernetes.cri.sandbox-uid", _UID),
)
_NAMESPACE = re.compile(r"/proc/([1-9][0-9]*)/ns/[a-z]+")
_DATA = b"_data"
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
    names = set(_names(spec, container_id))
    for position, source in enumerate(sources.all):
        steps = _in_own_directory(source, names)
        if steps is not None:
            found.shared.append(_named(source, steps))
            found.protected.add(os.fsdecode(_data_root(_up(source.real, steps + 1))))
            continue
        steps = _in_volume(source.real)
        if steps is not None and _keeps(_up(source.real, steps + 3), container_id):
            found.shared.append(_named(source, steps + 1))
            found.protected.add(os.fsdecode(_up(source.real, steps + 3)))
            if source.mount.target == _up(source.real, steps):
                found.volumes.add(position)
            continue
        root = _part_of_volume(sources.mounts, source, container_id)
        if root is not None:
            found.shared.append(_named(source, source.depth))
            found.protected.add(root)
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


def _part_of_volume(mounts: HostMounts, source: Source, container_id: str) -> str | None:
    """Return the engine's data root where the source's mount is a part of a volume, bound anew.

    So Docker has it for `volume-subpath`: a bind in its temporary directory.
    """
    if source.mount.root == b"/":
        return None
    top = Place(source.mount.device, source.mount.root)
    for path in mounts.showing(top, but=source.mount.mount_id):
        steps = _in_volume(path)
        if steps is not None and _keeps(_up(path, steps + 3), container_id):
            return os.fsdecode(_up(path, steps + 3))
    return None


def _names(spec: Spec, container_id: str) -> Iterator[bytes]:
    """Return what the engine's directories for this container are called."""
    if _ID.fullmatch(container_id):
        yield container_id.encode("ascii")
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


def _in_volume(path: bytes) -> int | None:
    """Return how many steps above `path` the `_data` of a volume is; None for no volume."""
    parts = path.split(b"/")
    for steps in range(len(parts) - 3):
        at = len(parts) - 1 - steps
        if parts[at] == _DATA and parts[at - 2] == b"volumes":
            return steps
    return None


def _keeps(directory: bytes, container_id: str) -> bool:
    """Say whether an engine keeps this container in a data directory that is root's alone."""
    if not _ID.fullmatch(container_id):
        return False
    try:
        with os.scandir(os.fsdecode(directory)) as entries:
            stores = [entry.path for entry in entries if entry.name.endswith(_STORES)]
        owners = {
            os.stat(path, follow_symlinks=False).st_uid
            for store in stores
            if os.path.isdir(f"{store}/{container_id}")
            for path in (directory, store, f"{store}/{container_id}")
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
