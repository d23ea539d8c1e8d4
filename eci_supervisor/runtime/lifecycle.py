"""create, run and restore: from the engine's bundle to the runtime's.

The order is that of what can fail.  First everything is read, and refused that must be; then
the state directory and the ID range are taken, under the lock; then the keeper is forked,
which from there on clears up whatever happens to us; then the stage is built in a mount
namespace of its own; and at last the process that the engine called becomes the runtime: this one,
or the launcher for which it was forked (successor.py).
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import resource
import stat
from typing import TYPE_CHECKING, NoReturn

import msgspec

from eci_supervisor.kernel import features, syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.observe import settings_log
from eci_supervisor.policy import refusals
from eci_supervisor.policy import settings as policy
from eci_supervisor.policy.paths import Access, host_paths, shared, split
from eci_supervisor.runtime import (
    cleanup,
    cover,
    engine,
    engine_sockets,
    joins,
    killable,
    mounts,
    overlay,
    refuse,
    restricted,
    rewrite,
    seccomp,
    spare,
    state,
)
from eci_supervisor.runtime import owned as owner
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import EciError, RefusedError, SpecError, StageError, UsageError
from eci_supervisor.runtime.points import Point
from eci_supervisor.runtime.sources import open_sources
from eci_supervisor.runtime.stage import (
    Stage,
    closing,
    has_unified,
    hide_unified,
    leave_host,
    root_mount,
)
from eci_supervisor.supervisor.charge import Charge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eci_supervisor.policy.paths import HostPaths
    from eci_supervisor.policy.settings import Settings
    from eci_supervisor.runtime.args import Invocation
    from eci_supervisor.runtime.engine_sockets import Replaced
    from eci_supervisor.runtime.joins import Joins
    from eci_supervisor.runtime.overlay import Layers
    from eci_supervisor.runtime.ranges import RangeStore
    from eci_supervisor.runtime.rewrite import Staged
    from eci_supervisor.runtime.sources import Sources
    from eci_supervisor.runtime.spec import Mapping, Spec
    from eci_supervisor.runtime.successor import Successor

TRACE_DIRECTORY = "/var/log/eci/trace"
_INFINITY = 2**64 - 1
_HOST_NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""As Docker sets them for every container: ports below 1024, and ping.  Over a network namespace of
the host's no container has CAP_NET_BIND_SERVICE or CAP_NET_RAW."""
_ID = re.compile(r"[\w+.-]+")


class Request(msgspec.Struct, frozen=True):
    """What was read and found acceptable, before anything was changed."""

    call: Invocation
    spec: Spec
    joins: Joins
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
    sources: Sources
    """What mounts[] binds, open; `create` closes them."""
    replaced: tuple[Replaced, ...] = ()
    """Which of them become restricted engine sockets."""
    commands: policy.CommandList = policy.CommandList()
    """What these let through."""


class Taken(msgspec.Struct, frozen=True):
    """The state directory and the ID range of a container that is being made."""

    record: state.Record
    state_dir: str
    uid_mappings: tuple[Mapping, ...]
    gid_mappings: tuple[Mapping, ...]
    shift: bool
    """Whether files are to be ID-mapped."""
    busy: int
    """The held BUSY lock; closes when the runtime has begun."""


