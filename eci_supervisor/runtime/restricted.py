"""Host paths that a container may not have: protectedPaths and sharedPaths, at create.

Opens the named paths, asks of each source what `policy.paths` wants to know, and refuses.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from eci_supervisor.policy.paths import Access, Found, Inner, Named, Place, compile_table, offender
from eci_supervisor.policy.refusals import HOST_MOUNT
from eci_supervisor.runtime import sources as opened
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.attributes import ATTRIBUTES, attributes
from eci_supervisor.runtime.errors import RefusedError
from eci_supervisor.runtime.rewrite import DEFAULT_NODES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from eci_supervisor.policy.paths import Table
    from eci_supervisor.runtime.owned import Owned
    from eci_supervisor.runtime.sources import Chain, HostMount, HostMounts, Source, Sources
    from eci_supervisor.runtime.spec import Spec

KERNEL_FILE_SYSTEMS = frozenset(
    b"binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl "
    b"mqueue nfsd nsfs proc pstore resctrl rpc_pipefs securityfs selinuxfs smackfs sysfs tracefs "
    b"xenfs".split()
)
"""What shows the kernel, the devices or the processes of the host, wherever it is mounted."""


_MEMORY = 1
"""Major number of /dev/null and its like: null(4)."""


def message(written: str) -> str:
    """Return the text of the refusal, in the wording that users know.  Pure."""
    return (
        f"error in the container spec: can't mount {written} because it's configured as a "
        "restricted host mount"
    )


def table(mounts: HostMounts, paths: Iterable[tuple[str, Access]]) -> Table:
    """Look the named paths up on the host.

    In this process's mount namespace, symbolic links followed.  One that does not exist, or may
    not be looked at, protects and shares nothing: nothing is there to be had.
    """
    named = []
    for path, access in paths:
        try:
            found = opened.look_up(mounts, -1, "", path, path)
        except OSError:
            continue
        os.close(found.fd)
        named.append(Named(access, found.identity, found.chain[1:], found.place))
    return compile_table(named)


def refuse(
    sources: Sources, spec: Spec, table: Table, owned: Owned, passed: Collection[int]
) -> None:
    """Raise RefusedError for the first source that the container may not have.

    `passed`: indices in mounts[] of what somebody else has judged.
    """
    mounts = oci.items(spec, "mounts", dict)
    for position, source in enumerate(sources.all):
        if source.index in passed or _is_common_node(source):
            continue
        known = facts(sources.mounts, source, mounts[source.index], owned.elsewhere.get(position))
        # What is the engine's own for one source is not for another that leads there by a link.
        wrong = offender(table, known, owned.shared.get(position, ()))
        if wrong is known:
            raise RefusedError(message(source.written), HOST_MOUNT)
        if isinstance(wrong, Inner):
            raise RefusedError(message(os.fsdecode(wrong.path)), HOST_MOUNT)


def refuse_root(mounts: HostMounts, root: bytes, table: Table) -> None:
    """Raise RefusedError for a root file system that is a protected path, or shows one."""
    found = opened.look_up(mounts, -1, "/", "", root)
    os.close(found.fd)
    least = min(
        table.access.get(found.identity, Access.SHARED),
        table.above.get(found.identity, Access.SHARED),
        table.within(found.place),
    )
    if least is not Access.SHARED:
        raise RefusedError(message(os.fsdecode(root)), HOST_MOUNT)


def facts(
    mounts: HostMounts,
    source: Source,
    mount: dict[str, object],
    elsewhere: tuple[Chain, ...] | None = None,
) -> Found:
    """Find out what there is to know about a source.

    `mount`: its entry of mounts[].  `elsewhere`: as in Found.
    """
    options = oci.options(mount)
    attr_set, _, recursive = attributes(options)
    whole = "rbind" in options and stat.S_ISDIR(source.mode)
    return Found(
        chain=source.chain,
        place=source.place,
        root=source.depth,
        kernel=source.mount.fstype in KERNEL_FILE_SYSTEMS,
        device=stat.S_ISCHR(source.mode) or stat.S_ISBLK(source.mode),
        read_only=bool(attr_set & ATTRIBUTES["ro"]) or source.layer in ("lowerdir", "datadir"),
        read_only_within=bool(recursive & ATTRIBUTES["ro"]),
        inner=tuple(_inner(one) for one in mounts.beneath(source.real)) if whole else (),
        elsewhere=elsewhere,
    )


def _is_common_node(source: Source) -> bool:
    """Say whether it is a device that every container has, as /dev/null to cover a file.

    Those of memory alone: a terminal or a console is the host's.
    """
    numbers = os.major(source.rdev), os.minor(source.rdev)
    is_known = numbers[0] == _MEMORY and ("c", *numbers) in DEFAULT_NODES
    return stat.S_ISCHR(source.mode) and is_known


def _inner(mount: HostMount) -> Inner:
    place = Place(mount.device, mount.root)
    return Inner(mount.target, place, kernel=mount.fstype in KERNEL_FILE_SYSTEMS)
