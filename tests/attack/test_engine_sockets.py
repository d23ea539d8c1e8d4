"""An engine's socket in a container: every spelling of a mount, and images that pretend."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import Dockerd
from tests.support.programs import compile_programs
from tests.support.registry import registry_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.place import Place
    from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.engine]

DENIED = (
    'enhanced container isolation: docker socket mount denied for container with image "{}"; '
    "image is not in the allowed list; if you wish to allow it, configure the docker socket image "
    "list in the admin-settings."
)


class Engine(Dockerd):
    """A dockerd whose runtimes read settings that the tests write."""

    def allow(self, *images: str, derived: bool = False, **more: object) -> None:
        """Write the settings: these images, and every directory of the host."""
        image_list = {"images": images, "allowDerivedImages": derived}
        self.settings.write_text(
            json.dumps(
                {
                    "configurationFileVersion": 2,
                    "enhancedContainerIsolation": {
                        "dockerSocketMount": {"imageList": image_list, **more}
                    },
                    "vm": {"protectedPaths": [], "sharedPaths": ["/"]},
                }
            )
        )

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.top / "settings.json"

    def refusal(self, *words: str, image: str = "box", code: int = 125) -> str:
        """Run a container that does not start; return what the engine says of it."""
        done = self.docker("run", "--rm", *words, image, "true", check=False)
        assert done.returncode == code, done
        return done.stderr


@pytest.fixture(scope="module")
def engine(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Engine]:
    """A dockerd with `eci` as its default runtime and settings of its own."""
    daemon = Engine(place, runtimes, "eci")
    daemon.environment = {"ECI_SETTINGS": str(daemon.settings)}
    daemon.allow()
    with daemon:
        daemon.import_image(busybox_root)
        yield daemon


@pytest.fixture(scope="module")
def sock(place: Place) -> Path:
    """The program that connects and listens, in a directory of its own."""
    return compile_programs(place.directory("t"), ("sock",))["sock"]


@pytest.fixture(autouse=True)
def _nothing_allowed(engine: Engine) -> None:
    """Each test begins with an empty allow-list."""
    engine.allow()


@pytest.fixture(scope="module")
def spellings(engine: Engine, place: Place) -> Iterator[dict[str, tuple[str, str]]]:
    """Each way to show the socket: name → source of the mount, and where the socket is in it."""
    top, api = engine.top, engine.socket
    here = place.directory("x")
    (here / "link").symlink_to(api)
    (here / "links").symlink_to(top)
    (here / "hard").hardlink_to(api)
    (here / "hards/in").mkdir(parents=True)
    (here / "hards/in/other").hardlink_to(api)
    (here / "carried/in").mkdir(parents=True)
    (here / "tree/in/alias").mkdir(parents=True)
    (here / "alias").mkdir()
    for name in ("bound", "carried/in/s"):
        (here / name).touch()
    with ExitStack() as stack:
        for source, target in (
            (api, here / "bound"),
            (api, here / "carried/in/s"),
            (top, here / "alias"),
            (top, here / "tree/in/alias"),
        ):
            subprocess.run(["mount", "--bind", source, target], check=True)
            stack.callback(subprocess.run, ["umount", target], check=True)
        volume = engine.out(
            *("volume", "create", "--opt", "type=none", "--opt", "o=bind"),
            *("--opt", f"device={top}"),
        )
        yield {
            "the file": (f"{api}", ""),
            "dots": (f"{top}/./../{top.name}/d.sock", ""),
            "a symbolic link": (f"{here}/link", ""),
            "a hard link": (f"{here}/hard", ""),
            "a bind of it": (f"{here}/bound", ""),
            "through a process": (f"/proc/self/root{api}", ""),
            "its directory": (f"{top}", "/d.sock"),
            "a directory above": (f"{place.root}", f"/{top.name}/d.sock"),
            "a link to its directory": (f"{here}/links", "/d.sock"),
            "a bind of its directory": (f"{here}/alias", "/d.sock"),
            "a directory with a bind of it": (f"{here}/carried", "/in/s"),
            "a directory with a bind of its directory": (f"{here}/tree", "/in/alias/d.sock"),
            "a directory with a hard link": (f"{here}/hards", "/in/other"),
            "a volume that is its directory": (volume, "/d.sock"),
        }
        engine.docker("volume", "rm", volume)
    for name in ("hard", "hards/in/other"):
        (here / name).unlink()


SPELLINGS = (
    "the file", "dots", "a symbolic link", "a hard link", "a bind of it", "through a process",
    "its directory", "a directory above", "a link to its directory", "a bind of its directory",
    "a directory with a bind of it", "a directory with a bind of its directory",
    "a directory with a hard link", "a volume that is its directory",
)  # fmt: skip


def test_every_spelling_gives_the_engine_away_without_protection(
    engine: Engine, spellings: dict[str, tuple[str, str]], sock: Path
) -> None:
    assert tuple(spellings) == SPELLINGS
    words, paths = [], []
    for number, (source, inside) in enumerate(spellings.values()):
        words += ["-v", f"{source}:/x/{number}"]
        paths.append(f"/x/{number}{inside}")
    answers = engine.out(
        *("run", "--rm", "--runtime=runc", "-v", f"{sock.parent}:/t:ro", *words, "box"),
        *("/t/sock", "ask", *paths),
    )
    assert dict(zip(spellings, answers.split(), strict=True)) == dict.fromkeys(spellings, "engine")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_gets_through(
    engine: Engine, spellings: dict[str, tuple[str, str]], spelling: str
) -> None:
    said = engine.refusal("-v", f"{spellings[spelling][0]}:/x")
    assert f"OCI runtime create failed: {DENIED.format('docker.io/library/box')}" in said


def test_an_allowed_image_gets_a_restricted_socket(engine: Engine, sock: Path) -> None:
    engine.allow(f"box@{engine.inspect('box', '{{.Id}}')}", commandList={"commands": ["push"]})
    words = ("-v", f"{engine.socket}:/s", "-v", f"{sock.parent}:/t:ro")
    with engine.container(*words) as container:
        assert engine.out("exec", container, "/t/sock", "ask", "/s") == "engine"
        info = engine.out("exec", container, "stat", "-c", "%u %g %a %F", "/s")
        mode = oct(os.stat(engine.socket).st_mode & 0o777).removeprefix("0o")
        assert info == f"0 {os.stat(engine.socket).st_gid} {mode} socket"
