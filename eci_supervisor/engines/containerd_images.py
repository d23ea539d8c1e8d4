"""containerd's store of images: Kubernetes (CRI), nerdctl, ctr, and newer Dockers.

    ROOT/io.containerd.metadata.v1.bolt/meta.db   names, containers, snapshots, labels (bolt.py)
    ROOT/io.containerd.content.v1.content/blobs/sha256/HEX   manifests and configurations

containerd holds the lock of its database as long as it runs; bolt.py says why it can be read.

What a container's root file system is made of, its snapshot says: the parent is named by the
digest over its layers (chain id, image-spec config.md).  An image is the container's only if its
layers have that chain id; which image it is, by name, the container's record says.  Where content
came from, containerd has written on it when it was pulled: the label
`containerd.io/distribution.source.REGISTRY`, with the repositories.  REGISTRY has no port; so one
with a port is where an image came from if the image has its name, too.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, TypeVar

from eci_supervisor.engines import bolt
from eci_supervisor.engines.store import (
    Container,
    Found,
    above,
    diff_ids,
    document,
    field,
    shown,
    tag_of,
    text,
)
from eci_supervisor.policy.images import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eci_supervisor.engines.bolt import Bucket

DEFAULT_ROOT = "/var/lib/containerd"
DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
CONTENT = "io.containerd.content.v1.content/blobs"
TASKS = ("io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux")
SOURCE = b"containerd.io/distribution.source."
_VERSION = b"v1"
_DEEPEST = 3
"""Indices within indices."""

T = TypeVar("T")


def find(container: Container) -> Found | None:
    """Return the image of a container of containerd's, or None where it is none.

    containerd keeps a bundle in a directory with its namespace's and its own name.
    """
    tasks, namespace = os.path.split(os.path.dirname(container.bundle.rstrip("/")))
    if os.path.basename(tasks) not in TASKS:
        return None
    root = _root(container)
    if root is None:
        return Found("containerd", None, shown(container.called, None))
    store = _Store(root, namespace)
    name, image = store.read(lambda top: store.of_container(top, os.fsencode(container.id)))
    return Found("containerd", image, shown(container.called or name, image), store.all)


def by_digest(container: Container, digest: str, typed: str) -> Found:
    """Return the image that Docker calls by the digest of its manifest or index."""
    root = _root(container)
    if root is None:
        return Found("docker", None, shown(typed, None))
    namespace = os.path.basename(os.path.dirname(container.bundle.rstrip("/")))
    store = _Store(root, namespace)
    image = store.read(lambda top: store.of_digest(top, digest, os.fsencode(container.id)))
    return Found("docker", image, shown(typed, image), store.all)


def _root(container: Container) -> str | None:
    """Return containerd's --root: where its layers lie."""
    for path in container.layers:
        root = above(path, DATABASE)
        if root is not None:
            return root
    return DEFAULT_ROOT if os.path.exists(f"{DEFAULT_ROOT}/{DATABASE}") else None


def chain_id(layers: tuple[str, ...]) -> str:
    """Return the digest over layers: image-spec, config.md, "Layer ChainID".  Pure."""
    chain = ""
    for layer in layers:
        joined = f"{chain} {layer}".encode()
        chain = f"sha256:{hashlib.sha256(joined).hexdigest()}" if chain else layer
    return chain


def _value(bucket: Bucket | None, key: bytes) -> str:
    found = None if bucket is None else bucket.get(key)
    return "" if found is None else found.decode("utf-8", "replace")


def _without_port(repository: str) -> str:
    domain, slash, path = repository.partition("/")
    return f"{domain.partition(':')[0]}{slash}{path}"


