"""Which image a container is made of, read from the store of the engine that makes it.

Which engine that is, tell the bundle and the root file system, whose places engines choose.  What
a user may write into a bundle decides nothing: `docker run --annotation` can set Kubernetes' image
name, and /etc/hosts can be a volume.
"""

from __future__ import annotations

from eci_supervisor.engines import bolt, containerd_images, docker_images, podman_images
from eci_supervisor.engines.store import Container, Found, shown

_STORES = (docker_images.find, podman_images.find, containerd_images.find)


def find(container: Container) -> Found:
    """Return the container's image; without one where no store knows it, or none can be read."""
    for look in _STORES:
        try:
            found = look(container)
        except (OSError, ValueError, bolt.BoltError):  # a path can have a NUL
            found = None
        if found is not None:
            return found
    return Found("none", None, shown(container.called, None))
