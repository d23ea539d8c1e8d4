"""Host paths that a container may not have: protectedPaths and sharedPaths, at create.

Opens the named paths, asks of each source what `policy.paths` wants to know, and refuses.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from eci_supervisor.kernel.protected import rules_of
from eci_supervisor.policy.paths import Access, Found, Inner, Named, Place, compile_table, offender
from eci_supervisor.policy.refusals import HOST_MOUNT
from eci_supervisor.runtime import sources as opened
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.attributes import ATTRIBUTES, attributes
from eci_supervisor.runtime.errors import RefusedError, StageError
from eci_supervisor.runtime.rewrite import DEFAULT_NODES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from eci_supervisor.kernel.table import InodeRule
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


def find(mounts: HostMounts, paths: Iterable[tuple[str, Access]]) -> list[Named]:
    """Look the named paths up on the host.

    In this process's mount namespace, symbolic links followed.  One that does not exist protects
    and shares nothing: nothing is there to be had.  StageError for one that is there, and of which
    it cannot be said what it is.
    """
    named = []
    for path, access in paths:
        found = _look_up_named(mounts, path)
        if found is not None:
            named.append(_named(access, found))
    return named


def table(mounts: HostMounts, named: list[Named], own: Iterable[str] = ()) -> Table:
    """Return what the named paths mean.

    `own`: what nobody gets writable, whatever the rest says; found like these.
    """
    given = compile_table(named)
    if not own:
        return given
    named = list(named)
    for path in own:
        found = _look_up_named(mounts, path)
        if found is not None:
            # Not to be had more freely, either, than what it lies in.
            known = given.decided(found.chain)
            place = given.of_place(found.place)
            access = Access.PROTECTED if known is None else min(Access.READ_ONLY, known[1])
            named.append(_named(access if place is None else min(access, place), found))
    return compile_table(named)


def rules(named: Iterable[Named]) -> list[InodeRule]:
    """Return what the worker is to hold of the named paths (rule 3), by identity.  Pure."""
    chains: dict[bool, list[Chain]] = {True: [], False: []}
    for one in named:
        chains[one.access is Access.PROTECTED].append((one.identity, *one.above))
    return rules_of(chains[True], chains[False])


def _named(access: Access, found: Source) -> Named:
    return Named(access, found.identity, found.chain[1:], found.place)


def _look_up_named(mounts: HostMounts, path: str) -> Source | None:
    """Return what a named path is, its descriptor closed; None where it does not exist.

    What was mounted or moved meanwhile is looked at again once, with a new mount table.
    """
    for retry in (True, False):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _not_to_be_judged(path, error) from error
        try:
            found = opened.describe(mounts, -1, "", path, fd)
        except OSError as error:
            if not retry:
                raise _not_to_be_judged(path, error) from error
            mounts.renew()
            continue
        os.close(found.fd)
        return found
    return None


def _not_to_be_judged(path: str, error: OSError) -> StageError:
    return StageError(
        f"protected or shared path {path}: cannot be looked at: {os.strerror(error.errno or 0)}; "
        "mend it, or take it out of the settings"
    )


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


def refuse_root(mounts: HostMounts, root: Source, table: Table) -> None:
    """Raise RefusedError for a directory as root file system that the container may not have.

    As for a bind of it, with all that is mounted in it, and writable: a read-only root file system
    is made so by the runtime, in mounts that the container may change.
    """
    known = _as_found(root, tuple(_inner(one) for one in mounts.beneath(root.real)))
    wrong = offender(table, known)
    if wrong is not None:
        path = wrong.path if isinstance(wrong, Inner) else root.real
        raise RefusedError(message(os.fsdecode(path)), HOST_MOUNT)


def refuse_layer(layer: Source, table: Table, *, read_only: bool) -> None:
    """Raise the same for a layer of the overlay that the root file system is."""
    if offender(table, _as_found(layer, read_only=read_only)) is not None:
        raise RefusedError(message(layer.written), HOST_MOUNT)


def _as_found(source: Source, inner: tuple[Inner, ...] = (), *, read_only: bool = False) -> Found:
    return Found(
        chain=source.chain,
        place=source.place,
        root=source.depth,
        kernel=source.mount.fstype in KERNEL_FILE_SYSTEMS,
        device=False,
        read_only=read_only,
        read_only_within=False,
        inner=inner,
    )


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
