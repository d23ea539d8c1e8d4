"""One Debian in memory, and containers of every rung that stand on it.

They have the same files, the same configuration and a user namespace of the same size each:

- `native` and `again`: bare runc.  What distinguishes these two is nothing but noise.
- `eci`: this project, with a read-only volume, so every mount call is trapped.
- `spared`: this project, without one.

The files are in memory, so that no disk has a say in what is measured.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.bare import BASE, unprotected
from benchmarks.containers import HERE, LOCKED, NoAnswerError
from benchmarks.frame import calibrate
from eci_supervisor.cli.bundle import Request, Volume, configuration
from eci_supervisor.cli.run import last_capability
from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.supervisor.cgroups import delegate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from benchmarks.containers import Container, Program, Workshop
    from tests.support.debian import Debian

BARE = ("native", "again")
WORK = ("/work",)


class Ground:
    """The unpacked Debian, and what makes containers of it."""

    def __init__(self, shop: Workshop, directory: str, scripts: Collection[str]) -> None:
        self._shop = shop
        self._directory = directory
        self._scripts = scripts
        self.root = os.path.join(directory, "root")

    def runtime(self, rung: str) -> list[str]:
        """Return the command of a rung's runtime."""
        if rung not in BARE:
            return self._shop.runtime()
        program = [sys.executable, "-s", "-P", os.path.join(HERE, "bare.py")]
        return [*program, "--root", os.path.join(self._shop.state, "bare")]

    @contextmanager
    def container(
        self,
        rung: str,
        command: Sequence[str] = WORK,
        *,
        privileged: bool = True,
        volumes: Sequence[str] = (),
    ) -> Iterator[Container]:
        """Give a running container, whose first process says "ready".

        Its `/run` is its own, and so is what it has at the places of `volumes`.  Privileged or
        with CAP_SYS_ADMIN, and so with Docker's profile; its cgroups belong to its root.
        """
        bundle = os.path.join(self._directory, f"bundle-{secrets.token_hex(6)}")
        os.mkdir(bundle)
        own = [
            Volume(os.path.join(bundle, str(number)), place, readonly=False)
            for number, place in enumerate(volumes)
        ]
        for volume in own:
            os.mkdir(volume.source)
        locked = os.path.join(self._shop.directory, "locked")
        request = Request(
            command=tuple(command),
            rootfs=self.root,
            hostname="bench",
            volumes=(Volume(locked, LOCKED, readonly=rung != "spared"), *own),
            privileged=privileged,
            capabilities=("CAP_SYS_ADMIN",),
        )
        config: dict[str, Any] = configuration(request, last_capability())
        config["mounts"].append({"destination": "/run", "type": "tmpfs", "source": "tmpfs"})
        config["process"]["env"].append("container=oci")
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(unprotected(config) if rung in BARE else config, stream)
        with self._shop.alive(self.runtime(rung), bundle) as container:
            if rung in BARE:
                # As this project does for its own.
                delegate(container.pid, BASE, BASE)
            yield container

    def time(self, program: Program, script: str) -> float:
        """Have `work` run a script; return how many milliseconds it took.

        Afterwards SCRIPT-end, if there is one, undoes what the script has done.
        """
        took = program.ask("sh", f"/srv/{script}")[0] / 1e6
        if f"{script}-end" in self._scripts:
            program.ask("sh", f"/srv/{script}-end")
        return took

    def within(self, rung: str, container: Container, script: str) -> str:
        """Run a shell script in a container, as its engine would; return what it printed."""
        words = [*self.runtime(rung), "exec", container.identity, "sh", "-ec", script]
        done = subprocess.run(words, env=self._shop.environment, check=False, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
        if done.returncode:
            raise NoAnswerError(f"{script}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


@contextmanager
def ground(shop: Workshop, made: Debian, scripts: Mapping[str, str]) -> Iterator[Ground]:
    """Give what containers stand on, with `work` in it and each script as /srv/NAME."""
    directory = os.path.join(shop.directory, "memory")
    os.mkdir(directory)
    syscalls.mount("tmpfs", directory, "tmpfs", 0, "mode=711")
    try:
        place = Ground(shop, directory, scripts)
        os.mkdir(place.root)
        unpack = ["tar", "-C", place.root, "-xp", "--numeric-owner", "-f", str(made.archive)]
        subprocess.run(unpack, check=True)
        shutil.copy(shop.program("work"), place.root)
        for name, text in scripts.items():
            with open(os.path.join(place.root, "srv", name), "w", encoding="utf-8") as stream:
                stream.write(text)
        yield place
    finally:
        # Where a container is still on its way out, it holds on to what it needs.
        syscalls.umount2(directory, lib.MNT_DETACH)


def in_turns(
    rungs: Mapping[str, Program], case: str, rounds: int, batch: float
) -> dict[str, list[float]]:
    """Have each rung do batches of a case of work.c in each round; return microseconds of one.

    `batch`: how many nanoseconds one takes at least; its count is the same for all.
    """

    def timed(count: int) -> float:
        return max(program.ask(case, count)[0] for program in rungs.values())

    count = calibrate(timed, batch)
    samples: dict[str, list[float]] = {name: [] for name in rungs}
    for number in range(rounds):
        for name in turn(number, list(rungs)):
            samples[name].append(rungs[name].ask(case, count)[0] / count / 1000)
    return samples


def turn(number: int, names: Sequence[str]) -> list[str]:
    """Return who comes first, second and so on in a round: each is everywhere equally often.

    What was before is not the same for all (caches, a processor's temperature), but it evens out.
    """
    at = number % len(names)
    order = [*names[at:], *names[:at]]
    return order if number // len(names) % 2 == 0 else order[::-1]
