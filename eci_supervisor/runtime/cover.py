"""What the worker covers on the container's /proc and /sys, instead of the runtime.  Pure.

A mask that the runtime mounts is made inside the container's user namespace, so the kernel
does not lock it there.  The worker exchanges the file systems for copies in which it does
(csrc/kernfs.c), at the createRuntime hook.  The runtime sets sysctls only after that, so those
that it would set are the worker's as well.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import SpecError
from eci_supervisor.runtime.rewrite import PING_GROUP_RANGE, ping_group_range

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from eci_supervisor.runtime.rewrite import Staged
    from eci_supervisor.runtime.spec import Mapping, Spec

_KINDS = {"proc": "/proc", "sysfs": "/sys"}
_CGROUPS = ("cgroup", "cgroup2")
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


class Cover(msgspec.Struct, frozen=True):
    """What is taken from the runtime; empty where it keeps everything."""

    masked: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    """Of /proc and /sys those that are read-only as a whole."""
    exchanged: tuple[str, ...] = ()
    """Destinations of mounts whose flags are to be locked, and what is read-only on them."""
    cgroups: tuple[str, ...] = ()
    """Where the read-only cgroups are mounted."""
    sysctl: dict[str, str] = msgspec.field(default_factory=dict)

    def records(self, rootfs: str) -> tuple[bytes, ...]:
        """Return the records that csrc/kernfs.c reads; `rootfs` is the runtime's root.path."""
        if not (self.masked or self.readonly or self.exchanged or self.cgroups):
            return ()
        texts = (
            f"R{rootfs}",
            *(f"s{sysctl_path(name)}={value}" for name, value in self.sysctl.items()),
            *(f"o{path}" for path in self.sealed),
            *(f"r{path}" for path in self.readonly),
            *(f"m{path}" for path in self.masked),
            *(f"b{path}" for path in self.exchanged),
            *(f"c{path}" for path in self.cgroups),
        )
        if any("\0" in text for text in texts):
            raise SpecError("config.json: a path or sysctl of linux has a NUL in it")
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


def _exchanged(
    spec: Spec, staged: dict[int, Staged], covered: Collection[str], *, loose: bool
) -> list[str]:
    """Return the destinations of what the runtime mounts, and the kernel would not lock.

    One kind is a mount of the runtime's, a tmpfs for instance, on which a read-only volume lies:
    that is locked in its place then.  Not /dev, where the runtimes have still to mount.  The other,
    with `loose`, are volumes whose flags would not be locked.  What is read-only on `covered`,
    /proc or /sys, is locked together with the masks.
    """
    mounts = [oci.inside(mount.get("destination")) for mount in oci.items(spec, "mounts", dict)]
    found: dict[str, None] = {}
    for index, destination in enumerate(mounts):
        if index not in staged:
            continue
        above = next((i for i in reversed(range(index)) if _is_below(destination, mounts[i])), None)
        read_only = "ro" in staged[index].flags
        if read_only and above is not None and mounts[above] in covered:
            continue
        if (
            read_only
            and above is not None
            and mounts[above] not in {"/dev", *_KINDS.values()}
            and not oci.is_bind(spec["mounts"][above])
            and "ro" not in oci.options(spec["mounts"][above])
        ):
            found[mounts[above]] = None
        elif loose and staged[index].flags and destination not in covered:
            # A sysfs of the stage's is covered, and exchanged for that.
            found[destination] = None
    return list(found)


def _cgroups(spec: Spec) -> tuple[str, ...]:
    last = {oci.inside(one.get("destination")): one for one in oci.items(spec, "mounts", dict)}
    return tuple(
        point
        for point, mount in last.items()
        if mount.get("type") in _CGROUPS and "ro" in oci.options(mount) and not oci.is_bind(mount)
    )


def _is_below(path: str, above: str) -> bool:
    return path.startswith(above.rstrip("/") + "/")


def plan(
    spec: Spec,
    gids: tuple[Mapping, ...],
    plain: Callable[[str], bool],
    staged: dict[int, Staged],
    *,
    loose: bool,
) -> Cover:
    """Return what the worker is to cover.

    `plain` says of a path of the host that no part of it is a symbolic link; where one is, the
    runtime resolves it as before.  `gids`: the container's own map.  `staged`: the entries of
    mounts[] that the runtime binds from the stage; `loose`: it clones them outside of the user
    namespace (crun).
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
    masked = _taken(spec, "maskedPaths", points, plain)
    covered = {point for point in points for path in (*masked, *readonly) if _is_below(path, point)}
    return Cover(
        masked=tuple(masked),
        readonly=tuple(readonly),
        sealed=tuple(point for point, options in points.items() if "ro" in options),
        exchanged=tuple(_exchanged(spec, staged, covered, loose=loose)),
        cgroups=_cgroups(spec),
        sysctl=sysctl,
    )
