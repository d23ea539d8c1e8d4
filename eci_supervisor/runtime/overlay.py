"""The layers of an overlay mount, from what the kernel shows of it.  Pure but for one question.

An engine mounts an image's layers at `merged`; we mount the same layers once more, ID-mapped.
With many layers, engines write their paths relative to a directory that the mount does not
name: `l/XXX` of Docker is seen from the data root's overlay2, `N/fs` of containerd from its
snapshots.  Both are the directory two above the upper one, or above `merged` itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import mountinfo
from eci_supervisor.runtime.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.kernel.mountinfo import Mount

WORK_NAME = "eci-work"
CARRIED = (b"redirect_dir", b"metacopy", b"xino", b"userxattr", b"uuid", b"verity")
"""Options that change how layers are read, and so must be the same in the second overlay.

`index` and `nfs_export` are left out: an index belongs to one superblock."""


class Layers(msgspec.Struct, frozen=True):
    """The layers of one overlay; paths are absolute, the topmost lower one first."""

    lower: tuple[bytes, ...]
    data_only: tuple[bytes, ...]
    upper: bytes | None
    options: tuple[tuple[bytes, bytes], ...]
    volatile: bool = False

    @property
    def work(self) -> bytes | None:
        """The work directory of the second overlay: beside the engine's own, on the same mount."""
        return (
            None if self.upper is None else os.path.dirname(self.upper) + b"/" + WORK_NAME.encode()
        )

    def readonly(self) -> Layers:
        """Return the same with nothing to write to."""
        if self.upper is None:
            return self
        return Layers((self.upper, *self.lower), self.data_only, None, self.options)


def layers(mount: Mount, exists: Callable[[bytes], bool] = os.path.isdir) -> Layers:
    """Read the layers of the overlay `mount`; StageError if they cannot be found.

    `exists`: whether a path is a directory, asked to tell what relative ones are seen from.
    """
    lower: list[bytes] = []
    data_only: list[bytes] = []
    upper: bytes | None = None
    carried: list[tuple[bytes, bytes]] = []
    volatile = False
    for key, value in mountinfo.split_options(mount.super_options):
        if key == b"lowerdir":
            top, _, data = value.partition(b"::")
            lower += mountinfo.split_layers(top)
            data_only += [part for part in mountinfo.split_layers(data) if part]
        elif key == b"lowerdir+":
            lower.append(value)
        elif key == b"datadir+":
            data_only.append(value)
        elif key == b"upperdir":
            upper = mountinfo.plain_layer(value)
        elif key == b"volatile":
            volatile = True
        elif key in CARRIED and value:
            carried.append((key, value))
    if not lower:
        raise StageError(f"the overlay at {_shown(mount.target)} shows no lower layer")
    base = _base(mount, [*lower, *data_only], upper, exists)
    return Layers(
        tuple(os.path.join(base, path) for path in lower),
        tuple(os.path.join(base, path) for path in data_only),
        None if upper is None else os.path.join(base, upper),
        tuple(carried),
        volatile,
    )


def layers_at(mount_id: int) -> Layers:
    """Read the layers of an overlay of this mount namespace; StageError if it is not there."""
    mount = mountinfo.find(mount_id)
    if mount is None:
        raise StageError("the root file system has just been unmounted")
    return layers(mount)


def _base(
    mount: Mount, lower: list[bytes], upper: bytes | None, exists: Callable[[bytes], bool]
) -> bytes:
    """Return the directory that relative layers are seen from; b"/" where there are none."""
    relative = [path for path in [*lower, *([upper] if upper else [])] if not path.startswith(b"/")]
    if not relative:
        return b"/"
    candidates = [os.path.dirname(os.path.dirname(mount.target))]
    if upper is not None and upper.startswith(b"/"):
        candidates.append(os.path.dirname(os.path.dirname(upper)))
    for candidate in candidates:
        if all(exists(os.path.join(candidate, path)) for path in relative):
            return candidate
    raise StageError(
        f"the layers of the overlay at {_shown(mount.target)} cannot be found: "
        f"{_shown(relative[0])} is in none of "
        + ", ".join(_shown(candidate) for candidate in candidates)
    )


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
