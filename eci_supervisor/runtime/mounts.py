"""From mounts[] to mounts: what of it the stage makes ready, and what the runtime is to do."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import syscalls
from eci_supervisor.runtime import nesting, owned, spare
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.points import NO_LINKS, read_link
from eci_supervisor.runtime.rewrite import Staged  # noqa: TC001 - msgspec asks for it

if TYPE_CHECKING:
    from eci_supervisor.runtime.request import Request
    from eci_supervisor.runtime.stage import Clone, Stage
    from eci_supervisor.runtime.take import Taken


class Prepared(msgspec.Struct, frozen=True):
    """What was made of mounts[]; keys are indices into it."""

    staged: dict[int, Staged]
    """What the runtime is to bind."""
    nested: frozenset[int]
    """Of these nothing is left to mount."""
    bare: bool
    """None of them hides anything: spare.py."""


def clone(stage: Stage, request: Request, taken: Taken) -> dict[int, Clone]:
    """Clone what mounts[] binds, before the stage is entered: index → clone, the caller's.

    Of the very descriptors that were judged.
    """
    clones: dict[int, Clone] = {}
    try:
        for index, mount in enumerate(oci.items(request.spec, "mounts", dict)):
            if oci.is_bind(mount):
                options = oci.options(mount)
                source = request.sources.bind(index)
                own = _mount_userns(mount, options, taken)
                try:
                    userns = stage.userns if own is None else own
                    # The engine mounts there later what another container asks for.
                    private = owned.is_volume(source, request.call.container_id)
                    clones[index] = stage.clone(index, source.fd, options, userns, private=private)
                except BaseException:
                    if own is not None:
                        os.close(own)
                    raise
    except BaseException:
        close(stage, clones)
        raise
    return clones


def close(stage: Stage, clones: dict[int, Clone]) -> None:
    """Close clones, and mappings of their own; what was mounted of them stays."""
    for one in clones.values():
        os.close(one.tree)
        if one.userns is not None and one.userns != stage.userns:
            os.close(one.userns)
    clones.clear()


def prepare(stage: Stage, request: Request, clones: dict[int, Clone]) -> Prepared:
    """Place the clones, and a sysfs that the container could not mount."""
    staged: dict[int, Staged] = {}
    mounts = oci.items(request.spec, "mounts", dict)
    with contextlib.ExitStack() as stack:
        for index, mount in enumerate(mounts):
            if index in clones:
                clones[index] = stage.mount_again(index, clones[index], oci.options(mount))
            if (
                index not in clones
                and mount.get("type") == "sysfs"
                and request.joins.network_of_host
            ):
                # It shows a network namespace, and to mount it needs rights over that: sysfs(5).
                network = request.joined["network"].fd
                staged[index] = stage.sysfs(index, network, oci.options(mount))
        root = stack.enter_context(stage.root())
        link = functools.partial(read_link, root)
        entries = _entries(mounts, clones)
        bare = not staged and spare.hides_nothing(entries, link)
        read_only = oci.has_readonly_root(request.spec)
        points = _nest(stage, root, entries, clones, read_only=read_only, stack=stack)
        for index, one in clones.items():
            if index in points:
                stage.nest(one, points[index], oci.options(mounts[index]))
            else:
                staged[index] = stage.put(index, one)
    return Prepared(staged, frozenset(points), bare)


def _entries(mounts: list[dict[str, object]], clones: dict[int, Clone]) -> list[nesting.Entry]:
    return [
        nesting.Entry(
            destination=str(mount.get("destination") or ""),
            options=oci.options(mount),
            staged=index in clones,
            whole=index in clones and clones[index].source is None,
            readonly=index in clones and "ro" in clones[index].flags,
        )
        for index, mount in enumerate(mounts)
    ]


def _nest(
    stage: Stage,
    root: int,
    entries: list[nesting.Entry],
    clones: dict[int, Clone],
    *,
    read_only: bool,
    stack: contextlib.ExitStack,
) -> dict[int, int]:
    """Return descriptors of the places of what is to be nested; `stack` owns them."""
    points: dict[int, int] = {}

    def reach(index: int, parent: int | None, path: str) -> bool:
        """Open a place, in trees that lie nowhere yet, so that no other entry is in the way.

        The content of a volume may be another container's work.  Where it has a link in the way,
        or whatever else is wrong, the mount is the runtime's to make or to refuse, and the
        supervisor's second rule holds it.
        """
        tree = root if parent is None else clones[parent].tree
        directory = clones[index].directory
        try:
            if path == ".":
                fd = os.dup(tree)  # on top of that very mount, a file's as well
            else:
                fd = stage.mount_point(tree, path, NO_LINKS, directory=directory)
        except OSError:
            return False
        stack.callback(os.close, fd)
        points[index] = fd
        return stat.S_ISDIR(os.fstat(fd).st_mode) == directory

    nested = nesting.plan(
        entries,
        root_readonly=read_only or bool(syscalls.fstatfs_flags(root) & os.ST_RDONLY),
        link=functools.partial(read_link, root),
        reach=reach,
    )
    return {index: points[index] for index in nested}


def _mount_userns(mount: dict[str, object], options: list[str], taken: Taken) -> int | None:
    """Return the user namespace of a mount that the engine itself wants mapped, or None.

    Only where the container has the engine's own maps; else ours hold for every mount.
    """
    if taken.shift:
        return None
    uids = oci.mappings(mount.get("uidMappings"), "mounts[].uidMappings")
    gids = oci.mappings(mount.get("gidMappings"), "mounts[].gidMappings")
    if uids and gids:
        return syscalls.userns_create(oci.map_text(uids), oci.map_text(gids))
    if {"idmap", "ridmap"} & set(options):
        return syscalls.userns_create(
            oci.map_text(taken.uid_mappings), oci.map_text(taken.gid_mappings)
        )
    return None
