"""What all stores of images are asked, and what they answer.

A store is read from the disk, never by asking its engine: that holds a lock on the container
while it has it created.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable  # noqa: TC003 - msgspec asks for it
from typing import Any

import msgspec

from eci_supervisor.policy import images
from eci_supervisor.policy.images import Image  # noqa: TC001 - msgspec asks for it

LIMIT = 16 << 20
"""Bytes of one document."""
UNKNOWN = "unknown"


class Container(msgspec.Struct, frozen=True):
    """What can be known from the bundle of the container whose image is asked for."""

    id: str
    bundle: str
    root: str
    """Real path of the root file system that the engine has mounted."""
    layers: tuple[str, ...] = ()
    """Paths of its layers, where it is an overlay."""
    upper: str = ""
    """Real path of the layer that it writes to, where it is an overlay."""
    called: str = ""
    """What the bundle's annotations say of the image: only to be shown."""

    @property
    def is_mounted_by_driver(self) -> bool:
        """Whether the root is an overlay that a graph driver has mounted, beside its upper layer.

        Only then are the directories above it an engine's.  A root that is a mere directory
        (`podman create --rootfs`) may lie where containers write, and a forged store with it:
        whose the files are says nothing, since what a container makes in a volume is root's.
        """
        return self.upper != "" and os.path.dirname(self.upper) == os.path.dirname(self.root)


class Found(msgspec.Struct, frozen=True):
    """The image of a container."""

    engine: str
    """docker, containerd or podman."""
    image: Image | None
    """None: it has none, or the store does not tell."""
    shown: str
    """How it is called in a message."""
    others: Callable[[], Iterable[Image]] = tuple
    """All images of the same store."""


def document(path: str, sha256: str = "") -> Any:
    """Return a JSON document of a store; None where there is none, or it is no JSON.

    `sha256`: of its content, in hexadecimal; if it has another one, it is none.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LIMIT)
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            return None
        return msgspec.json.decode(content)
    except (OSError, ValueError, msgspec.DecodeError, RecursionError):  # a path can have a NUL
        return None


def field(value: object, *keys: str) -> Any:
    """Return what lies at a path of keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(value: object) -> str:
    """Return a string as it is, and anything else as an empty one."""
    return value if isinstance(value, str) else ""


def texts(value: object) -> tuple[str, ...]:
    """Return an array of strings; empty unless all of it are."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()


def diff_ids(config: object) -> tuple[str, ...]:
    """Return the layers that an image's configuration lists (image-spec, config.md)."""
    return texts(field(config, "rootfs", "diff_ids"))


def tag_of(name: str) -> str:
    """Return a name as `Image.names` has it; empty where it is none."""
    try:
        reference = images.parse_reference(name)
    except ValueError:
        return ""
    return "" if reference.digest else f"{reference.repository}:{reference.tag}"


def shown(typed: str, image: Image | None) -> str:
    """Return how an image is called in a message: its repository, or else its id.

    `typed`: what the user has called it, which may be a part of its id.
    """
    if image is None or not image.id.removeprefix("sha256:").startswith(
        typed.removeprefix("sha256:") or " "
    ):
        try:
            return images.parse_reference(typed).repository
        except ValueError:
            pass
    if image is None:
        return typed or UNKNOWN
    return min((name.rpartition(":")[0] for name in image.names), default=image.id)


def above(path: str, inner: str) -> str | None:
    """Return the lowest directory above `path` that has `inner` in it, or None."""
    while path not in ("/", ""):
        path = os.path.dirname(path)
        if os.path.exists(os.path.join(path, inner)):
            return path
    return None
