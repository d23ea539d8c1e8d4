"""Stores of images with anything in their files: an image is the one that its digest names.

And entries of the allow-list, against a reading of them as regular expressions.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from typing import TYPE_CHECKING

from eci_supervisor.engines import containerd_images, identity
from eci_supervisor.engines.store import Container, Found
from eci_supervisor.policy import images
from tests.fuzz.python.source import Source
from tests.support.bbolt import Database

if TYPE_CHECKING:
    from tests.support.bbolt import Tree

ID = "0123456789abcdef"
_ROOT = tempfile.TemporaryDirectory(prefix="eci-fuzz-images-")
_DOCKER, _PODMAN = f"{_ROOT.name}/docker", f"{_ROOT.name}/podman"
_CONTAINERD = f"{_ROOT.name}/containerd"


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def _mounted(layer: str) -> Container:
    os.makedirs(f"{layer}/merged", exist_ok=True)
    upper = f"{layer}/diff"
    return Container(ID, f"/run/tasks/moby/{ID}", f"{layer}/merged", layers=(upper,), upper=upper)


def _check(found: Found, contents: set[str]) -> None:
    every = [*([found.image] if found.image else []), *found.others()]
    for image in every:
        assert image.id in {*contents, ""}
        assert all(isinstance(layer, str) for layer in image.layers)
        for name in image.names:
            assert images.parse_reference(name).digest == ""
        for origin in image.origins:
            assert images.parse_reference(origin).digest
        assert not images.is_derived(image, [], [])


def _docker(source: Source) -> None:
    config = source.upto(b"\x1e")
    digest = hashlib.sha256(config).hexdigest()
    directory = f"{_DOCKER}/image/overlay2"
    content = f"{directory}/imagedb/content/sha256"
    record = source.upto(b"\x1e").replace(b"DIGEST", b"sha256:" + digest.encode())
    names = source.rest().replace(b"DIGEST", b"sha256:" + digest.encode())
    _write(f"{content}/{digest}", config)
    _write(f"{content}/{'a' * 64}", config)
    _write(f"{_DOCKER}/containers/{ID}/config.v2.json", record)
    _write(f"{directory}/repositories.json", names)
    container = _mounted(f"{_DOCKER}/overlay2/x")
    _check(identity.find(container), {f"sha256:{digest}"})
    os.unlink(f"{content}/{digest}")


def _podman(source: Source) -> None:
    config = source.upto(b"\x1e")
    digest = hashlib.sha256(config).hexdigest()
    store = f"{_PODMAN}/overlay-images"
    name = base64.b64encode(f"sha256:{digest}".encode()).decode()
    records = source.upto(b"\x1e").replace(b"DIGEST", digest.encode())
    known = source.rest().replace(b"DIGEST", digest.encode())
    _write(f"{store}/{digest}/={name}", config)
    _write(f"{_PODMAN}/overlay-containers/containers.json", records)
    _write(f"{store}/images.json", known)
    _check(identity.find(_mounted(f"{_PODMAN}/overlay/x")), {f"sha256:{digest}"})
    os.unlink(f"{store}/{digest}/={name}")


def _containerd(source: Source) -> None:
    """A manifest, two indices and a configuration; DIGEST0 … are their digests."""
    blobs = f"{_CONTAINERD}/{containerd_images.CONTENT}/sha256"
    digests: list[str] = []
    for _ in range(4):
        content = source.upto(b"\x1e")
        for number, digest in enumerate(digests):
            content = content.replace(b"DIGEST%d" % number, digest.encode())
        digests.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        _write(f"{blobs}/{digests[-1][7:]}", content)
    name, parent = source.upto(b"\x1e"), source.rest()
    record: Tree = {b"image": name, b"snapshotter": b"o", b"snapshotKey": b"k"}
    tree: Tree = {
        b"containers": {ID.encode(): record},
        b"images": {(name or b"x")[:200]: {b"target": {b"digest": digests[-1].encode()}}},
        b"content": {
            b"blob": {
                digests[-1].encode(): {
                    b"labels": {containerd_images.SOURCE + b"quay.io": name, b"x": b"y"}
                }
            }
        },
        b"snapshots": {b"o": {b"k": {b"parent": parent.replace(b"LAYER", b"sha256:" + b"1" * 64)}}},
    }
    _write(f"{_CONTAINERD}/{containerd_images.DATABASE}", Database({b"v1": {b"ns": tree}}).data())
    layer = f"{_CONTAINERD}/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"
    bundle = f"/run/io.containerd.runtime.v2.task/ns/{ID}"
    _check(identity.find(Container(ID, bundle, "/x/rootfs", (layer,))), set(digests))
    for digest in set(digests):
        os.unlink(f"{blobs}/{digest[7:]}")


def _pattern(repository: str) -> str:
    """Return a repository with `*` as a regular expression."""
    head, slash, last = repository.rpartition("/")
    if slash and last == images.ANY:
        return _pattern(head) + r"(/[^/]+)+"
    return "/".join("[^/]*".join(map(re.escape, part.split("*"))) for part in repository.split("/"))


def _entries(source: Source) -> None:
    entry, name = source.upto(b"\x1e").decode("latin-1"), source.rest().decode("latin-1")
    try:
        wanted, given = images.parse_entry(entry), images.parse_reference(name)
    except ValueError:
        return
    if wanted.repository == images.ANY:
        assert entry == images.ANY
        return
    matched = images.matches(wanted.repository, given.repository)
    assert matched == bool(re.fullmatch(_pattern(wanted.repository), given.repository))
    image = images.Image(
        id=f"sha256:{'0' * 64}",
        names=frozenset({f"{given.repository}:{given.tag}"}),
        origins=frozenset({f"{given.repository}@sha256:{'1' * 64}"}),
    )
    if images.allows([wanted], image) and not wanted.digest:
        assert matched
        assert wanted.tag in (images.ANY, given.tag)
    # A normalised name is the name of itself.
    again = images.parse_reference(f"{given.repository}:{given.tag}")
    assert (again.repository, again.tag) == (given.repository, given.tag)


def one(data: bytes) -> None:
    """The first byte says what the rest is."""
    source = Source(data)
    (_docker, _podman, _entries, _containerd)[source.number(4)](source)
