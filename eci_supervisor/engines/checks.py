"""What this kernel and host offer, and what is lost where they offer less: `eci doctor`.

Each check tries the thing itself where that changes nothing.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines.launcher import Launcher, installed
from eci_supervisor.engines.status import settings_state
from eci_supervisor.kernel import features, syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime import killable, ranges, state
from eci_supervisor.runtime.errors import RangeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.engines.plan import Where

OK, LESS, MISSING = "ok", "less", "missing"
"""All is there; works, with something less; essential, and not there: no container starts."""
ENOUGH = 1000
"""Namespaces of a kind below which a busy host may run out."""
USER_LIMITS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
DATA_ROOTS = {
    "docker": "/var/lib/docker",
    "containerd": "/var/lib/containerd",
    "podman": "/var/lib/containers/storage",
}


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    result: str
    """`ok`, `less` or `missing`."""
    found: str
    without: str
    """What is lost where it is not `ok`, and what to do."""


def kernel() -> Iterator[Check]:
    """Check the kernel against the table of what is needed."""
    have = os.uname().release
    for feature in features.REQUIRED:
        there = features.release(have) >= features.release(feature.since)
        yield Check(
            feature.name,
            OK if there else MISSING,
            f"kernel {have}, since {feature.since}, for {feature.used_for}",
            "no container starts: boot a newer kernel",
        )
    try:
        features.require()
    except features.MissingFeatureError as error:
        yield Check("what the kernel is configured for", MISSING, str(error), "no container starts")
    else:
        yield Check(
            "what the kernel is configured for",
            OK,
            "user namespaces and seccomp user notification",
            "no container starts",
        )


def _first_line(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return (done.stdout.splitlines() or ["says no version"])[0]


def runtimes(where: Where) -> Iterator[Check]:
    """Check runc and crun: one of them has to be there."""
    found = {name: installed(where.tree, name) for name in ("runc", "crun")}
    for name, program in found.items():
        without = f"nothing can be started with {name}: install it if an engine uses it"
        if program is None or Launcher(where.tree, where.library).is_ours(program):
            result = LESS if any(found.values()) else MISSING
            yield Check(name, result, "not installed", without)
            continue
        version = _first_line(program)
        yield Check(name, OK, f"{version}, {program}", without)
        waits = killable.waits_killable(name, program, state.root())
        yield Check(
            f"{name}: WAIT_KILLABLE_RECV",
            OK if waits else LESS,
            "taken" if waits else f"not taken by {version}",
            "a signal can interrupt a mount that is being vetted: the caller sees EINTR and tries "
            f"again; {'runc 1.5 with libseccomp 2.6, or crun, has it' if name == 'runc' else ''}",
        )
    yield _cgroups()


def _cgroups() -> Check:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return Check("cgroups", OK, "version 2", "")
    if os.path.exists("/sys/fs/cgroup/unified/cgroup.controllers"):
        return Check(
            "cgroups",
            LESS,
            "version 1 beside 2 (hybrid)",
            "bare crun refuses to work here; eci-runtime hides the second one from it",
        )
    there = os.path.isdir("/sys/fs/cgroup") and bool(os.listdir("/sys/fs/cgroup"))
    return Check(
        "cgroups", OK if there else MISSING, "version 1" if there else "none", "mount cgroups"
    )


def _data_roots(where: Where) -> dict[str, str]:
    """Return engine -> data root of the engines that are installed."""
    found = {}
    for engine, program in {
        "docker": "dockerd",
        "containerd": "containerd",
        "podman": "podman",
    }.items():
        if installed(where.tree, program):
            found[engine] = DATA_ROOTS[engine]
    if "docker" in found:
        try:
            with open(where.tree.real(where.docker), encoding="utf-8-sig") as file:
                named = json.load(file).get("data-root")
        except (OSError, ValueError, AttributeError):
            named = None
        if isinstance(named, str) and named.startswith("/"):
            found["docker"] = named
    return found


def can_idmap(directory: str) -> str:
    """Map the ids of a detached copy of the mount at `directory`; returns why not, or nothing."""
    fds: list[int] = []
    try:
        fds.append(syscalls.userns_create("0 100000 65536\n", "0 100000 65536\n"))
        fds.append(syscalls.open_tree(lib.AT_FDCWD, directory, lib.OPEN_TREE_CLONE))
        syscalls.mount_setattr(
            fds[1], "", lib.AT_EMPTY_PATH, attr_set=lib.MOUNT_ATTR_IDMAP, userns_fd=fds[0]
        )
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for fd in fds:
            os.close(fd)
    return ""


def storage(where: Where) -> Iterator[Check]:
    """Check that the file systems below the engines' data roots can be ID-mapped."""
    for engine, root in _data_roots(where).items():
        there = where.tree.real(root)
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        reason = can_idmap(there)
        yield Check(
            f"ID-mapped mounts for {engine}",
            MISSING if reason else OK,
            f"{root}: {reason or 'can be ID-mapped'}",
            "no container of this engine starts: move its data to ext4, xfs, btrfs or tmpfs",
        )
    fuse = os.path.exists("/dev/fuse") and _has_filesystem("fuse")
    yield Check(
        "FUSE",
        OK if fuse else LESS,
        "/dev/fuse" if fuse else "not there",
        "nothing can be copied into a running container (docker cp): modprobe fuse",
    )


