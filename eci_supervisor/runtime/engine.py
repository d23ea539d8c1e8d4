"""What an engine has on record about a container, found from its bundle.

Docker puts neither the image nor the list of `--device` into the bundle.  Its record lies
beside the file that it binds to /etc/hosts: `<data root>/containers/<id>/hostconfig.json`.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from eci_supervisor.runtime.spec import Spec, items

HOSTS = "/etc/hosts"
_LIMIT = 4 * 1024 * 1024


def record_directory(spec: Spec, container_id: str) -> str | None:
    """Return the engine's directory of this container, or None where there is no such.  Pure."""
    for mount in items(spec, "mounts", dict):
        source = mount.get("source")
        if mount.get("destination") == HOSTS and isinstance(source, str) and source.startswith("/"):
            directory = os.path.dirname(source)
            # Only the directory that the engine named for this container, not a user's /etc/hosts.
            return directory if os.path.basename(directory) == container_id else None
    return None


_IMAGE_NAMES = (
    "io.kubernetes.cri.image-name",  # containerd's CRI plugin
    "io.kubernetes.cri-o.ImageName",
)


def image_name(spec: Spec) -> str:
    """Return the image's name, where the engine wrote it into the bundle; else nothing.  Pure."""
    annotations = spec.get("annotations")
    if not isinstance(annotations, dict):
        return ""
    return next((str(annotations[key]) for key in _IMAGE_NAMES if key in annotations), "")


def recorded_image(directory: str | None) -> str:
    """Return the image's name in Docker's record of a container, for people; else nothing.

    `directory`: as `record_directory` has it.
    """
    if directory is None:
        return ""
    try:
        with open(f"{directory}/config.v2.json", "rb") as file:
            record: Any = msgspec.json.decode(file.read(_LIMIT))
    except (OSError, msgspec.DecodeError):
        return ""
    config = record.get("Config") if isinstance(record, dict) else None
    image = config.get("Image") if isinstance(config, dict) else None
    return image if isinstance(image, str) else ""


def named_devices(spec: Spec, container_id: str) -> list[str] | None:
    """Return the paths, inside the container, of the devices named with `--device`.

    None where there is no record: other engines than Docker, or no /etc/hosts.  A record that
    cannot be read counts as one that names none.
    """
    directory = record_directory(spec, container_id)
    if directory is None:
        return None
    try:
        with open(f"{directory}/hostconfig.json", "rb") as file:
            record: Any = msgspec.json.decode(file.read(_LIMIT))
    except (OSError, msgspec.DecodeError):
        return None
    devices = record.get("Devices") if isinstance(record, dict) else None
    if not isinstance(devices, list):
        return []
    paths = [device.get("PathInContainer") for device in devices if isinstance(device, dict)]
    return [path for path in paths if isinstance(path, str)]
