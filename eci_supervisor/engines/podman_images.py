"""The store of podman, buildah and CRI-O (containers/storage).

    GRAPHROOT/DRIVER/LAYER/merged                 the root file system
    GRAPHROOT/DRIVER-containers/containers.json   containers: id, image
    GRAPHROOT/DRIVER-images/images.json           images: id, names, digests of their manifests
    GRAPHROOT/DRIVER-images/ID/=BASE64            an image's configuration, under the name sha256:ID

The store does not say where an image came from: `podman tag` gives an image every name that there
is, and what `podman image inspect` shows as RepoDigests is those names with the image's own digest.
So no image has an origin here, and an entry of the allow-list has to name a digest.

All of it is believed only where the root file system is an overlay, mounted there, and a
configuration only if ID is its digest.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from eci_supervisor.engines.store import (
    Container,
    Found,
    diff_ids,
    document,
    field,
    shown,
    tag_of,
    text,
    texts,
)
from eci_supervisor.policy.images import Image

if TYPE_CHECKING:
    from collections.abc import Iterator


def find(container: Container) -> Found | None:
    """Return the image of a container of this store, or None where it is none."""
    mounts, _, merged = container.root.rpartition("/")
    driver_directory = os.path.dirname(mounts)
    graph_root, driver = os.path.split(driver_directory)
    containers = f"{graph_root}/{driver}-containers"
    if merged != "merged" or not driver or not os.path.isdir(containers):
        return None
    if not container.is_mounted_by_driver:
        return None
    for name in ("containers.json", "volatile-containers.json"):
        for record in _records(f"{containers}/{name}"):
            if field(record, "id") == container.id:
                return _found(f"{graph_root}/{driver}-images", record)
    return None


def _records(path: str) -> list[Any]:
    records = document(path)
    return records if isinstance(records, list) else []


def _found(store: str, container: object) -> Found:
    image_id = text(field(container, "image"))
    image = next((_image(store, each) for each in _listed(store, image_id)), None)
    typed = min(image.names, default="") if image is not None else ""
    return Found("podman", image, shown(typed, image), lambda: _all(store))


def _listed(store: str, image_id: str) -> Iterator[object]:
    for record in _records(f"{store}/images.json"):
        if image_id and field(record, "id") == image_id:
            yield record


def _image(store: str, record: object) -> Image:
    image_id = text(field(record, "id"))
    key = f"sha256:{image_id}"
    name = base64.b64encode(key.encode("utf-8", "surrogateescape")).decode("ascii")
    # Only where the id is the digest of the configuration: `buildah commit` may choose another.
    config = document(f"{store}/{os.path.basename(image_id)}/={name}", image_id)
    manifests = field(record, "big-data-digests")
    digests = {
        text(digest)
        for name, digest in (manifests.items() if isinstance(manifests, dict) else ())
        if name.startswith("manifest")
    }
    return Image(
        id=key if config is not None else "",
        layers=diff_ids(config),
        names=frozenset(filter(None, map(tag_of, texts(field(record, "names"))))),
        digests=frozenset(digests - {""}),
    )


def _all(store: str) -> Iterator[Image]:
    return (_image(store, record) for record in _records(f"{store}/images.json"))
