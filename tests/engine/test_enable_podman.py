"""`eci enable` on a real podman and a real containerd, with configurations of their own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.docker import CONTAINERD, SLEEP
from tests.support.podman import PODMAN
from tests.support.result import require_success

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.place import Place
    from tests.support.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.engine]

ECI = os.path.join(os.path.dirname(sys.executable), "eci")
BARE = ["0", "0", "4294967295"]

# Root without CAP_SYS_RESOURCE cannot set podman's own limits.
LIMITS = ["--ulimit=nofile=1000:1000", "--ulimit=nproc=1000:1000"]


def eci(library: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [ECI, *words],
        env=os.environ | {"ECI_LIBRARY": str(library)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Told:
    """A podman that is told nothing of a runtime but by its configuration."""

    def __init__(self, podman: Podman, library: Path) -> None:
        self.podman = podman
        self.config = podman.top / "containers.conf"
        self.library = library

    def call(self, *words: str) -> str:
        """Run podman to its end; returns what it printed."""
        top = self.podman.top
        flags = [f"--root={top}/root", f"--runroot={top}/run", f"--tmpdir={top}/tmp"]
        done = subprocess.run(
            [PODMAN, *flags, "--storage-driver=overlay", *words],
            env=os.environ | {"CONTAINERS_CONF": str(self.config)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        require_success(done, f"podman {words}")
        return done.stdout.strip()

    def uid_map(self, *flags: str, runtime: str = "") -> list[str]:
        """Return the map of a new container."""
        chosen = [f"--runtime={runtime}"] if runtime else []
        run = ["run", "--rm", *LIMITS, *self.podman.run_words(), *flags, "box"]
        return self.call(*chosen, *run, "cat", "/proc/self/uid_map").split()

    def eci(self, *words: str) -> str:
        """Run eci with this podman's configuration, with success."""
        done = eci(self.library, *words, f"--containers-conf={self.config}")
        require_success(done, f"eci {words}")
        return done.stdout


@pytest.fixture
def told(podman: Podman, place: Place) -> Told:
    """Such a podman, not switched over."""
    return Told(podman, place.directory("lib") / "eci")


def listed(told: Told, container: str) -> dict[str, Any]:
    """Return what `eci status` says of one container."""
    found: list[dict[str, Any]] = json.loads(told.eci("status", "--json"))["containers"]
    (one,) = (entry for entry in found if entry["id"] == container)
    return one


def test_podman_is_protected_by_every_name_and_given_back(told: Told) -> None:
    before = told.config.read_bytes()
    assert told.uid_map(runtime="runc") == BARE
    old = told.call(
        "--runtime=runc",
        "run",
        "-d",
        *LIMITS,
        "--name=old",
        *told.podman.run_words(),
        "box",
        "sh",
        "-c",
        SLEEP,
    )
    try:
        told.eci("enable", "--engine=podman")
        for runtime in ("", "runc", "crun", "eci", "eci-crun"):
            inside, outside, size = told.uid_map("--privileged", runtime=runtime)
            assert (inside, size) == ("0", "65536")
            assert int(outside) >= 100000
        one = listed(told, old)
        assert not one["protected"]
        assert (one["engine"], one["name"]) == ("podman", "old")
        program, *words = shlex.split(one["recreate"])
        assert program == "podman"
        told.call(*words)
        assert listed(told, old)["protected"]
    finally:
        told.call("rm", "-f", "-t", "0", "old")
    told.eci("disable", "--engine=podman")
    assert told.config.read_bytes() == before
    assert not told.library.exists()
    assert told.uid_map(runtime="runc") == BARE


def test_podman_reads_the_drop_in(told: Told, place: Place) -> None:
    # The machine's own files, but with /etc/containers a copy, in a mount namespace of its own.
    copy = place.directory("etc") / "containers"
    shutil.copytree("/etc/containers", copy)
    before = sorted(path.name for path in copy.rglob("*"))
    top = told.podman.top
    podman = f"{PODMAN} --root={top}/root --runroot={top}/run --tmpdir={top}/tmp info"
    form = "--format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}'"
    script = f"""
        mount --bind {copy} /etc/containers
        {ECI} enable --engine=podman >&2
        {podman} {form}
        {ECI} disable >&2
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        env=os.environ | {"ECI_LIBRARY": str(told.library)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    require_success(done, "podman info")
    name, path = done.stdout.split()
    assert name == "crun"
    assert path.startswith(f"{told.library}/wrapped/crun-")
    assert sorted(path.name for path in copy.rglob("*")) == before


SECTION = ("plugins", "io.containerd.grpc.v1.cri", "containerd")


def dumped(config: Path) -> dict[str, Any]:
    """Return the handlers' section of what containerd itself makes of a configuration."""
    done = subprocess.run(
        [CONTAINERD, "--config", str(config), "config", "dump"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    require_success(done, "containerd config dump")
    tables: dict[str, Any] = tomllib.loads(done.stdout)
    for step in SECTION:
        tables = tables[step]
    return tables


@pytest.mark.parametrize(
    "text",
    [
        "version = 2\n",
        """\
version = 2
# mine
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
BinaryName = "/usr/sbin/runc\"""",
    ],
)
def test_containerd_reads_what_it_is_given(place: Place, text: str) -> None:
    config = place.directory("cd") / "config.toml"
    config.write_text(text)
    library = place.directory("lib") / "eci"
    flags = ["--engine=containerd", f"--containerd-config={config}"]
    done = eci(library, "enable", *flags, "--pods=all")
    require_success(done, "eci enable")
    section = dumped(config)
    assert section["default_runtime_name"] == "eci" or "BinaryName" in text
    for name, program in (("eci", "eci-runtime"), ("eci-crun", "eci-runtime-crun")):
        handler = section["runtimes"][name]
        assert handler["runtime_type"] == "io.containerd.runc.v2"
        assert handler["options"]["BinaryName"] == f"{library}/path/{program}"
        assert handler["options"].get("SystemdCgroup", False) == ("SystemdCgroup" in text)
    if "BinaryName" in text:
        wrapped = section["runtimes"]["runc"]["options"]["BinaryName"]
        assert os.readlink(f"{wrapped}.real") == "/usr/sbin/runc"
    require_success(eci(library, "disable", *flags), "eci disable")
    assert config.read_text() == text
    assert not library.exists()


def test_what_containerd_does_not_take_leaves_all_as_it_was(place: Place) -> None:
    config = place.directory("cd") / "config.toml"
    text = 'version = 2\noom_score = "no number"\n'
    config.write_text(text)
    library = place.directory("lib") / "eci"
    done = eci(library, "enable", "--engine=containerd", f"--containerd-config={config}")
    assert done.returncode == 1
    assert "containerd does not take it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert config.read_text() == text
    assert not library.exists()
