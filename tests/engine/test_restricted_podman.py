"""The restricted socket before podman's service, which no container is given any more."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.podman import PODMAN, Podman
from tests.support.restricted import Clients, Restricted, request
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place
    from tests.support.restricted import Answer

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


def test_podmans_own_way_to_build_is_not_found(
    podman: Podman, place: Place, runtimes: dict[str, Path]
) -> None:
    """It takes the query for part of the path, and then builds as root of the host if asked to."""
    archive = io.BytesIO()
    file = b"FROM box\nRUN cat /proc/self/uid_map\n"
    with tarfile.open(fileobj=archive, mode="w") as context:
        header = tarfile.TarInfo("Dockerfile")
        header.size = len(file)
        context.addfile(header, io.BytesIO(file))
    data = archive.getvalue()

    def build(one: Clients, query: str) -> Answer:
        head = request("POST", f"/build?t=own&isolation=chroot&{query}", b"")[:-2]
        return one.send(head + b"Content-Length: %d\r\n\r\n" % len(data) + data, "POST")

    with _service(podman, runtimes["eci"]) as upstream:
        one = Restricted(place, upstream, "allow", ("build",), runtime="oci")
        answers = [build(one, query) for query in ("zz=/libpod/", "q=/libpod/")]
        one.close()
        direct = build(Clients(str(upstream)), "zz=/libpod/")
    assert [answer.status for answer in answers] == [403, 403]
    assert direct.status == 200
    assert b"4294967295" in direct.body
    podman.podman("rmi", "-f", "own", runtime="runc")
