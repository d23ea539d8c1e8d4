"""A dockerd with a Debian in it, and containers of that in which real programs run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.debian import debian
from tests.support.docker import Dockerd
from tests.support.engines import programs, runtime, runtimes
from tests.support.workload import Workloads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.debian import Debian
    from tests.support.place import Place

__all__ = ["programs", "runtime", "runtimes"]


@pytest.fixture(scope="session")
def kept_debian() -> Debian:
    """The machine's Debian for tests, which the first session on a machine makes."""
    return debian()


@pytest.fixture(scope="session")
def dockerd(place: Place, runtimes: dict[str, Path], kept_debian: Debian) -> Iterator[Dockerd]:
    """A running dockerd with the image `debian` and `eci` as its default runtime."""
    with Dockerd(place, runtimes, "eci") as daemon:
        daemon.import_archive(kept_debian.archive, "debian")
        yield daemon


@pytest.fixture(scope="session")
def workloads(dockerd: Dockerd) -> Workloads:
    """A maker of containers."""
    return Workloads(dockerd)


@pytest.fixture(scope="module", autouse=True)
def _no_container_or_volume_left(dockerd: Dockerd) -> Iterator[None]:
    """Every container and volume is gone; what they kept outside is looked for by others."""
    yield
    left = dockerd.out("ps", "-aq").split() + dockerd.out("volume", "ls", "-q").split()
    assert left == []
