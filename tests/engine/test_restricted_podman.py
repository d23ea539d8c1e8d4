"""The restricted socket before podman's service, which no container is given any more."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.podman import PODMAN, Podman
from tests.support.restricted import Restricted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]


@contextmanager
def _service(podman: Podman, runtime: Path | str) -> Iterator[Path]:
    """Run podman's service with that default runtime; yields its socket."""
    path = podman.place.directory("ps") / "s"
    words = podman.words(runtime)
    argv = [PODMAN, *words, "system", "service", "--time=0", f"unix://{path}"]
    with subprocess.Popen(argv, env=os.environ | podman.environment) as process:
        try:
            wait_until(path.exists, "podman's service listens")
            yield path
        finally:
            process.terminate()


def test_nothing_is_created_by_podman(
    podman: Podman, place: Place, runtimes: dict[str, Path]
) -> None:
    """Its socket is refused at create; and should it take the place of Docker's, later on."""
    words = (*podman.run_words(), "box", "sleep", "1000")
    own = podman.podman("run", "-d", *words, runtime=runtimes["eci"]).stdout.strip()
    host = {"NetworkMode": "none", "CgroupParent": f"/{place.cgroup}"}
    create = {"Image": "box", "Cmd": ["true"], "HostConfig": host}
    with _service(podman, runtimes["eci"]) as upstream:
        one = Restricted(place, upstream, container=own, runtime=None)
        answer = one.ask("POST", "/v1.41/containers/create", json.dumps(create).encode())
        one.close()
    assert answer.status == 502
    assert "podman, whose API cannot be restricted" in answer.message
    podman.podman("rm", "--force", "--time=0", own, runtime=runtimes["eci"])