# -- reading ----------------------------------------------------------------------------------


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
    """Read bundle and surroundings; raises what the user is to be told."""
    spec = read_spec(call.config)
    namespaces = oci.namespaces(spec)
    if namespaces.get("mount"):
        raise RefusedError(
            "error in the container spec: eci containers can't join a mount namespace",
            refusals.MOUNT_NAMESPACE,
        )
    bounding = oci.items(spec, "process.capabilities.bounding", str)
    refuse.refuse_insecure_build(call.bundle, bounding)
    host = refuse.host_identities()
    joined = refuse.open_joined(namespaces)
    try:
        identities = {kind: entry.identity for kind, entry in joined.items()}
        refuse.refuse_shared(namespaces, identities, host)
        found = joins.resolve(joined, host["user"])
    finally:
        for entry in joined.values():
            os.close(entry.fd)
    own_maps = _own_maps(spec) if found.user is None else None
    if found.user is not None:
        _refuse_root(found.user.uid_mappings, found.user.gid_mappings)

    root = os.path.join(os.fsencode(call.bundle), os.fsencode(spec["root"]["path"]))
    try:
        root = os.path.realpath(root, strict=True)
        mount = root_mount(root) if own_maps is None else None
    except OSError as error:
        raise StageError(f"root file system {os.fsdecode(root)}: {error.strerror}") from error
    layers = None if mount is None else overlay.layers(mount)
    sources = open_sources(spec, call.bundle)
    try:
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
        hosts = _refuse_restricted(
            call, spec, settings, sources, root, own=mount is None, passed=passed
        )
        judge.directories(root if mount is None else None)
    except BaseException:
        sources.close()
        raise
    return Request(
        call=call,
        spec=spec,
        joins=found,
        own_maps=own_maps,
        layers=layers,
        root=root,
        root_part=b"/" if mount is None else mount.root,
        engine_rootfs=None if mount is None else os.fsdecode(mount.target),
        host_paths=hosts,
        sources=sources,
        replaced=replaced,
        commands=settings.enhanced_container_isolation.docker_socket_mount.command_list,
    )


def _refuse_restricted(
    call: Invocation,
    spec: Spec,
    settings: Settings,
    sources: Sources,
    root: bytes,
    *,
    own: bool,
    passed: Sequence[int],
) -> HostPaths:
    """Refuse what the container may not have of the host; return what its worker is to hold.

    `own`: the root file system is a directory of the host's, and no overlay.  `passed`: indices in
    mounts[] of what is judged already.
    """
    owned = owner.own(sources, spec, call.container_id, call.bundle)
    vm = settings.vm
    paths = [
        *(split(path) for path in vm.protected_paths),
        *shared(vm.shared_paths),
    ]
    if vm.protected_paths:
        # An empty list means it.  Else what holds other containers is protected wherever it is.
        paths += [(path, Access.PROTECTED) for path in (*sorted(owned.protected), state.root())]
    table = restricted.table(sources.mounts, paths, owned.shared)
    restricted.refuse(sources, spec, table, owned, passed=passed)
    if own:
        restricted.refuse_root(sources.mounts, root, table)
    return host_paths(paths)


# -- taking -----------------------------------------------------------------------------------


def _refuse_existing(exists: str, container_id: str) -> None:
    """Say what the runtime says where it has such a container already."""
    if os.path.lexists(exists):
        raise EciError(f"container with given ID already exists: {container_id}")


