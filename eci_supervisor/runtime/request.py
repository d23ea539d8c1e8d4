"""Reading a bundle: what is asked for, and what of it no container gets.

Nothing is changed here.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel.table import InodeRule  # noqa: TC001 - msgspec asks for it
from eci_supervisor.observe import settings_log
from eci_supervisor.policy import refusals
from eci_supervisor.policy import settings as policy
from eci_supervisor.policy.paths import Access, host_paths, shared, split
from eci_supervisor.runtime import (
    engine_sockets,
    joins,
    overlay,
    programs,
    refuse,
    restricted,
    roots,
    state,
)
from eci_supervisor.runtime import owned as owner
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import RefusedError, SpecError, StageError
from eci_supervisor.runtime.sources import open_sources
from eci_supervisor.runtime.stage import (
    root_mount_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from eci_supervisor.kernel.mountinfo import Mount
    from eci_supervisor.policy.paths import HostPaths
    from eci_supervisor.policy.settings import Settings
    from eci_supervisor.runtime.args import Invocation
    from eci_supervisor.runtime.engine_sockets import Replaced
    from eci_supervisor.runtime.joins import Joins
    from eci_supervisor.runtime.overlay import Layers
    from eci_supervisor.runtime.refuse import Joined
    from eci_supervisor.runtime.sources import Sources
    from eci_supervisor.runtime.spec import Mapping, Spec


class Request(msgspec.Struct, frozen=True):
    """What was read and found acceptable, before anything was changed."""

    call: Invocation
    spec: Spec
    joins: Joins
    joined: dict[str, Joined]
    """The namespaces that it joins, by kind, as they were judged."""
    own_maps: tuple[tuple[Mapping, ...], tuple[Mapping, ...]] | None
    """The spec's own maps (userns-remap): they stay, and its files are shifted already."""
    layers: Layers | None
    """The overlay behind the root file system; None: an ordinary directory."""
    root: bytes
    """The root file system's path, absolute."""
    root_part: bytes
    """Where in the overlay the root file system begins."""
    engine_rootfs: str | None
    host_paths: HostPaths
    protected: tuple[InodeRule, ...]
    """What these are, by identity."""
    sources: Sources
    """What mounts[] binds and the root file system, open."""
    replaced: tuple[Replaced, ...] = ()
    """Which of them become restricted engine sockets."""
    commands: policy.CommandList = policy.CommandList()
    """What these let through."""
    mount_memory: int = 0
    """Bytes that the kernel may charge for its mounts; 0: no bound."""

    def __enter__(self) -> Self:
        """Own the descriptors of `sources` and `joined` for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.sources.close()
        refuse.close_joined(self.joined)


def read_spec(path: str) -> Spec:
    """Read the bundle's config.json; SpecError with the reason in words."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            data = file.read(oci.LIMIT + 1)
    except OSError as error:
        raise SpecError(
            f"{path}: cannot be read: {error.strerror}; is this an OCI bundle?"
        ) from error
    if len(data) > oci.LIMIT:
        raise SpecError(f"{path}: longer than {oci.LIMIT} bytes")
    return oci.loads(data, path)


def _own_maps(spec: Spec) -> tuple[tuple[Mapping, ...], tuple[Mapping, ...]] | None:
    """Return the maps of the user namespace that the spec itself asks for, or None.

    RefusedError where they would give the container ids of the host's root.
    """
    if oci.namespaces(spec).get("user", "no") != "":
        return None
    linux = oci.part(spec, "linux", dict)
    uids = oci.mappings(linux.get("uidMappings"), "linux.uidMappings")
    gids = oci.mappings(linux.get("gidMappings"), "linux.gidMappings")
    if not uids or not gids:
        return None
    _refuse_root(uids, gids)
    return uids, gids


def _refuse_root(uids: tuple[Mapping, ...], gids: tuple[Mapping, ...]) -> None:
    if any(entry.outside == 0 for entry in (*uids, *gids)):
        raise RefusedError(
            "error in the container spec: invalid or unsupported container spec: the user "
            "namespace maps id 0 of the host, which no eci container gets: map to ids above 65535",
            refusals.HOST_ROOT,
        )


def read_settings(call: Invocation) -> Settings:
    """Read the settings that are in force; SettingsError where they cannot be used."""
    named = call.settings or os.environ.get("ECI_SETTINGS") or None
    settings = policy.load(named)
    settings_log.note(state.root(), settings, named or policy.DEFAULT_PATH)
    return settings


