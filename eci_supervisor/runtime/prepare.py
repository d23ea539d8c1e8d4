"""Preparing: the stage, in a mount namespace of its own, and the new bundle."""

from __future__ import annotations

import os
import resource
import stat
from typing import TYPE_CHECKING

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime import (
    cleanup,
    cover,
    engine,
    mounts,
    rewrite,
    seccomp,
    spare,
    state,
)
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import SpecError, StageError
from eci_supervisor.runtime.points import Point
from eci_supervisor.runtime.stage import (
    Stage,
    closing,
    hide_unified,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eci_supervisor.kernel.table import InodeRule
    from eci_supervisor.runtime.request import Request
    from eci_supervisor.runtime.rewrite import Staged
    from eci_supervisor.runtime.sources import Sources
    from eci_supervisor.runtime.spec import Spec
    from eci_supervisor.runtime.take import Taken
    from eci_supervisor.supervisor.charge import Charge

TRACE_DIRECTORY = "/var/log/eci/trace"
_INFINITY = 2**64 - 1
_HOST_NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""As Docker sets them for every container: ports below 1024, and ping.  Over a network namespace of
the host's no container has CAP_NET_BIND_SERVICE or CAP_NET_RAW."""


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
    away = request.joined["network"].fd
    given = oci.part(request.spec, "linux.sysctl", dict)
    names = frozenset(name for name in given if name.startswith("net."))
    wanted = {name: str(given[name]) for name in names}
    if request.joins.user is None:
        # The first container of a pod; those that join it find them set.
        wanted = _HOST_NETWORK_SYSCTLS | wanted
    if not wanted and not joined:
        return names, None
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


def _clone_root(stage: Stage, request: Request) -> int:
    """Clone what was judged of the root file system; -1 for an overlay, whose layers are cloned."""
    sources = request.sources
    if request.layers is None and sources.root is not None:
        return stage.clone_root(sources.root.fd)
    stage.clone_layers({path: layer.fd for path, layer in sources.root_layers.items()})
    return -1


def _root(stage: Stage, request: Request, tree: int) -> None:
    """Mount the root file system, read-only in the kernel's eyes if the spec wants it so.

    `tree`: what `_clone_root` has returned; it is closed.
    """
    if request.layers is not None:
        stage.root_overlay(request.layers, request.root_part)
    else:
        stage.root_directory(tree)
    wanted = mount_points(request.spec, request.sources)
    # Without a /dev of its own the runtime must make the nodes in the root file system, and
    # can do so only before it makes that read-only itself.
    if oci.has_readonly_root(request.spec) and any(point.path == "/dev" for point in wanted):
        stage.lock_root(wanted)


def prepare(
    request: Request, taken: Taken, profile: dict[str, object] | None, charge: Charge, pid: int
) -> int | None:
    """Build the stage and write the new bundle.  Changes this process's mount namespace.

    `charge`: what the keeper was told.  `pid`: of the process that becomes the runtime.  Returns a
    descriptor, the caller's, of the network namespace that it goes to before, if any.
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
        tree = _clone_root(stage, request)
        stage.enter()
        _root(stage, request, tree)
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
    spared = (
        profile is not None
        and mounted.bare
        and not records
        and _is_spared(request, taken, charge.protected)
    )
    if profile is not None and spared:
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
            taken.record.nonce,
        ),
        userns_path="" if user is None else stage.pin_namespace("user", user.fd),
        joined={
            kind: stage.pin_namespace(kind, entry.fd)
            for kind, entry in request.joined.items()
            if kind not in ("user", "cgroup")
        },
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


def trace_path(key: str) -> str | None:
    """Return where the trace goes: what ECI_TRACE says."""
    value = os.environ.get("ECI_TRACE", "")
    if value in ("", "0"):
        return None
    return f"{TRACE_DIRECTORY}/{key}.log" if value == "1" else value


def _is_spared(request: Request, taken: Taken, protected: Iterable[InodeRule]) -> bool:
    """Say whether the container is one of spare.py's.  A trace shows all calls, so they come."""
    return (
        request.call.subcommand != "restore"
        and spare.asks_little(request.spec)
        and trace_path(taken.record.key) is None
        and not spare.has_more(taken.state_dir)
        and not spare.shows_protected(taken.state_dir, protected)
    )


def hold_engine_rootfs(path: str) -> None:
    """Make the engine's own mount of the root file system read-only."""
    try:
        syscalls.mount_setattr(lib.AT_FDCWD, path, 0, attr_set=lib.MOUNT_ATTR_RDONLY)
    except OSError as error:
        raise StageError(
            f"the engine's mount {path} cannot be made read-only: {error.strerror}"
        ) from error