def _has_filesystem(name: str) -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == name for line in file if line.split())


def limits() -> Iterator[Check]:
    """Check how many namespaces there may be."""
    for kind in USER_LIMITS:
        path = f"/proc/sys/user/max_{kind}_namespaces"
        try:
            with open(path, encoding="ascii") as file:
                value = int(file.read())
        except OSError as error:
            yield Check(f"user.max_{kind}_namespaces", LESS, error.strerror or "", "")
            continue
        result = OK if value >= ENOUGH else LESS if value else MISSING
        yield Check(
            f"user.max_{kind}_namespaces",
            result,
            str(value),
            f"a container takes one each: sysctl user.max_{kind}_namespaces=15000",
        )


def _lines(path: str) -> list[str]:
    """Return the lines of a file; none of one that cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _subordinate(path: str) -> Iterator[tuple[str, int, int]]:
    """Give user, first id and count of each line of /etc/subuid or /etc/subgid: subuid(5)."""
    for line in _lines(path):
        user, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if user and not user.startswith("#") and first.isdecimal() and count.isdecimal():
            yield user, int(first), int(count)


def ids(where: Where) -> Iterator[Check]:
    """Check the space of ID ranges against those that the host gave to its users."""
    try:
        first, count = ranges.limits(os.environ.get("ECI_RANGES"))
    except RangeError as error:
        yield Check("ID ranges", MISSING, str(error), "no container starts")
        return
    end = first + count * ranges.SIZE
    taken = [
        f"{path}: {user} has {low}-{low + size - 1}"
        for path in ("/etc/subuid", "/etc/subgid")
        for user, low, size in _subordinate(where.tree.real(path))
        if low < end and low + size > first
    ]
    taken += [
        f"/etc/passwd: {name} is {uid}"
        for name, uid in _users(where.tree.real("/etc/passwd"))
        if first <= uid < end
    ]
    yield Check(
        "ID ranges",
        LESS if taken else OK,
        "; ".join(taken)
        or f"{count} ranges of {ranges.SIZE} ids from {first} on are nobody else's",
        "a user of the host can have the same ids as a container: give one of them others "
        "(ECI_RANGES=FIRST:COUNT in the engine's environment, or /etc/subuid)",
    )


def _users(path: str) -> Iterator[tuple[str, int]]:
    for line in _lines(path):
        parts = line.split(":")
        if len(parts) > 2 and parts[2].isdecimal():  # noqa: PLR2004 - passwd(5): the third is it
            yield parts[0], int(parts[2])


def settings() -> Check:
    """Check the administrator's settings."""
    found = settings_state()
    if found.state == "error":
        return Check("settings", MISSING, found.error, "no container starts: mend the file")
    if not found.protects:
        off = f"{found.path}: enhancedContainerIsolation.value is false"
        return Check("settings", LESS, off, "new containers are not protected: set it to true")
    return Check("settings", OK, f"{found.path} ({found.state})", "")


def programs() -> Check:
    """Check that the C half is built."""
    names = ("eci-runtime", "eci-hook", "eci-cleanup", "eci-keeper", "eci-worker", "eci-view")
    absent = [name for name in names if not os.access(state.bin_path(name), os.X_OK)]
    place = os.path.dirname(os.path.realpath(state.bin_path("eci-runtime")))
    if absent:
        found = f"missing: {', '.join(absent)}"
        return Check("our own programs", MISSING, found, "no container starts: make build")
    loose = others_place(place)
    return Check(
        "our own programs",
        LESS if loose else OK,
        f"{loose} is not root's alone" if loose else place,
        "engines run these programs as root: who can change them is root; move them, or chown",
    )


def others_place(path: str) -> str:
    """Return the first directory above, or at, `path` that others than root can change, if any.

    Of a sticky one (/tmp) they cannot take away what is root's.
    """
    while True:
        status = os.stat(path)
        if status.st_uid != 0 or (status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX):
            return path
        if path == "/":
            return ""
        path = os.path.dirname(path)


def run(where: Where) -> list[Check]:
    """Look at everything.  Needs root."""
    return [
        programs(),
        settings(),
        *kernel(),
        *runtimes(where),
        *storage(where),
        *ids(where),
        *limits(),
    ]
