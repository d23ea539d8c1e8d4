"""What protection costs programs that live on mounting.

The same in privileged containers on the same files (ground.py), in turns: `native` is bare runc,
`eci` and `spared` are this project.

- `bubblewrap, 200 times`: sandboxes with a read-only root, /proc, /dev and /tmp of their own, made
  by root; `bubblewrap of a user, 200 times`: by somebody who needs a user namespace for that. Both
  also with a listener that lets every call go on (`verdict`), the least that trapping them costs.
- `inner docker run`: `docker run --rm box true` of a Docker engine that runs in the container.
- `docker build, 30 steps`: with BuildKit, each step a container.
- `debootstrap`: a small Debian, from packages that are there.
- `systemd boot`: from systemd's beginning until all is up, as systemd says.

And outside of all that, `docker run --rm true`: with this project's runtime and, `native`, with
plain runc, without any user namespace.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.containers import workshop
from benchmarks.frame import summary
from benchmarks.ground import ground, turn
from eci_supervisor.cli.rootfs import make_busybox_root
from eci_supervisor.cli.run import runtime_program
from tests.support.debian import USER, debian
from tests.support.docker import IMAGE, Dockerd
from tests.support.inside import AWAIT_BOOT, DEBOOTSTRAP, MAKE_BOX
from tests.support.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.frame import Result, Run
    from benchmarks.ground import Ground

NAME = "real"
RUNGS = ("native", "eci", "spared")
PROGRAMS = ("work", "enter", "verdict")
VOLUMES = ("/var/lib/docker", "/target")
SANDBOXES, STEPS = 200, 30

SANDBOX = "bwrap --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp true"
MANY = f"for i in $(seq {SANDBOXES}); do {SANDBOX}; done"
ENGINE = """\
dockerd &
for i in $(seq 300); do ! docker version || break; sleep 0.1; done
"""
DOCKERFILE = "FROM box\n" + "RUN true\n" * STEPS
SCRIPTS = {
    "bubblewrap": MANY,
    "bubblewrap-user": f"setpriv --reuid={USER} --regid={USER} --clear-groups sh -ec '{MANY}'",
    "engine": ENGINE + MAKE_BOX,
    "run": "docker run --rm box true",
    "build": f"DOCKER_BUILDKIT=1 docker build --no-cache - <<'END'\n{DOCKERFILE}END\n",
    "debootstrap": DEBOOTSTRAP,
    "debootstrap-end": "rm -rf /target/root",
}
CASES = {
    "bubblewrap": f"bubblewrap, {SANDBOXES} times",
    "bubblewrap-user": f"bubblewrap of a user, {SANDBOXES} times",
    "run": "inner docker run",
    "build": f"docker build, {STEPS} steps",
    "debootstrap": "debootstrap",
}
SANDBOXED = ("bubblewrap", "bubblewrap-user")
ROUNDS = {"bubblewrap": (3, 10), "bubblewrap-user": (3, 10), "run": (5, 20), "build": (1, 5),
          "debootstrap": (1, 3), "boot": (2, 8), "docker": (5, 20)}  # fmt: skip
"""How often each is done: in a quick run, and in a thorough one."""

DOCKER = "docker run --rm true"
RUNTIMES = {"native": "runc", "eci": "eci"}

# The line is ours, once the container's cgroups are its own.
BOOT = ("/bin/sh", "-c", "echo ready; read line; exec /sbin/init")
BOOTED = f"""\
{{ {AWAIT_BOOT}}} > /dev/null || true
systemctl show --value -p UserspaceTimestampMonotonic -p FinishTimestampMonotonic
"""
POWER_OFF = signal.SIGRTMIN + 3
"""For systemd as the first process: systemd(1), "Signals"."""


def measure(run: Run) -> Iterator[Result]:
    """Yield the statistics of each piece of work."""
    made = debian()
    with workshop(PROGRAMS) as shop, ground(shop, made, SCRIPTS) as place:
        shutil.copytree(made.repository, os.path.join(place.root, "srv/repository"))
        with ExitStack() as stack:
            containers = {
                name: stack.enter_context(place.container(name, volumes=VOLUMES)) for name in RUNGS
            }
            rungs = {name: container.program for name, container in containers.items()}
            for program in rungs.values():
                place.time(program, "engine")
            rungs["verdict"] = stack.enter_context(
                shop.entered(containers["native"], "verdict", "mounts", [shop.program("verdict")])
            )
            for script in run.steps(list(CASES), NAME):
                some = RUNGS + (("verdict",) if script in SANDBOXED else ())
                samples: dict[str, list[float]] = {rung: [] for rung in some}
                for number in range(run.pick(*ROUNDS[script])):
                    for rung in turn(number, some):
                        samples[rung].append(place.time(rungs[rung], script))
                yield from results(CASES[script], samples)
        yield from boots(run, place)
    yield from docker_runs(run)


def results(case: str, samples: Mapping[str, Sequence[float]]) -> Iterator[Result]:
    """Yield the statistics of a case, from milliseconds."""
    for rung, times in samples.items():
        yield summary(NAME, case, rung, "ms", times)


def boots(run: Run, place: Ground) -> Iterator[Result]:
    """Yield how many milliseconds systemd takes."""
    samples: dict[str, list[float]] = {rung: [] for rung in RUNGS}
    for number in run.steps(range(run.pick(*ROUNDS["boot"])), "real: systemd boot"):
        for rung in turn(number, RUNGS):
            samples[rung].append(boot(place, rung))
    yield from results("systemd boot", samples)


def boot(place: Ground, rung: str) -> float:
    """Boot a container and end it again; return how many milliseconds the boot took."""
    with place.container(rung, BOOT) as container:
        container.program.send("begin")
        begin, end = map(int, place.within(rung, container, BOOTED).split())
        os.kill(container.pid, POWER_OFF)
    return (end - begin) / 1000


def docker_runs(run: Run) -> Iterator[Result]:
    """Yield how many milliseconds a container takes that does nothing, engine and all."""
    samples: dict[str, list[float]] = {rung: [] for rung in RUNTIMES}
    with engine() as daemon:
        for number in run.steps(range(run.pick(*ROUNDS["docker"])), f"real: {DOCKER}"):
            for rung in turn(number, list(RUNTIMES)):
                began = time.monotonic()
                daemon.docker("run", "--rm", f"--runtime={RUNTIMES[rung]}", IMAGE, "true")
                samples[rung].append((time.monotonic() - began) * 1000)
    yield from results(DOCKER, samples)


@contextmanager
def engine() -> Iterator[Dockerd]:
    """Give a dockerd that has this project's runtime and an image; nothing is left of it."""
    place = Place.create()
    try:
        state = place.environment
        with Dockerd(place, {"eci": Path(runtime_program())}, "runc", state) as daemon:
            root = place.directory("root")
            make_busybox_root(str(root))
            daemon.import_image(root)
            yield daemon
        if left := place.leftovers():
            raise RuntimeError("left behind:\n" + "\n".join(left))
    finally:
        place.remove()
