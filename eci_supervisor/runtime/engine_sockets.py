"""Who may have the socket of a container engine: `dockerSocketMount.imageList`, at create.

Whoever has such a socket has the host.  So a mount that shows one is refused unless the image of
the container is allowed; and then the container gets, in its place, one that passes on only what
the command list lets through.
"""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.policy import refusals
from eci_supervisor.runtime import overlay, ranges, state
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import RefusedError, StageError
from eci_supervisor.runtime.stage import root_mount

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.sockets import Exposed, Host
    from eci_supervisor.engines.store import Container
    from eci_supervisor.policy.images import Entry
    from eci_supervisor.policy.settings import CommandList, ImageList
    from eci_supervisor.runtime.overlay import Layers
    from eci_supervisor.runtime.sources import Sources
    from eci_supervisor.runtime.spec import Spec

IMAGE_NAME = "io.kubernetes.cri.image-name"
_PREFIX = "enhanced container isolation: docker socket mount denied for container with image "


class SocketRefusedError(RefusedError):
    """A mount shows an engine's socket to a container that may not have it."""

    reason = refusals.ENGINE_SOCKET


class Replaced(msgspec.Struct, frozen=True):
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
        f'{_PREFIX}"{image}"; {exposed.path} is a socket of {exposed.engine}, and only '
        "Docker's Engine API can be restricted to commands: mount Docker's socket instead"
    )


class Judge:
    """Judges the mounts of one container.  To be used in the engine's mount namespace."""

    def __init__(
        self, sources: Sources, container: Callable[[], Container], allowed: ImageList
    ) -> None:
        """`container` is asked when it matters which image the container has."""
        self._sources = sources.all
        self._container = container
        self._allowed = allowed

    @functools.cached_property
    def _host(self) -> Host:
        from eci_supervisor.engines.sockets import Host  # noqa: PLC0415 - seldom wanted

        first, count = ranges.limits(os.environ.get("ECI_RANGES"))
        return Host(range(first, first + count * ranges.SIZE, ranges.SIZE), state.root())

    @functools.cached_property
    def _image(self) -> str:
        """How the container's image is called, if it is allowed; else SocketRefusedError."""
        return _refuse_image(self._container(), self._allowed)

    def sockets(self) -> tuple[Replaced, ...]:
        """Return which mounts are to be replaced, as they are an engine's socket.

        SocketRefusedError if the container may not have it.
        """
        found = []
        for source in self._sources:
            exposed = self._host.exposed(source.fd) if stat.S_ISSOCK(source.mode) else None
            if exposed is None:
                continue
            if self._image and not exposed.speaks_docker:
                raise SocketRefusedError(_denied_other(self._image, exposed))
            info = os.fstat(source.fd)
            mode = stat.S_IMODE(info.st_mode)
            found.append(Replaced(source.index, exposed.path, info.st_uid, info.st_gid, mode))
        if len({one.upstream for one in found}) > 1:
            message = f'{_PREFIX}"{self._image}"; a container gets the socket of one engine only'
            raise SocketRefusedError(message)
        return tuple(found)

    def directories(self, root: bytes | None) -> None:
        """Raise SocketRefusedError for a directory with an engine's socket in it.

        `root`: path of a root file system that is a directory of the host's, and so shows what is
        mounted in it; None where it is layers of an engine's.
        """
        for source in self._sources:
            if stat.S_ISDIR(source.mode):
                self._directory(source.fd, source.written)
        if root is not None:
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._directory(fd, os.fsdecode(root))
            finally:
                os.close(fd)

    def _directory(self, fd: int, written: str) -> None:
        exposed = self._host.exposed(fd)
        if exposed is not None:
            raise SocketRefusedError(_denied_within(self._image, written, exposed.path))


class Holder(msgspec.Struct, frozen=True):
    """The container that gets a restricted socket."""

    id: str
    """As its engine knows it."""
    state_dir: str
    base: int
    """Host id of its root where the engine itself has shifted the files; else 0, as what is
    mounted is ID-mapped."""


def serve(
    replaced: tuple[Replaced, ...], sources: Sources, commands: CommandList, holder: Holder
) -> None:
    """Start the restricted socket of a container, and have it mounted in place of the engine's.

    It ends when the state directory is removed.
    """
    from eci_supervisor.socket import launch  # noqa: PLC0415 - seldom wanted

    first = replaced[0]
    path = launch.start(
        holder.state_dir,
        first.upstream,
        commands,
        container=holder.id,
        uid=holder.base + first.uid,
        gid=holder.base + first.gid,
        mode=first.mode,
    )
    for one in replaced:
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

    if layers is None:
        layers = _layers(root)  # not asked for where the engine has shifted the files
    called = oci.part(spec, "annotations", dict).get(IMAGE_NAME)
    upper = None if layers is None else layers.upper
    paths = () if layers is None else (*([upper] if upper else []), *layers.lower)
    return Container(
        id=container_id,
        bundle=os.path.realpath(bundle),
        root=os.fsdecode(root),
        layers=tuple(map(os.fsdecode, paths)),
        upper=os.path.realpath(os.fsdecode(upper)) if upper else "",
        called=called if isinstance(called, str) else "",
    )


def _layers(root: bytes) -> Layers | None:
    """Return the layers of a root file system; None where it is no overlay of which to find any."""
    try:
        mount = root_mount(root)
        return None if mount is None else overlay.layers(mount)
    except (OSError, StageError):
        return None
