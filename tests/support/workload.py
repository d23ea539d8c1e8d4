"""Containers with a Debian in them, and shell scripts that run there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.result import require_success

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.docker import Dockerd

IMAGE = "debian"

PRIVILEGED = ("--privileged",)
SYS_ADMIN = ("--cap-add=SYS_ADMIN",)
UNFILTERED = ("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined")
"""Docker's profile lets nobody call pivot_root; these containers have masks, but no profile."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A running container."""

    dockerd: Dockerd
    container: str

    def run(
        self, script: str, *flags: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, with `flags` for `docker exec`.

        Without `check` the caller looks at the exit status; the script goes on after a failure
        of a single command in either case.
        """
        words = ["exec", "-i", *flags, self.container, "bash"]
        done = self.dockerd.docker(*words, stdin=script, check=False, timeout=timeout)
        if check:
            require_success(done, script)
        return done

    def out(self, script: str, *flags: str, timeout: float = 60) -> str:
        """Run a shell script and return what it printed, without the last newline.

        The first command that fails ends it, and is an error.
        """
        return self.run(f"set -e\n{script}", *flags, timeout=timeout).stdout.rstrip("\n")

    def mounts(self, below: str) -> list[str]:
        """Return the mount points at or below `below`, as its first process sees them."""
        table = self.out("cat /proc/1/mountinfo").splitlines()
        points = [line.split()[4] for line in table]
        return [point for point in points if point == below or point.startswith(f"{below}/")]

    def logs(self) -> str:
        """Return what its first process printed."""
        done = self.dockerd.docker("logs", self.container)
        return done.stdout + done.stderr


@dataclass(frozen=True, slots=True)
class Workloads:
    """Makes containers of one engine."""

    dockerd: Dockerd

    @contextmanager
    def start(self, runtime: str, *words: str, command: str = "") -> Iterator[Workload]:
        """Run a container with `words` for `docker run` for the length of the block.

        Anonymous volumes go with it.
        """
        flags = [f"--runtime={runtime}", *words]
        with self.dockerd.container(*flags, image=IMAGE, command=command) as container:
            yield Workload(self.dockerd, container)