def read_request(call: Invocation, settings: Settings) -> Request:
    """Read bundle and surroundings; the caller closes it.  Raises what the user is to be told."""
    spec = read_spec(call.config)
    namespaces = oci.namespaces(spec)
    if namespaces.get("mount"):
        raise RefusedError(
            "error in the container spec: eci containers can't join a mount namespace",
            refusals.MOUNT_NAMESPACE,
        )
    refuse.refuse_annotations(oci.part(spec, "annotations", dict))
    bounding = oci.items(spec, "process.capabilities.bounding", str)
    refuse.refuse_insecure_build(call.bundle, bounding)
    joined = refuse.open_joined(namespaces)
    try:
        return _read_rest(call, settings, spec, joined)
    except BaseException:
        refuse.close_joined(joined)
        raise


def _read_rest(
    call: Invocation, settings: Settings, spec: Spec, joined: dict[str, Joined]
) -> Request:
    """Judge the namespaces, root file system and mounts."""
    host = refuse.host_identities()
    identities = {kind: entry.identity for kind, entry in joined.items()}
    refuse.refuse_shared(oci.namespaces(spec), identities, host)
    found = joins.resolve(joined, host["user"])
    own_maps = _own_maps(spec) if found.user is None else None
    if found.user is not None:
        _refuse_root(found.user.uid_mappings, found.user.gid_mappings)

    root = os.path.join(os.fsencode(call.bundle), os.fsencode(spec["root"]["path"]))
    try:
        root = os.path.realpath(root, strict=True)
    except OSError as error:
        raise StageError(f"root file system {os.fsdecode(root)}: {error.strerror}") from error
    sources = open_sources(spec, call.bundle)
    try:
        mount = _open_root(sources, root, is_shifted=own_maps is not None)
        layers = None if mount is None else overlay.layers(mount)
        # Which of the two refuses what both would: a socket this one, a directory the paths.
        judge = engine_sockets.Judge(
            sources,
            functools.partial(
                engine_sockets.container_of, spec, call.container_id, call.bundle, root, layers
            ),
            settings.enhanced_container_isolation.docker_socket_mount.image_list,
        )
        replaced = judge.sockets()
        passed = [one.index for one in replaced]
        engine = owner.data_roots(call.container_id, call.bundle, root, layers)
        hosts, protected = _refuse_restricted(
            call, spec, settings, sources, passed=passed, engine=engine
        )
        judge.directories(root if mount is None else None)
    except BaseException:
        sources.close()
        raise
    return Request(
        call=call,
        spec=spec,
        joins=found,
        joined=joined,
        own_maps=own_maps,
        layers=layers,
        root=root,
        root_part=b"/" if mount is None else mount.root,
        engine_rootfs=None if mount is None else os.fsdecode(mount.target),
        host_paths=hosts,
        protected=protected,
        sources=sources,
        replaced=replaced,
        commands=settings.enhanced_container_isolation.docker_socket_mount.command_list,
        mount_memory=settings.vm.mount_memory << 20,
    )


def _open_root(sources: Sources, root: bytes, *, is_shifted: bool) -> Mount | None:
    """Open the root file system; return the overlay that is to be mounted once more, if any.

    `is_shifted`: it has its owners already, and is taken as it is.  StageError without one.
    """
    try:
        fd = roots.open_root(sources, root).fd
        return None if is_shifted else root_mount_of(fd)
    except OSError as error:
        raise StageError(f"root file system {os.fsdecode(root)}: {error.strerror}") from error


def _refuse_restricted(
    call: Invocation,
    spec: Spec,
    settings: Settings,
    sources: Sources,
    *,
    passed: Sequence[int],
    engine: set[str],
) -> tuple[HostPaths, tuple[InodeRule, ...]]:
    """Refuse what the container may not have of the host; return what its worker is to hold.

    The paths, and what they are by now.
    `passed`: indices in mounts[] of what is judged already.  `engine`: its data directories, as far
    as they are known.
    """
    owned = owner.own(sources, spec, call.container_id, call.bundle)
    vm = settings.vm
    paths = [
        *(split(path) for path in vm.protected_paths),
        *shared(vm.shared_paths),
    ]
    if vm.protected_paths:
        # An empty list means it.  Else what holds other containers is protected wherever it is.
        engine = {*engine, *owned.protected}
        paths += [(path, Access.PROTECTED) for path in (*sorted(engine), state.root())]
    own = programs.paths(call.settings)
    named = restricted.find(sources.mounts, paths)
    table = restricted.table(sources.mounts, named, own)
    restricted.refuse(sources, spec, table, owned, passed=passed)
    roots.refuse(sources, table, call.container_id, call.bundle)
    return host_paths(paths), tuple(restricted.rules(named))