def _claim(state_dir: str, exists: str, container_id: str) -> int:
    """Make the state directory, clearing up after a dead namesake; returns the held BUSY lock.

    The caller holds the lock of the whole state.
    """
    _refuse_existing(exists, container_id)
    if os.path.isdir(state_dir):
        if not cleanup.is_gone(state_dir):
            raise EciError(
                f"container with given ID is still being made or removed: {container_id}"
            )
        cleanup.clean_locked(state_dir)
    os.mkdir(state_dir, 0o711)
    os.chmod(state_dir, 0o711)
    busy = os.open(f"{state_dir}/{state.BUSY}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(busy, fcntl.LOCK_EX)
    return busy


def _foreign_slots(
    store: RangeStore, state_root: str, maps: tuple[Mapping, ...]
) -> tuple[int, ...]:
    """Return the slots that an engine's own ranges touch; RangeError if one is in other hands."""
    slots = sorted({slot for entry in maps for slot in store.slots_over(entry.outside, entry.size)})
    for slot in slots:
        for holder in store.holders(slot):
            record = state.read_record(f"{state_root}/containers/{holder}")
            if record is not None and not record.own_maps:
                raise EciError(
                    "the user namespace of the container overlaps the ID range of container "
                    f"{record.id} (from {record.base}): give the engine another subordinate range"
                )
    return tuple(slots)


def take(request: Request, *, supervised: bool) -> Taken:
    """Take the state directory and an ID range; nothing is left of them if this fails."""
    call = request.call
    container_id = call.container_id
    state_root = state.root()
    store = state.open_store(state_root)
    key = state.key_of(container_id, call.root)
    state_dir = f"{state_root}/containers/{key}"
    exists = f"{call.root}/{container_id}"
    _refuse_existing(exists, container_id)
    cleanup.wait_until_free(state_dir)
    with store.locked():
        busy = _claim(state_dir, exists, container_id)
        try:
            user = request.joins.user
            maps = request.own_maps
            shift = maps is None
            slots: tuple[int, ...]
            if user is not None:
                maps = user.uid_mappings, user.gid_mappings
                slot = _slot_of(store, maps)
                shift = slot is not None
                slots = _foreign_slots(store, state_root, maps[0]) if slot is None else (slot,)
                for slot in slots:
                    store.join(slot, key)
            elif maps is not None:
                slots = _foreign_slots(store, state_root, maps[0])
                for slot in slots:
                    store.join(slot, key)
            else:
                chosen = store.allocate(key, lambda: cleanup.collect(store, state_root))
                slots = (chosen.slot,)
                maps = ((oci.Mapping(0, chosen.base, chosen.size),),) * 2
            first = min(maps[0], key=lambda entry: entry.inside)
            record = state.Record(
                id=container_id,
                key=key,
                nonce=os.urandom(8).hex(),
                runtime=call.runtime,
                runtime_root=call.root,
                base=first.outside,
                size=first.size,
                slots=slots,
                own_maps=not shift,
                work=None
                if request.layers is None or request.layers.work is None
                else os.fsdecode(request.layers.work),
                engine_rootfs=request.engine_rootfs,
                mount_namespace=os.stat("/proc/self/ns/mnt").st_ino,
                supervised=supervised,
            )
            state.write_record(state_dir, record)
        except BaseException:
            os.close(busy)
            cleanup.clean_locked(state_dir)
            raise
    return Taken(record, state_dir, maps[0], maps[1], shift, busy)


def _slot_of(
    store: RangeStore, maps: tuple[tuple[Mapping, ...], tuple[Mapping, ...]]
) -> int | None:
    """Return the slot that these maps are, or None for maps that are not ours."""
    uids, gids = maps
    if len(uids) != 1 or uids != gids or uids[0].inside != 0:
        return None
    return store.slot_of(uids[0].outside, uids[0].size)


# -- preparing --------------------------------------------------------------------------------


def _userns(taken: Taken) -> int | None:
    """Return a user namespace for ID mapping, or None where files are shifted already."""
    if not taken.shift:
        return None
    return syscalls.userns_create(
        oci.map_text(taken.uid_mappings), oci.map_text(taken.gid_mappings)
    )


def _tmpfs_mode(mount: dict[str, object]) -> int:
    """Return the mode of a tmpfs.  runc gives a tmpfs that of the directory under it."""
    for option in reversed(oci.options(mount)):
        if option.startswith("mode=") and option[5:].isdigit():
            return int(option[5:], 8) & 0o7777
    return 0o1777


def mount_points(spec: Spec, sources: Sources) -> list[Point]:
    """Return what the runtime would make in a root file system; `sources`: of its mounts[].

    Not what lies beneath another mount, which hides it.
    """
    found: list[Point] = []
    hidden: list[str] = []
    for index, mount in enumerate(oci.items(spec, "mounts", dict)):
        destination = oci.inside(mount.get("destination"))
        point = Point(destination)
        if oci.is_bind(mount):
            directory = stat.S_ISDIR(sources.bind(index).mode)
            point = Point(destination, directory=directory)
        elif mount.get("type") == "tmpfs":
            point = Point(destination, mode=_tmpfs_mode(mount))
        if not any(destination.startswith(above.rstrip("/") + "/") for above in hidden):
            found.append(point)
        hidden.append(destination)
    cwd = oci.inside(oci.part(spec, "process", dict).get("cwd"))
    if not any((cwd + "/").startswith(above.rstrip("/") + "/") for above in hidden):
        found.append(Point(cwd))
    return found


def _hard_limits(spec: Spec, pid: int) -> dict[str, int]:
    """Return, for each limit that cannot be raised so far, how far it can.

    One that can is raised for process `pid`, which becomes the runtime, and so inherited: within
    its user namespace the container has no right to do it.
    """
    found: dict[str, int] = {}
    for entry in oci.items(spec, "process.rlimits", dict):
        name, wanted = str(entry.get("type")), entry.get("hard")
        number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
        if number is None or not isinstance(wanted, int):
            continue
        soft, hard = resource.prlimit(pid, number)
        if hard == resource.RLIM_INFINITY or wanted <= hard:
            continue
        limit = resource.RLIM_INFINITY if wanted == _INFINITY else wanted
        try:
            resource.prlimit(pid, number, (soft, limit))
        except (OSError, ValueError, OverflowError):
            found[name] = hard
    return found


def _oom_floor(spec: Spec, pid: int) -> int | None:
    """Return the oom_score_adj of `pid` if a lower one is wanted that we cannot set; else None.

    One that can be set is set for that process, which becomes the runtime, and so inherited.
    """
    wanted = oci.part(spec, "process", dict).get("oomScoreAdj")
    path = f"/proc/{pid}/oom_score_adj"
    with closing(os.open(path, os.O_RDWR | os.O_CLOEXEC)) as fd:
        own = int(os.read(fd, 32))
        if not isinstance(wanted, int) or wanted >= own:
            return None
        try:
            os.pwrite(fd, str(wanted).encode("ascii"), 0)
        except OSError:
            return own
    return None


def _is_plain(path: str) -> bool:
    return os.path.realpath(path) == path


def _cover(request: Request, taken: Taken, staged: dict[int, Staged]) -> cover.Cover:
    """Return what the worker covers; nothing where there is none, or no hook to do it at."""
    if not taken.record.supervised or request.call.subcommand == "restore":
        return cover.Cover()
    loose = request.call.runtime == "crun"
    found = cover.plan(request.spec, taken.gid_mappings, _is_plain, staged, loose=loose)
    if request.joins.network_of_host:
        # Set already, since the container could not: _network().
        for name in [name for name in found.sysctl if name.startswith("net.")]:
            del found.sysctl[name]
    return found


def _network(request: Request) -> tuple[frozenset[str], int | None]:
    """Set what the container cannot set in a network namespace of the host's.

    Returns the sysctls that were set, and a descriptor, the caller's, of that namespace if the
    runtime has to be in it from the beginning: where runc 1.1 joins a user namespace, it does so
    first and then may not enter this one.  In `exec` it always joins one; so there the launcher
    enters what runc does not know of (csrc/launcher.c, join_network).
    """
    if not request.joins.network_of_host:
        return frozenset(), None
    joined = request.call.runtime == "runc"
    path = oci.namespaces(request.spec)["network"]
    given = oci.part(request.spec, "linux.sysctl", dict)
    names = frozenset(name for name in given if name.startswith("net."))
    wanted = {name: str(given[name]) for name in names}
    if request.joins.user is None:
        # The first container of a pod; those that join it find them set.
        wanted = _HOST_NETWORK_SYSCTLS | wanted
    if not wanted and not joined:
        return names, None
    with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as away:
        if wanted:
            with closing(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
                syscalls.setns(away, lib.CLONE_NEWNET)
                try:
                    for name, value in wanted.items():
                        _set_sysctl(name, value)
                finally:
                    syscalls.setns(home, lib.CLONE_NEWNET)
        return names, os.dup(away) if joined else None


def _set_sysctl(name: str, value: str) -> None:
    """Write one sysctl; the dots of its name are slashes, and slashes dots: sysctl(8)."""
    path = cover.sysctl_path(name)
    if ".." in path.split("/"):
        raise SpecError(f"config.json: linux.sysctl: {name}: not a name")
    try:
        with open(f"/proc/sys/{path}", "w", encoding="utf-8") as file:
            file.write(value)
    except OSError as error:
        raise SpecError(
            f"config.json: linux.sysctl: {name} cannot be set to {value}: {error.strerror}"
        ) from error


def _root(stage: Stage, request: Request) -> None:
    """Mount the root file system, read-only in the kernel's eyes if the spec wants it so."""
    if request.layers is not None:
        stage.root_overlay(request.layers, request.root_part)
    else:
        stage.root_directory(request.root)
    wanted = mount_points(request.spec, request.sources)
    # Without a /dev of its own the runtime must make the nodes in the root file system, and
    # can do so only before it makes that read-only itself.
    if oci.has_readonly_root(request.spec) and any(point.path == "/dev" for point in wanted):
        stage.lock_root(wanted)


def prepare(
    request: Request, taken: Taken, profile: dict[str, object] | None, pid: int
) -> int | None:
    """Build the stage and write the new bundle.  Changes this process's mount namespace.

    `pid`: of the process that becomes the runtime.  Returns a descriptor, the caller's, of the
    network namespace that it goes to before, if any.
    """
    spec, call = request.spec, request.call
    if request.engine_rootfs is not None and taken.shift:
        # Two overlays over one upper layer: what the engine wrote through its own would not be
        # seen, or worse.  The keeper puts a view in front of it that may be written to.
        hold_engine_rootfs(request.engine_rootfs)
    named = rewrite.named_devices(spec, engine.named_devices(spec, call.container_id))
    userns = _userns(taken)
    stage = Stage(taken.state_dir, userns, taken.record.base)
    clones = mounts.clone(stage, request, taken)
    try:
        stage.enter()
        _root(stage, request)
        mounted = mounts.prepare(stage, request, clones)
    finally:
        mounts.close(stage, clones)
    devices = tuple(
        (
            device,
            stage.device(
                number, device, taken.record.base + device.uid, taken.record.base + device.gid
            ),
        )
        for number, device in enumerate(named)
    )
    user = request.joins.user
    sysctls, network = _network(request)
    if call.runtime == "crun":
        hide_unified()
    covered = _cover(request, taken, mounted.staged)
    records = covered.records(f"{taken.state_dir}/rootfs")
    if profile is not None and not records and _is_spared(request, taken, bare=mounted.bare):
        profile = seccomp.spare(profile)
        records = (state.SPARED,)
    # The keeper was forked before, and reads it at the createRuntime hook.
    state.write_file(
        f"{taken.state_dir}/{state.COVER}", b"".join(record + b"\0" for record in records)
    )
    plan = rewrite.Plan(
        uid_mappings=taken.uid_mappings,
        gid_mappings=taken.gid_mappings,
        rootfs=f"{taken.state_dir}/rootfs",
        hook=(state.bin_path("eci-hook"), "create", f"{taken.state_dir}/hook.sock"),
        poststop=(
            cleanup.PROGRAM,
            taken.state_dir,
            *cleanup.words_of(taken.record),
            str(taken.record.mount_namespace),
        ),
        userns_path="" if user is None else stage.pin_namespace(user.fd),
        staged=mounted.staged,
        nested=mounted.nested,
        devices=devices,
        seccomp=profile,
        hard_limits=_hard_limits(spec, pid),
        oom_floor=_oom_floor(spec, pid),
        sysctl_dropped=sysctls | covered.sysctl.keys(),
        paths_dropped=frozenset(covered.masked + covered.readonly),
        network_joined=network is not None,
    )
    os.mkdir(f"{taken.state_dir}/bundle", 0o700)
    state.write_file(
        f"{taken.state_dir}/bundle/config.json", oci.dumps(rewrite.rewrite(spec, plan))
    )
    return network


def _is_spared(request: Request, taken: Taken, *, bare: bool) -> bool:
    """Say whether the container is one of spare.py's.  A trace shows all calls, so they come."""
    return (
        bare
        and request.call.subcommand != "restore"
        and spare.asks_little(request.spec)
        and _trace(taken.record.key) is None
        and not spare.has_more(taken.state_dir)
        and not spare.shows_protected(taken.state_dir, request.host_paths)
    )


def hold_engine_rootfs(path: str) -> None:
    """Make the engine's own mount of the root file system read-only."""
    try:
        syscalls.mount_setattr(lib.AT_FDCWD, path, 0, attr_set=lib.MOUNT_ATTR_RDONLY)
    except OSError as error:
        raise StageError(
            f"the engine's mount {path} cannot be made read-only: {error.strerror}"
        ) from error


# -- all of it --------------------------------------------------------------------------------


def _trace(key: str) -> str | None:
    """Return where the trace goes: what ECI_TRACE says."""
    value = os.environ.get("ECI_TRACE", "")
    if value in ("", "0"):
        return None
    return f"{TRACE_DIRECTORY}/{key}.log" if value == "1" else value


def _charge(request: Request, taken: Taken, profile: seccomp.Profile | None) -> Charge:
    record = taken.record
    return Charge(
        container_id=record.id,
        key=record.key,
        nonce=record.nonce,
        state_dir=taken.state_dir,
        runtime_root=record.runtime_root,
        runtime=record.runtime,
        base=record.base,
        size=record.size,
        supervised=record.supervised,
        waits_killable=seccomp.waits_killable(profile),
        masked_paths=tuple(oci.items(request.spec, "linux.maskedPaths", str)),
        readonly_paths=tuple(oci.items(request.spec, "linux.readonlyPaths", str)),
        host_paths=request.host_paths,
        hooks_meddle=spare.hooks_meddle(request.spec),
        trace=_trace(record.key),
        cgroups_path=_cgroups_path(request.spec),
        engine_rootfs=record.engine_rootfs if taken.shift else None,
        image=engine.image_name(request.spec),
        engine_record=engine.record_directory(request.spec, record.id),
        clearing=cleanup.words_of(record),
    )


def _cgroups_path(spec: oci.Spec) -> str | None:
    path = oci.part(spec, "linux", dict).get("cgroupsPath")
    return path if isinstance(path, str) and path.startswith("/") else None


def pass_on(call: Invocation, binary: str, successor: Successor) -> NoReturn:
    """Leave the container to the runtime as the engine asked for it: the settings say so."""
    if call.runtime == "crun" and has_unified():
        leave_host()
        hide_unified()
    successor.become(binary, call.as_given())


def create(call: Invocation, binary: str, successor: Successor) -> NoReturn:
    """Make a protected container of `call`; `successor` becomes the runtime.

    Raises what goes wrong.
    """
    if _ID.fullmatch(call.container_id) is None or call.container_id in (".", ".."):
        raise UsageError(f"invalid container ID format: {call.container_id!r}")
    settings = read_settings(call)
    if not settings.enhanced_container_isolation.value:
        pass_on(call, binary, successor)
    features.require()
    request = read_request(call, settings)
    with request.sources:
        _make(request, binary, successor)


def _make(request: Request, binary: str, successor: Successor) -> NoReturn:
    """Take, prepare, and go."""
    call = request.call
    state_dir = f"{state.root()}/containers/{state.key_of(call.container_id, call.root)}"
    profile = seccomp.supervise(
        request.spec,
        f"{state_dir}/notify.sock",
        wait_killable=killable.waits_killable(call.runtime, binary, state.root()),
    )
    # The keeper is heavy to import, and not wanted before all has been found in order.
    from eci_supervisor.supervisor import keeper, standby  # noqa: PLC0415

    hand_over = standby.stand_by(state.root(), adopted=successor.pid != os.getpid())
    taken = take(request, supervised=profile is not None)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        charge = _charge(request, taken, profile)
        hand_over(charge, keeper.hold(charge, successor.pid))
        if request.replaced:
            base = 0 if taken.shift else taken.record.base
            holder = engine_sockets.Holder(call.container_id, taken.state_dir, base)
            engine_sockets.serve(request.replaced, request.sources, request.commands, holder)
        network = prepare(request, taken, profile, successor.pid)
        argv = call.with_bundle(f"{taken.state_dir}/bundle")
        successor.become(binary, argv, held=taken.busy, network=network)
    except BaseException:
        # The keeper does the same when we are gone; but the caller shall find nothing when we
        # return.  Back home first: the stage's mounts are gone then, and the engine's reachable.
        syscalls.setns(home, lib.CLONE_NEWNS)
        cleanup.clean(taken.state_dir, taken.record.nonce)
        raise
