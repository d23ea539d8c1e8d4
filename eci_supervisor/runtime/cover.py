"""What the worker covers on the container's /proc and /sys, instead of the runtime.  Pure.

A mask that the runtime mounts is made inside the container's user namespace, so the kernel
does not lock it there.  The worker exchanges the file systems for copies in which it does
(csrc/kernfs.c), at the createRuntime hook.  The runtime sets sysctls only after that, so those
that it would set are the worker's as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.rewrite import PING_GROUP_RANGE, ping_group_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eci_supervisor.runtime.rewrite import Staged
    from eci_supervisor.runtime.spec import Mapping, Spec

_KINDS = {"proc": "/proc", "sysfs": "/sys"}
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    )
)


@dataclass(frozen=True, slots=True)
class Cover:
    """What is taken from the runtime; empty where it keeps everything."""

    masked: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    """Of /proc and /sys those that are read-only as a whole."""
    flagged: tuple[str, ...] = ()
    """Destinations of binds whose flags the runtime leaves unlocked."""
    sysctl: dict[str, str] = field(default_factory=dict)

    def records(self, rootfs: str) -> tuple[bytes, ...]:
        """Return the records that csrc/kernfs.c reads; `rootfs` is the runtime's root.path."""
        if not self.masked and not self.readonly and not self.flagged:
            return ()
        texts = (
            f"R{rootfs}",
            *(f"s{sysctl_path(name)}={value}" for name, value in self.sysctl.items()),
            *(f"o{path}" for path in self.sealed),
            *(f"r{path}" for path in self.readonly),
            *(f"m{path}" for path in self.masked),
            *(f"b{path}" for path in self.flagged),
        )
        return tuple(os.fsencode(text) for text in texts)


def sysctl_path(name: str) -> str:
    """Return the name's path in /proc/sys: dots are slashes, and slashes dots (sysctl(8))."""
    return name.translate(str.maketrans("./", "/."))


def _on_kernel_fs(spec: Spec) -> dict[str, list[str]]:
    """Return of /proc and /sys those that the runtime mounts as such, with their options."""
    last: dict[str, dict[str, Any]] = {}
    for mount in oci.items(spec, "mounts", dict):
        destination = oci.inside(mount.get("destination"))
        if destination == "/":
            last.clear()
        last[destination] = mount
    return {
        point: oci.options(last[point])
        for fstype, point in _KINDS.items()
        if point in last and not oci.is_bind(last[point]) and last[point].get("type") == fstype
    }


def _taken(spec: Spec, key: str, points: Iterable[str], plain: Callable[[str], bool]) -> list[str]:
    return [
        path
        for path in oci.items(spec, f"linux.{key}", str)
        if any(path.startswith(f"{point}/") for point in points)
        and path == oci.inside(path)
        and plain(path)
    ]


def _is_namespaced(name: str) -> bool:
    """Say whether a runtime lets a container have this sysctl; of others it says why not."""
    return name.startswith(("net.", "fs.mqueue.")) or name in _IPC_SYSCTLS


def plan(
    spec: Spec,
    gids: tuple[Mapping, ...],
    plain: Callable[[str], bool],
    loose: dict[int, Staged],
) -> Cover:
    """Return what the worker is to cover.

    `plain` says of a path of the host that no part of it is a symbolic link; where one is, the
    runtime resolves it as before.  `gids`: the container's own map.  `loose`: the staged entries
    of mounts[], where the runtime clones them outside of the user namespace (crun).
    """
    points = _on_kernel_fs(spec)
    readonly = _taken(spec, "readonlyPaths", points, plain)
    sysctl: dict[str, str] = {}
    if any(f"{path}/".startswith("/proc/sys/") for path in readonly):
        for name, value in oci.part(spec, "linux.sysctl", dict).items():
            parts = sysctl_path(name).split("/")
            if _is_namespaced(name) and ".." not in parts and "" not in parts:
                text = str(value)
                sysctl[name] = ping_group_range(text, gids) if name == PING_GROUP_RANGE else text
    return Cover(
        masked=tuple(_taken(spec, "maskedPaths", points, plain)),
        readonly=tuple(readonly),
        sealed=tuple(point for point, options in points.items() if "ro" in options),
        flagged=tuple(
            oci.inside(mount.get("destination"))
            for index, mount in enumerate(oci.items(spec, "mounts", dict))
            if index in loose and loose[index].flags
        ),
        sysctl=sysctl,
    )
