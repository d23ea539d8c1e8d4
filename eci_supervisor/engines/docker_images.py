"""Docker's own store of images, as dockerd keeps it with its graph drivers (image/DRIVER).

    DATA-ROOT/containers/ID/config.v2.json       the container: Image, Config.Image, Driver
    DATA-ROOT/image/DRIVER/repositories.json     names: repository → name:tag or name@digest → id
    DATA-ROOT/image/DRIVER/imagedb/content/sha256/HEX   an image's configuration; HEX is its id

A `name@digest` is written where an image has been pulled from a registry or pushed to one, and
nowhere else: `tag`, `load`, `import` and `build` make none.  All are replaced by rename(2).

All of it is believed only where the root file system is an overlay, mounted in the data root, and
a configuration only if HEX is its digest.

Where the images are containerd's (Docker 29, or the containerd-snapshotter feature) there is no
such directory, and `Image` is the digest of a manifest or an index.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from eci_supervisor.engines import containerd_images
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
from eci_supervisor.policy import images
from eci_supervisor.policy.images import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTENT = "imagedb/content/sha256"


def find(container: Container) -> Found | None:
    """Return the image of a container of Docker's, or None where it is none.

    Docker chooses where the root file system is mounted, below its data root; and a container's
    record there has its id, which Docker chooses, too.
    """
    record_path = f"containers/{container.id}/config.v2.json"
    data_root = above(container.root, record_path)
    if data_root is None:
        return None
    record = document(f"{data_root}/{record_path}")
    if field(record, "ID") != container.id:
        return None
    image_id, typed = text(field(record, "Image")), text(field(record, "Config", "Image"))
    store = f"{data_root}/image/{os.path.basename(text(field(record, 'Driver')))}"
    if not os.path.isdir(f"{store}/{_CONTENT}") and container.layers:
        return containerd_images.by_digest(container, image_id, typed)
    if not container.is_mounted_by_driver:
        return Found("docker", None, shown(typed, None))
    names = _names(document(f"{store}/repositories.json"))
    image = _image(store, image_id, names)
    return Found("docker", image, shown(typed, image), lambda: _all(store, names))


def _names(record: Any) -> dict[str, tuple[set[str], set[str]]]:
    """Return the names and the origins of each image id."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    repositories = field(record, "Repositories")
    for entries in repositories.values() if isinstance(repositories, dict) else ():
        for name, image_id in entries.items() if isinstance(entries, dict) else ():
            names, origins = found.setdefault(text(image_id), (set(), set()))
            try:
                reference = images.parse_reference(name)
            except ValueError:
                continue
            if reference.digest:
                origins.add(f"{reference.repository}@{reference.digest}")
            else:
                names.add(tag_of(name))
    return found


def _image(store: str, image_id: str, names: dict[str, tuple[set[str], set[str]]]) -> Image | None:
    kind, _, hexadecimal = image_id.partition(":")
    if kind != "sha256" or not hexadecimal.isalnum():
        return None
    config = document(f"{store}/{_CONTENT}/{hexadecimal}", hexadecimal)
    if config is None:
        return None
    called, origins = names.get(image_id, (set(), set()))
    return Image(
        id=image_id,
        layers=diff_ids(config),
        names=frozenset(called),
        origins=frozenset(origins),
    )


def _all(store: str, names: dict[str, tuple[set[str], set[str]]]) -> Iterator[Image]:
    for hexadecimal in os.listdir(f"{store}/{_CONTENT}"):
        image = _image(store, f"sha256:{hexadecimal}", names)
        if image is not None:
            yield image
