"""Who may have the socket of a container engine: `dockerSocketMount.imageList`, at create.

Whoever has such a socket has the host.  So a mount that shows one is refused unless the image of
the container is allowed; and then the container gets, in its place, one that passes on only what
the command list lets through.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.runtime import ranges, state
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.sockets import Exposed
    from eci_supervisor.engines.store import Container
    from eci_supervisor.policy.images import Entry
    from eci_supervisor.policy.settings import CommandList, ImageList
    from eci_supervisor.runtime.overlay import Layers
    from eci_supervisor.runtime.sources import Source, Sources
    from eci_supervisor.runtime.spec import Spec

IMAGE_NAME = "io.kubernetes.cri.image-name"
_PREFIX = "enhanced container isolation: docker socket mount denied for container with image "


class SocketRefusedError(RefusedError):
    """A mount shows an engine's socket to a container that may not have it."""

    reason = "refused:engine-socket"


class Restricted(msgspec.Struct, frozen=True):
    """A mount in place of which the container gets a restricted socket."""

    index: int
    """In mounts[]."""
    upstream: str
    """Path of the engine's socket, in the engine's mount namespace."""
    uid: int
    gid: int
    """Who owns it, ids of the host."""
    mode: int


def denied(image: str) -> str:
    """Return the text of the refusal, in the wording that users know.  Pure."""
    return (
        f'{_PREFIX}"{image}"; image is not in the allowed list; if you wish to allow it, '
        "configure the docker socket image list in the admin-settings."
    )


def _denied_within(image: str, written: str, path: str) -> str:
    return (
        f'{_PREFIX}"{image}"; {written} is a directory with the engine socket {path} in it, and '
        "an allowed image gets a restricted socket in place of the engine's: mount the socket "
        "itself"
    )


def _denied_other(image: str, exposed: Exposed) -> str:
    return (
        f'{_PREFIX}"{image}"; {exposed.path} is a socket of {exposed.engine}, and only the '
        "Engine API (docker, podman) can be restricted to commands: mount that instead"
    )


def judge(
    spec: Spec,
    sources: Sources,
    container: Callable[[], Container],
    root: int | None,
    allowed: ImageList,
) -> tuple[Restricted, ...]:
    """Return which mounts are to be replaced; SocketRefusedError if the container may not have one.

    `root`: a descriptor, the caller's, of a root file system that is a directory of the host's,
    and so shows what is mounted in it; None where it is layers of an engine's.  To be called in
    the engine's mount namespace.
    """
    candidates = [
        source for source in sources.all if stat.S_ISSOCK(source.mode) or stat.S_ISDIR(source.mode)
    ]
    if not candidates and root is None:
        return ()
    from eci_supervisor.engines.sockets import Host  # noqa: PLC0415 - seldom wanted

    first, count = ranges.limits(os.environ.get("ECI_RANGES"))
    host = Host(range(first, first + count * ranges.SIZE), state.root())
    found = [(source, host.exposed(source.fd)) for source in candidates]
    shown = [(source, exposed) for source, exposed in found if exposed is not None]
    beneath_root = None if root is None else host.exposed(root)
    if not shown and beneath_root is None:
        return ()
    image = _refuse_image(container(), allowed)
    if beneath_root is not None:
        path = str(oci.part(spec, "root", dict).get("path"))
        raise SocketRefusedError(_denied_within(image, path, beneath_root.path))
    for source, exposed in shown:
        if not exposed.itself:
            raise SocketRefusedError(_denied_within(image, source.written, exposed.path))
        if not exposed.speaks_docker:
            raise SocketRefusedError(_denied_other(image, exposed))
    if len({exposed.path for _, exposed in shown}) > 1:
        raise SocketRefusedError(f'{_PREFIX}"{image}"; a container gets the socket of one engine')
    return tuple(_restricted(source, exposed) for source, exposed in shown)


def _restricted(source: Source, exposed: Exposed) -> Restricted:
    info = os.fstat(source.fd)
    mode = stat.S_IMODE(info.st_mode)
    return Restricted(source.index, exposed.path, info.st_uid, info.st_gid, mode)


class Holder(msgspec.Struct, frozen=True):
    """The container that gets a restricted socket."""

    id: str
    """As its engine knows it."""
    state_dir: str
    base: int
    """Host id of its root where the engine itself has shifted the files; else 0, as what is
    mounted is ID-mapped."""


def serve(
    restricted: tuple[Restricted, ...], sources: Sources, commands: CommandList, holder: Holder
) -> None:
    """Start the restricted socket of a container, and have it mounted in place of the engine's.

    It ends when the state directory is removed.
    """
    from eci_supervisor.socket import launch  # noqa: PLC0415 - seldom wanted

    first = restricted[0]
    path = launch.start(
        holder.state_dir,
        first.upstream,
        commands,
        container=holder.id,
        uid=holder.base + first.uid,
        gid=holder.base + first.gid,
        mode=first.mode,
    )
    for one in restricted:
        sources.replace(one.index, path)


def _refuse_image(container: Container, allowed: ImageList) -> str:
    """Return how the container's image is called, if it is allowed; else SocketRefusedError."""
    from eci_supervisor.engines import identity  # noqa: PLC0415 - seldom wanted
    from eci_supervisor.policy import images  # noqa: PLC0415 - seldom wanted

    entries = tuple(map(_entry, allowed.images))
    found = identity.find(container)
    if images.allows_every(entries):
        return found.shown
    if found.image is None:
        raise SocketRefusedError(denied(found.shown))
    if images.allows(entries, found.image):
        return found.shown
    if allowed.allow_derived_images and images.is_derived(found.image, found.others(), entries):
        return found.shown
    raise SocketRefusedError(denied(found.shown))


def _entry(text: str) -> Entry:
    """Read an entry of the allow-list; SettingsError where it is none."""
    from eci_supervisor.policy import images, settings  # noqa: PLC0415 - seldom wanted

    try:
        return images.parse_entry(text)
    except ValueError as error:
        raise settings.SettingsError(f"dockerSocketMount.imageList.images: {error}") from error


def container_of(
    spec: Spec, container_id: str, bundle: str, root: bytes, layers: Layers | None
) -> Container:
    """Return what tells the container's image: of its bundle, and of its root's layers."""
    from eci_supervisor.engines.store import Container  # noqa: PLC0415 - seldom wanted

    called = oci.part(spec, "annotations", dict).get(IMAGE_NAME)
    paths = () if layers is None else (*([layers.upper] if layers.upper else []), *layers.lower)
    return Container(
        id=container_id,
        bundle=os.path.realpath(bundle),
        root=os.fsdecode(root),
        layers=tuple(map(os.fsdecode, paths)),
        called=called if isinstance(called, str) else "",
    )
