"""The socket of an engine in a pod: whose image it is, containerd's own store says."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.containerd import IMAGE, Containerd
from tests.support.cri import CriError
from tests.support.programs import compile_programs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

DENIED = (
    'docker socket mount denied for container with image "docker.io/library/box"; image is not in '
    "the allowed list"
)


def manifest_of(engine: Containerd, image: str) -> str:
    """Return the digest that the image's name stands for."""
    words = ["ctr", "-a", str(engine.socket), "-n", "k8s.io", "images", "ls", f"name=={image}"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[1].split()[2]


def test_a_pod_gets_an_engines_socket_by_its_images_digest(
    place: Place,
    runtimes: dict[str, Path],
    busybox_root: Path,
    dockerd: Dockerd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sock = compile_programs(place.directory("t"), ("sock",))["sock"]
    settings = place.directory("s") / "settings.json"
    monkeypatch.setenv("ECI_SETTINGS", str(settings))

    def allow(*images: str) -> None:
        image_list = {"images": images}
        settings.write_text(
            json.dumps(
                {
                    "enhancedContainerIsolation": {"dockerSocketMount": {"imageList": image_list}},
                    "vm": {"protectedPaths": [], "sharedPaths": ["/"]},
                }
            )
        )

    def mount(source: Path, destination: str) -> dict[str, str]:
        return {"container_path": destination, "host_path": str(source)}

    allow("box", "box:*")  # which no registry knows
    with Containerd(place, runtimes, "eci") as engine:
        engine.import_images(busybox_root)
        with engine.pod() as pod:
            mounts = [mount(dockerd.socket, "/s"), mount(sock.parent, "/t")]
            for one in (mounts, [mount(engine.socket, "/s")]):
                with pytest.raises(CriError, match=DENIED):
                    pod.start(mounts=one)
            allow(f"box@{manifest_of(engine, IMAGE)}")
            assert engine.out(pod.start(mounts=mounts), "/t/sock", "ask", "/s") == "engine"
