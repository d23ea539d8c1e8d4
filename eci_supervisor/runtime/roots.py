"""The root file system: opened once, and judged as the sources of bind mounts are.

An engine's root file systems lie where no container may have anything: in its own directories.
They are known by where the engine mounts or makes them for this very container, in a bundle or data
root that keeps it.  Every other root was named by a user (`podman run --rootfs`).  Of such a one
everything that it shows is judged: the directory and what is mounted in it, or the layers of an
overlay.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from eci_supervisor.runtime import overlay, restricted
from eci_supervisor.runtime import sources as opened
from eci_supervisor.runtime.errors import StageError

if TYPE_CHECKING:
    from eci_supervisor.policy.paths import Table
    from eci_supervisor.runtime.sources import Source, Sources

_ID = re.compile(r"[0-9a-f]{64}")
_TASKS = "io.containerd.runtime.v2.task"
_EXECUTOR = "executor"
"""BuildKit's directory of bundles."""
_MADE_OF_DIRECTORIES = {(b"vfs", b"dir"), (b"btrfs", b"subvolumes"), (b"zfs", b"graph")}
_BUILDAH = "buildah-"


def open_root(sources: Sources, root: bytes) -> Source:
    """Open the root file system, which `sources` owns from then on; OSError without one."""
    sources.root = opened.look_up(sources.mounts, -1, "/", "", root)
    return sources.root


def refuse(sources: Sources, table: Table, container_id: str, bundle: str) -> None:
    """Raise RefusedError for a root file system that shows what the container may not have.

    Layers that are judged are kept open in `sources`, for the stage to clone.
    """
    root = sources.root
    if root is None or _is_engines(root.real, container_id, bundle):
        return
    # A host that has an overlay for its own root has its files there as on a disk.
    if root.mount.fstype != b"overlay" or root.mount.target == b"/":
        restricted.refuse_root(sources.mounts, root, table)
        return
    found = overlay.layers_at(root.mount.mount_id)
    for path in (*found.lower, *found.data_only):
        _refuse_layer(sources, table, path, container_id, read_only=True)
    if found.upper is not None:
        # Its work directory lies beside it, and both are had by the directory above.
        parent = os.path.dirname(found.upper)
        _refuse_layer(sources, table, parent, container_id, read_only=False)


def _refuse_layer(
    sources: Sources, table: Table, path: bytes, container_id: str, *, read_only: bool
) -> None:
    if path in sources.root_layers:
        raise StageError(f"the layer {os.fsdecode(path)!r} of the root file system is there twice")
    try:
        layer = opened.look_up(sources.mounts, -1, "/", os.fsdecode(path), path)
    except OSError as error:
        raise StageError(f"layer {os.fsdecode(path)!r}: {error.strerror}") from error
    sources.root_layers[path] = layer
    if not _is_of_container(layer.real, container_id):
        restricted.refuse_layer(layer, table, read_only=read_only)


def _is_engines(root: bytes, container_id: str, bundle: str) -> bool:
    """Say whether an engine has put the root file system there for this container."""
    real = os.path.realpath(bundle)
    if root == os.fsencode(f"{real}/rootfs"):
        above, name = os.path.split(real)
        kinds = os.path.basename(above), os.path.basename(os.path.dirname(above))
        known = kinds[0] == _EXECUTOR or kinds[1] == _TASKS
        return name == container_id and known and _are_roots(above, real)
    parts = root.split(b"/")
    if len(parts) < 4:  # noqa: PLR2004 - data root and three more
        return False
    data_root = os.fsdecode(b"/".join(parts[:-3]))
    driver, middle, last = parts[-3:]
    if driver == b"rootfs":  # Docker's, with the image store of containerd
        return last == container_id.encode() and _keeps(data_root, container_id)
    # DRIVER/LAYER/merged where an overlay is mounted; or a directory for each container.
    if last != b"merged" and (driver, middle) not in _MADE_OF_DIRECTORIES:
        return False
    if container_id == _BUILDAH + os.path.basename(real):
        store = f"{data_root}/{os.fsdecode(driver)}"
        return _are_roots(data_root, store, f"{store}-layers")
    return _keeps(data_root, container_id)


def _is_of_container(path: bytes, container_id: str) -> bool:
    """Say whether a path lies in the directory that an engine has for this container."""
    parts = os.fsdecode(path).split("/")
    return any(
        part == container_id and _keeps("/".join(parts[: at - 1]), container_id, parts[at - 1])
        for at, part in enumerate(parts)
        if at > 1
    )


def _keeps(data_root: str, container_id: str, store: str = "") -> bool:
    """Say whether an engine keeps this container in a data root that is root's alone.

    By the id that the engine has drawn, so nobody knew it before.  `store`: the directory of
    containers that is asked about, or any.
    """
    if not _ID.fullmatch(container_id):
        return False
    try:
        stores = [store] if store else os.listdir(data_root)
    except OSError:
        return False
    return any(
        _are_roots(data_root, f"{data_root}/{name}", f"{data_root}/{name}/{container_id}")
        for name in stores
        if name.endswith("containers")
    )


def _are_roots(*directories: str) -> bool:
    """Say whether these exist and belong to the host's root."""
    try:
        return all(os.lstat(path).st_uid == 0 for path in directories)
    except OSError:
        return False
