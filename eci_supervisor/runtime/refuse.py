"""What no protected container gets: namespaces of the host, and a build's insecure steps.

Namespaces are compared by identity, the inode of their nsfs file, never by name: a path such
as /proc/1/ns/net or a bind of it elsewhere is the host's namespace as well.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.policy import refusals
from eci_supervisor.runtime.errors import RefusedError, SpecError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

Identity = tuple[int, int]
"""Device and inode of a namespace."""

_FILES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
_PREFIX = "error in the container spec: invalid or unsupported container spec: "
_REASON = " with the host (because they use the linux user-namespace for isolation)"


class Joined(msgspec.Struct, frozen=True):
    """One namespace that the spec names by a path."""

    kind: str
    identity: Identity
    fd: int
    """O_PATH-free descriptor on the namespace; belongs to who holds this value."""


def host_identities(proc: str = "/proc/self") -> dict[str, Identity]:
    """Return the identities of the caller's own namespaces, which are the engine's and the host's.

    A kind that this kernel does not have is left out.
    """
    found = {}
    for kind, name in _FILES.items():
        try:
            info = os.stat(f"{proc}/ns/{name}")
        except FileNotFoundError:
            continue
        found[kind] = (info.st_dev, info.st_ino)
    return found


def open_joined(namespaces: dict[str, str]) -> dict[str, Joined]:
    """Open every namespace that is named by a path; the caller is to `close_joined` them.

    What is judged is what is joined: the path, which may lie where others write, is not used again.
    SpecError if one cannot be opened; nothing stays open then.
    """
    found: dict[str, Joined] = {}
    try:
        for kind, path in namespaces.items():
            if path:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                info = os.fstat(fd)
                found[kind] = Joined(kind, (info.st_dev, info.st_ino), fd)
    except OSError as error:
        close_joined(found)
        raise SpecError(
            f"config.json: linux.namespaces: the {kind} namespace {path} cannot be joined: "
            f"{error.strerror}"
        ) from error
    return found


def close_joined(joined: dict[str, Joined]) -> None:
    """Close what `open_joined` has opened."""
    for entry in joined.values():
        os.close(entry.fd)
    joined.clear()


def shared_with_host(
    namespaces: dict[str, str], joined: dict[str, Identity], host: dict[str, Identity]
) -> list[str]:
    """Return the kinds that would be the host's own.  Pure.

    `joined`: identities of the namespaces that have a path.  A kind that is not listed is not
    unshared, so it is the host's.  The user and the cgroup namespace are not looked at: the
    container gets its own ones whatever the spec says.
    """
    return [
        kind
        for kind in ("pid", "ipc", "uts", "network", "mount")
        if kind not in namespaces or (kind in joined and joined[kind] == host.get(kind))
    ]


def message(shared: list[str]) -> str:
    """Return the text of the refusal, in the wording that users know.  Pure."""
    others = [kind for kind in shared if kind != "network"]
    # Who asks Kubernetes for the host's network gets its host name with it, and asked for that.
    if others and not ("network" in shared and others == ["uts"]):
        return f"{_PREFIX}eci containers can't share namespaces [{' '.join(others)}]{_REASON}"
    return f"{_PREFIX}eci containers can't share a network namespace{_REASON}"


def refuse_shared(
    namespaces: dict[str, str], joined: dict[str, Identity], host: dict[str, Identity]
) -> None:
    """Raise RefusedError if the container would share a namespace with the host."""
    shared = shared_with_host(namespaces, joined, host)
    if shared:
        raise RefusedError(message(shared), refusals.HOST_NAMESPACE)


HARMLESS = frozenset({
    "run.oci.mount_context_type",
    "run.oci.seccomp_fail_unknown_syscall",
    "run.oci.timens_offset",
    "org.systemd.property.After",
    "org.systemd.property.CollectMode",
    "org.systemd.property.DefaultDependencies",
    "org.systemd.property.KillSignal",
    "org.systemd.property.TimeoutStopUSec",
})  # fmt: skip
"""Of annotations that a runtime acts on, those that change nothing but what is the container's own.

Of systemd's properties, those that podman and CRI-O set by themselves.
"""
_SUBGROUP = "run.oci.systemd.subgroup"
_FOREIGN = ("run.oci.", "krun.", "org.systemd.property.")
_FOREIGN_NAMES = frozenset({"org.criu.config", "bundle"})


def refuse_annotations(annotations: Mapping[str, object]) -> None:
    """Raise RefusedError for an annotation that makes the runtime do other than the bundle says.

    crun(1) replaces the seccomp filter by one, loads plugins, keeps the host's groups or hands the
    container to another program (libkrun); criu(8) gets a configuration file, with scripts, by
    another; systemd's properties reach units and processes of the host (systemd.unit(5), PIDs=).
    Annotations come from users of an engine.
    """
    for name, value in annotations.items():
        if name == _SUBGROUP:
            # A part of a cgroup's path, which crun takes as it is.
            foreign = "/" in str(value) or str(value) in (".", "..")
        else:
            foreign = name.startswith(_FOREIGN) and name not in HARMLESS
        if foreign or name in _FOREIGN_NAMES:
            raise RefusedError(
                f"{_PREFIX}eci containers can't have the annotation {name} (because it changes "
                "what the runtime does)"
            )


def refuse_insecure_build(bundle: str, capabilities: Container[str]) -> None:
    """Raise RefusedError if this is a step of BuildKit's with `RUN --security=insecure`.  Pure.

    BuildKit makes its bundles in a directory of its own, and gives CAP_SYS_ADMIN to such steps
    and no others.  `capabilities`: the bounding set.
    """
    parts = bundle.split("/")
    if "buildkit" in parts[:-2] and parts[-2] == "executor" and "CAP_SYS_ADMIN" in capabilities:
        raise RefusedError(
            f"{_PREFIX}eci containers can't have the build entitlement security.insecure",
            refusals.INSECURE_BUILD,
        )