class _Store:
    """One namespace of one containerd.  `top` is its bucket, None where there is none."""

    def __init__(self, root: str, namespace: str) -> None:
        self._root = root
        self._namespace = os.fsencode(namespace)

    def read(self, what: Callable[[Bucket | None], T]) -> T:
        """Return what `what` makes of one state of the database.

        BoltError, OSError.
        """
        return bolt.snapshot(
            f"{self._root}/{DATABASE}", lambda top: what(top.bucket(_VERSION, self._namespace))
        )

    def of_container(self, top: Bucket | None, key: bytes) -> tuple[str, Image | None]:
        """Return the name that the container's record has for its image, and the image."""
        record = None if top is None else top.bucket(b"containers", key)
        name = _value(record, b"image")
        target = None if top is None else top.bucket(b"images", name.encode(), b"target")
        return name, self.of_digest(top, _value(target, b"digest"), key)

    def of_digest(self, top: Bucket | None, digest: str, key: bytes) -> Image | None:
        """Return the image `digest` (a manifest or an index) that the container is made of."""
        if top is None or not digest:
            return None
        chain = self._parent(top, key)
        for image in self._images(top, digest):
            if chain and chain_id(image.layers) == chain:
                return image
        return None

    @staticmethod
    def _parent(top: Bucket, key: bytes) -> str:
        """Return the chain id of the layers beneath a container's own snapshot."""
        record = top.bucket(b"containers", key)
        snapshot = _value(record, b"snapshotKey").encode()
        snapshotter = _value(record, b"snapshotter").encode()
        return _value(top.bucket(b"snapshots", snapshotter, snapshot), b"parent")

    def all(self) -> list[Image]:
        """Return every image of which the configuration is there."""
        return self.read(self._all)

    def _all(self, top: Bucket | None) -> list[Image]:
        names = None if top is None else top.bucket(b"images")
        if top is None or names is None:
            return []
        digests = {_value(names.bucket(name, b"target"), b"digest") for name, _ in names.items()}
        return [image for digest in digests for image in self._images(top, digest)]

    def _images(self, top: Bucket, digest: str) -> Iterator[Image]:
        """Yield what an index or a manifest stands for: an image for each platform."""
        called = frozenset(self._names(top, digest))
        for manifest, chain in self._manifests(digest, (), set()):
            config = text(field(manifest, "config", "digest"))
            layers = diff_ids(self._content(config))
            if layers:
                origins = {one for each in chain for one in self._origins(top, each, called)}
                yield Image(config, layers, called, frozenset(origins), frozenset(chain))

    def _names(self, top: Bucket, digest: str) -> Iterator[str]:
        names = top.bucket(b"images")
        for name, _ in () if names is None else names.items():
            if _value(names.bucket(name, b"target"), b"digest") == digest:  # type: ignore[union-attr]
                tag = tag_of(name.decode("utf-8", "replace"))
                if tag:
                    yield tag

    @staticmethod
    def _origins(top: Bucket, digest: str, called: frozenset[str]) -> Iterator[str]:
        """Yield `repository@digest` for each repository that this content was pulled from."""
        labels = top.bucket(b"content", b"blob", digest.encode(), b"labels")
        names = {name.rpartition(":")[0] for name in called}
        for name, value in () if labels is None else labels.items():
            if name.startswith(SOURCE) and isinstance(value, bytes):
                registry = name.removeprefix(SOURCE).decode("utf-8", "replace")
                for path in value.decode("utf-8", "replace").split(","):
                    source = tag_of(f"{registry}/{path}").rpartition(":")[0]
                    for repository in {source, *(n for n in names if _without_port(n) == source)}:
                        if repository:
                            yield f"{repository}@{digest}"

    def _content(self, digest: str) -> object:
        kind, _, hexadecimal = digest.partition(":")
        if kind != "sha256" or not hexadecimal.isalnum():
            return None
        return document(f"{self._root}/{CONTENT}/{kind}/{hexadecimal}")

    def _manifests(
        self, digest: str, within: tuple[str, ...], seen: set[str]
    ) -> Iterator[tuple[object, tuple[str, ...]]]:
        """Yield each manifest that is there, with its digest and those of the indices around it.

        Once each: indices are anybody's who makes an image, and can name the same again and again.
        """
        if digest in seen:
            return
        seen.add(digest)
        chain = (*within, digest)
        content = self._content(digest)
        inner = field(content, "manifests")
        if isinstance(inner, list) and len(chain) <= _DEEPEST:
            for each in inner:
                yield from self._manifests(text(field(each, "digest")), chain, seen)
        elif field(content, "config") is not None:
            yield content, chain
