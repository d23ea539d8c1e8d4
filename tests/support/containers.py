"""Containers with volumes, on a root file system of their own, and what they answer."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import make_spec
from tests.support.result import require_success
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.support.bundle import Runtime, Spec
    from tests.support.engines import Bundles
    from tests.support.place import Place


class Containers:
    """Makes containers with volumes on a root file system of their own."""

    def __init__(
        self, bundles: Bundles, place: Place, program: Path, programs: dict[str, Path]
    ) -> None:
        self.bundles = bundles
        self.place = place
        self.program = program
        self.root = build_root(place.directory("b") / "root", programs.values())

    def volume(self, *directories: str) -> Path:
        """Return a volume that holds these directories."""
        volume = self.place.directory("v")
        for name in directories:
            (volume / name).mkdir(parents=True)
        return volume

    def start(
        self,
        *mounts: dict[str, Any],
        readonly: bool = False,
        privileged: bool = True,
        sysctl: dict[str, str] | None = None,
        change: Callable[[Spec], object] | None = None,
        settings: Path | None = None,
        env: dict[str, str] | None = None,
        begin: bool = True,
    ) -> Container:
        """Make one, and start it; if not privileged, then with masks and CAP_SYS_ADMIN.

        `change` is given its config; `env` is more of the runtime's environment.
        """
        name = self.bundles.name()
        spec = make_spec(
            ["sleep", "1000"],
            cgroup=self.bundles.cgroup(name),
            privileged=privileged,
            cap_add=["CAP_SYS_ADMIN"],
            readonly=readonly,
            mounts=mounts,
        )
        spec["linux"]["sysctl"] = sysctl or {}
        if change:
            change(spec)
        flags = [] if settings is None else ["--settings", str(settings)]
        runtime = self.bundles.runtime(self.program, *flags)
        runtime.env |= env or {}
        self.bundles.expect(runtime, name)
        bundle = self.bundles.write(spec, self.root)
        runtime.call("create", "--bundle", str(bundle), name)
        if begin:
            runtime.start(name)
        return Container(runtime, name)


class Container:
    """A running container."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self.runtime = runtime
        self.name = name
        self.pid = json.loads(runtime.call("state", name).stdout)["pid"]

    def run(self, *words: str) -> list[str]:
        """Run a program in it, as `exec` does, and return the lines that it prints."""
        return self.runtime.call("exec", self.name, *words).stdout.splitlines()

    def native(self, *words: str) -> list[str]:
        """Run a program in its user and mount namespace, past the supervisor."""
        argv = ["nsenter", "-t", str(self.pid), "-U", "-m", "-r", "-w", "/bin/mnt", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
        require_success(done, f"{words}")
        return done.stdout.splitlines()

    def held(self, *paths: str) -> dict[str, str]:
        """Unmount each, past the supervisor; returns the kernel's answers."""
        return {path: self.native("umount2", path, "MNT_DETACH")[0] for path in paths}


@pytest.fixture
def containers(
    bundles: Bundles,
    place: Place,
    runtimes: dict[str, Path],
    programs: dict[str, Path],
    runtime: str,
) -> Containers:
    """A maker of containers, on each runtime."""
    return Containers(bundles, place, runtimes[runtime], programs)
