"""`eci enable` and `eci disable` on a real dockerd: whatever names a runtime is protected.

One dockerd tells the whole story, in the fixture: before, a container that stays, switched over,
status, that container anew, and back.  The tests look at what it wrote down.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.docker import DOCKER, IMAGE, SLEEP, Dockerd
from tests.support.result import require_success

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

ECI = os.path.join(os.path.dirname(sys.executable), "eci")
BARE = "0 0 4294967295"
CONFIG = """\
{
\t"live-restore": true,
\t"runtimes": { "mine": {"path": "runc"}, "other": {"path": "crun"} }
}"""

WAYS = {
    "default": (),
    "runc": ("--runtime=runc",),
    "v2": ("--runtime=io.containerd.runc.v2",),
    "mine": ("--runtime=mine",),
    "other": ("--runtime=other",),
    "privileged": ("--privileged", "--runtime=runc"),
}
"""Ways to ask for a runtime, with the flags of `docker run`."""
# Plain runc makes no privileged container without CAP_SYS_RESOURCE, plain crun none at all on
# hybrid cgroups.
BEFORE = {name: flags for name, flags in WAYS.items() if name not in ("privileged", "other")}


BACK = ("default", "runc")


class Plain(Dockerd):
    """A dockerd with the configuration of an administrator who has never heard of us."""

    def _write_config(self) -> None:
        (self.top / "daemon.json").write_text(CONFIG)


@dataclass
class Story:
    """What was seen."""

    config: Path
    library: Path
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    back: dict[str, str] = field(default_factory=dict)
    old: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    recreated: str = ""
    table: str = ""
    texts: list[bytes] = field(default_factory=list)

    def eci(self, *words: str) -> str:
        """Run the command to its end, with success."""
        flags = ["--docker-config", str(self.config)]
        done = subprocess.run(
            [ECI, *words, *flags],
            env=os.environ | {"ECI_LIBRARY": str(self.library)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        require_success(done, f"eci {words}")
        self.texts.append(self.config.read_bytes())
        return done.stdout


def uid_map(daemon: Dockerd, *flags: str) -> str:
    """Return the map of a new container, in one line."""
    words = ["run", "--rm", "--network=none", *flags, IMAGE, "cat", "/proc/self/uid_map"]
    return " ".join(daemon.out(*words).split())


def built_map(daemon: Dockerd, place: Place) -> str:
    """Return the map that a RUN of BuildKit sees."""
    context = place.directory("ctx")
    (context / "Dockerfile").write_text(
        f"FROM {IMAGE}\nRUN echo seen: $(cat /proc/self/uid_map) $RANDOM\n"
    )
    done = subprocess.run(
        [DOCKER, "build", "--no-cache", "--progress=plain", "--network=none", str(context)],
        env=daemon.environ() | {"DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    require_success(done, "docker build")
    seen = [line for line in done.stderr.splitlines() if " seen: " in line and "RUN" not in line]
    return " ".join(seen[0].partition(" seen: ")[2].split()[:3])


@pytest.fixture(scope="module")
def story(place: Place, busybox_root: Path) -> Iterator[Story]:
    """Tell it."""
    # BuildKit's own, which stays as long as dockerd's parent cgroup does.
    place.engine_cgroups.add("buildkit")
    with Plain(place, {}, "runc") as daemon:
        daemon.import_image(busybox_root)
        library = place.directory("lib") / "eci"
        told = Story(daemon.top / "daemon.json", library)
        told.before = {name: uid_map(daemon, *flags) for name, flags in BEFORE.items()}
        told.before["buildkit"] = built_map(daemon, place)
        told.old = daemon.out("run", "-d", "--name=old", "--network=none", IMAGE, "sh", "-c", SLEEP)
        told.eci("enable", "--engine=docker")
        daemon.restart({"PATH": f"{library}/path:{os.environ['PATH']}"})
        with daemon.container("--name=new", "--network=none", "--cap-add=SYS_ADMIN"):
            daemon.docker("exec", "new", "mount", "-t", "tmpfs", "none", "/mnt")
            told.status = json.loads(told.eci("status", "--json"))
            told.table = told.eci("status")
            told.after = {name: uid_map(daemon, *flags) for name, flags in WAYS.items()}
            told.after["buildkit"] = built_map(daemon, place)
        (command,) = (one["recreate"] for one in told.status["containers"] if one["id"] == told.old)
        program, *words = shlex.split(command)
        assert program == "docker"
        daemon.docker(*words)
        told.recreated = daemon.out("exec", "old", "cat", "/proc/self/uid_map")
        daemon.docker("rm", "-f", "old")
        told.eci("disable")
        daemon.restart({})
        told.back = {name: uid_map(daemon, *BEFORE[name]) for name in BACK}
        yield told


@pytest.mark.parametrize("way", [*BEFORE, "buildkit"])
def test_nothing_is_protected_before(story: Story, way: str) -> None:
    assert story.before[way] == BARE


@pytest.mark.parametrize("way", [*WAYS, "buildkit"])
def test_every_way_to_name_a_runtime_is_protected(story: Story, way: str) -> None:
    inside, outside, size = story.after[way].split()
    assert (inside, size) == ("0", "65536")
    assert int(outside) >= 100000


@pytest.mark.parametrize("way", BACK)
def test_disable_gives_back_what_was(story: Story, way: str) -> None:
    assert story.back[way] == BARE


def test_disable_leaves_the_file_byte_identical_and_nothing_of_ours(story: Story) -> None:
    assert story.texts[0] != CONFIG.encode()
    assert story.texts[-1] == CONFIG.encode()
    assert not story.library.exists()


def test_status_lists_a_container_from_before_as_unprotected(story: Story) -> None:
    (old,) = (one for one in story.status["containers"] if one["id"] == story.old)
    assert not old["protected"]
    assert old["name"] == "old"
    assert old["image"] == IMAGE
    assert old["engine"] == "docker"
    assert old["first_id"] is None
    assert "old is not protected: not started by eci-runtime" in story.table
    assert old["recreate"] in story.table


def test_the_command_that_status_names_protects_it(story: Story) -> None:
    assert story.recreated.split()[2] == "65536"


def test_status_shows_a_protected_container_with_its_supervisor(story: Story) -> None:
    (new,) = (one for one in story.status["containers"] if one["name"] == "new")
    assert new["protected"]
    assert new["why"] == "supervised"
    assert new["first_id"] >= 100000
    assert new["ids"] == 65536
    assert new["supervisor"] > 0
    assert new["calls"] >= 1
    assert new["refusals"] == 0
    assert new["recreate"] == ""


def test_status_sees_the_running_daemon(story: Story) -> None:
    (docker,) = (one for one in story.status["engines"] if one["name"] == "docker")
    assert docker["enabled"]
    assert docker["complete"]
    mine = [one for one in docker["processes"] if one["config"] == str(story.config)]
    assert [(one["shadowed"], one["current"]) for one in mine] == [(True, True)]
