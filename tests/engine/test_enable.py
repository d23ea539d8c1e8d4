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
    "v1": ("--runtime=io.containerd.runtime.v1.linux",),
    "mine": ("--runtime=mine",),
    "other": ("--runtime=other",),
    "privileged": ("--privileged", "--runtime=runc"),
}
"""Ways to ask for a runtime, with the flags of `docker run`."""
# Plain runc makes no privileged container without CAP_SYS_RESOURCE, plain crun none at all on
# hybrid cgroups.
BEFORE = {name: flags for name, flags in WAYS.items() if name not in ("privileged", "other")}


UID_MAP = "/proc/self/uid_map"
BACK = ("default", "runc")


SHIM = """#!/bin/sh
echo run >> {marker}
exit 1
"""
"""A shim that would start containers without runc: that it ran is enough to know."""


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
    path: str = ""
    """PATH of an administrator and of the daemons, with a directory of a foreign shim."""
    root: Path | None = None
    """A root file system."""
    marker: Path | None = None
    """What that shim writes to when it runs."""
    shims: list[tuple[int, str]] = field(default_factory=list)
    """Before and after."""
    refusal: str = ""

    def eci(self, *words: str, code: int = 0) -> str:
        """Run the command to its end; returns what it printed, or, with `code`, its error."""
        flags = ["--docker-config", str(self.config)]
        done = subprocess.run(
            [ECI, *words, *flags],
            env=os.environ | {"ECI_LIBRARY": str(self.library), "PATH": self.path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if code:
            assert done.returncode == code
            return done.stderr
        require_success(done, f"eci {words}")
        self.texts.append(self.config.read_bytes())
        return done.stdout

    def shim_runs(self, daemon: Dockerd) -> tuple[int, str]:
        """Ask containerd for the foreign shim; returns how often it ran so far, and the answer.

        dockerd does so by `--runtime=io.containerd.other.v2`, but only from 23.0 on.
        """
        done = by_ctr(daemon, self.root, "io.containerd.other.v2")
        assert self.marker is not None
        runs = self.marker.read_text().count("run") if self.marker.exists() else 0
        return runs, done.stderr


def by_ctr(daemon: Dockerd, root: Path | None, runtime: str) -> subprocess.CompletedProcess[str]:
    """Have the daemon's containerd print the map of a container that Docker knows nothing of."""
    words = [
        "run",
        "--rm",
        "--rootfs",
        f"--runtime={runtime}",
        f"--cgroup={daemon.place.cgroup}/byctr",
    ]
    return subprocess.run(
        ["ctr", f"--address={daemon.top}/cd.sock", *words, str(root), "byctr", "/bin/cat", UID_MAP],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ctr_map(daemon: Dockerd, root: Path) -> str:
    """Return the map of such a container, in one line."""
    done = by_ctr(daemon, root, "io.containerd.runc.v2")
    require_success(done, "ctr run")
    return " ".join(done.stdout.split())


def uid_map(daemon: Dockerd, *flags: str) -> str:
    """Return the map of a new container, in one line."""
    words = ["run", "--rm", "--network=none", *flags, IMAGE, "cat", UID_MAP]
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
def story(place: Place, busybox_root: Path, bundle_root: Path) -> Iterator[Story]:
    """Tell it."""
    # BuildKit's own, which stays as long as dockerd's parent cgroup does.
    place.engine_cgroups.add("buildkit")
    foreign = place.directory("shims")
    marker = foreign / "marker"
    (foreign / "containerd-shim-other-v2").write_text(SHIM.format(marker=marker))
    (foreign / "containerd-shim-other-v2").chmod(0o755)
    path = f"{os.environ['PATH']}:{foreign}"
    with Plain(place, {}, "runc", {"PATH": path}) as daemon:
        daemon.import_image(busybox_root)
        library = place.directory("lib") / "eci"
        told = Story(
            daemon.top / "daemon.json", library, path=path, root=bundle_root, marker=marker
        )
        told.shims.append(told.shim_runs(daemon))
        told.before = {name: uid_map(daemon, *flags) for name, flags in BEFORE.items()}
        told.before["buildkit"] = built_map(daemon, place)
        told.before["ctr"] = ctr_map(daemon, bundle_root)
        told.old = daemon.out("run", "-d", "--name=old", "--network=none", IMAGE, "sh", "-c", SLEEP)
        told.refusal = told.eci("enable", "--engine=docker", code=1)
        told.eci("enable", "--engine=docker", "--drop-runtimes")
        daemon.restart({"PATH": f"{library}/path:{path}"})
        told.shims.append(told.shim_runs(daemon))
        with daemon.container("--name=new", "--network=none", "--cap-add=SYS_ADMIN"):
            daemon.docker("exec", "new", "mount", "-t", "tmpfs", "none", "/mnt")
            told.status = json.loads(told.eci("status", "--json"))
            told.table = told.eci("status")
            told.after = {name: uid_map(daemon, *flags) for name, flags in WAYS.items()}
            told.after["buildkit"] = built_map(daemon, place)
            told.after["ctr"] = ctr_map(daemon, bundle_root)
        (command,) = (one["recreate"] for one in told.status["containers"] if one["id"] == told.old)
        program, *words = shlex.split(command)
        assert program == "docker"
        daemon.docker(*words)
        told.recreated = daemon.out("exec", "old", "cat", "/proc/self/uid_map")
        daemon.docker("rm", "-f", "old")
        told.eci("disable")
        daemon.restart({"PATH": path})
        told.back = {name: uid_map(daemon, *BEFORE[name]) for name in BACK}
        yield told


@pytest.mark.parametrize("way", [*BEFORE, "buildkit", "ctr"])
def test_nothing_is_protected_before(story: Story, way: str) -> None:
    assert story.before[way] == BARE


@pytest.mark.parametrize("way", [*WAYS, "buildkit", "ctr"])
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


def test_a_shim_of_another_kind_is_no_way_around(story: Story) -> None:
    assert "containerd-shim-other-v2 is neither runc nor crun" in story.refusal
    (before, _), (after, message) = story.shims
    assert before > 0, story.shims
    assert after == before
    assert "what this shim starts would not be protected" in message


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
