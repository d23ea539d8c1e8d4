"""The restricted socket before podman's service, which speaks docker's API beside its own."""

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


def test_what_is_created_is_protected_or_not_created(
    podman: Podman, place: Place, runtimes: dict[str, Path]
) -> None:
    eci = runtimes["eci"]
    words = (*podman.run_words(), "box", "sleep", "1000")
    own = podman.podman("run", "-d", *words, runtime=eci).stdout.strip()
    host = {"NetworkMode": "none", "CgroupParent": f"/{place.cgroup}"}
    create = {"Image": "box", "Cmd": ["cat", "/proc/self/uid_map"], "HostConfig": host}
    for runtime in (eci, "runc"):
        with _service(podman, runtime) as upstream:
            one = Restricted(place, upstream, container=own, runtime=None)
            answer = one.ask("POST", "/v1.41/containers/create", json.dumps(create).encode())
            assert one.ask("GET", "/v4.3.1/libpod/info").status == 403
            assert one.ask("GET", f"/containers/{own}/archive?path=/etc/passwd").status == 200
            one.close()
        if runtime == "runc":
            assert answer.status == 502
            assert "without protection" in answer.message
        else:
            made = json.loads(answer.body)["Id"]
            shown = podman.podman("start", "-a", made, runtime="runc").stdout.split()
            assert shown[0] == "0"
            assert int(shown[1]) >= 100_000
    podman.podman("rm", "--force", "--time=0", own, runtime=eci)
