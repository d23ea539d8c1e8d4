"""A container keeps its supervisor busy, or has it wait: nobody else is held up by it.

What is measured is progress, by one bound that is far from what it takes: `PATIENCE` for pairs of
calls that take some hundredths of a second when nobody is in the way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind
from tests.support.containers import Containers
from tests.support.engines import Bundles
from tests.support.programs import compile_programs
from tests.support.waiting import wait_until
from tests.support.worker import holder_of, worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.bundle import Spec
    from tests.support.containers import Container
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

PATIENCE = 20
"""Seconds."""
PAIRS = 200
LEFT_MAX = 32
"""How many threads a worker leaves to calls that hang: csrc/hangs.c."""
# It reaps, as children of whoever was killed become its own.
REAPS = ["sh", "-c", "while :; do sleep 5; done"]


def ordinary(spec: Spec) -> None:
    """Give the container nothing more."""
    spec["process"]["args"] = REAPS


def with_fuse(spec: Spec) -> None:
    """Give the container /dev/fuse."""
    ordinary(spec)
    fuse = {"type": "c", "major": 10, "minor": 229}
    spec["linux"]["devices"] = [{"path": "/dev/fuse", "fileMode": 0o666, **fuse}]
    spec["linux"]["resources"]["devices"].append({"allow": True, "access": "rwm", **fuse})


def with_faults(spec: Spec) -> None:
    """Give the container /dev/userfaultfd, too, which reports the kernel's faults to it."""
    with_fuse(spec)
    number = os.stat("/dev/userfaultfd").st_rdev
    device = {"type": "c", "major": os.major(number), "minor": os.minor(number)}
    spec["linux"]["devices"].append({"path": "/dev/userfaultfd", "fileMode": 0o666, **device})
    spec["linux"]["resources"]["devices"].append({"allow": True, "access": "rwm", **device})


def with_limits(spec: Spec) -> None:
    """Give the container little of anything."""
    ordinary(spec)
    spec["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 200}}


@dataclass(frozen=True, slots=True)
class Box:
    """A container with the program `hostile`."""

    container: Container
    worker: int
    """Pid of its worker."""

    def run(self, *words: str) -> list[str]:
        """Run the program in it to its end, which has to come within `PATIENCE`."""
        argv = ("exec", self.container.name, "hostile", *words)
        return self.container.runtime.call(*argv, timeout=PATIENCE).stdout.splitlines()

    def answers(self) -> bool:
        """Make some calls in it."""
        return self.run("pairs", str(PAIRS)) == [f"pairs {PAIRS}"]

    def is_as_before(self) -> bool:
        """Say whether its calls are answered, and by the same worker."""
        return self.answers() and worker_of(self.container.pid) == self.worker

    @contextmanager
    def busy(self, *words: str) -> Iterator[None]:
        """Run the program until it has said what it does, and beyond; kill it in the end."""
        argv = self.container.runtime.argv("exec", self.container.name, "hostile", *words)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() != b""
                yield
            finally:
                wait_until(lambda: not self._kill(), "it does not end", PATIENCE)
                process.kill()

    def _kill(self) -> list[int]:
        """Kill those of its processes that run the program; returns which they were."""
        space = os.stat(f"/proc/{self.container.pid}/ns/pid").st_ino
        found = []
        for proc in Path("/proc").iterdir():
            with suppress(OSError):
                if (
                    proc.name.isdecimal()
                    and (proc / "comm").read_text() == "hostile\n"
                    and (proc / "ns/pid").stat().st_ino == space
                    and "\nState:\tZ" not in (proc / "status").read_text()
                ):
                    os.kill(int(proc.name), signal.SIGKILL)
                    found.append(int(proc.name))
        return found


class Boxes:
    """Makes containers that have the program, each once."""

    def __init__(self, place: Place, runtimes: dict[str, Path], programs: dict[str, Path]) -> None:
        self.bundles = Bundles(place, place.root)
        self._place = place
        self._runtimes = runtimes
        self._programs = programs | compile_programs(place.directory("c"), ["hostile"])
        self._made: dict[tuple[str, object], Box] = {}

    def get(self, runtime: str, change: Callable[[Spec], None]) -> Box:
        """Return the container of that runtime and with that changed in its config."""
        if (runtime, change) not in self._made:
            self._made[runtime, change] = self.make(runtime, change)
        return self._made[runtime, change]

    def make(
        self, runtime: str, change: Callable[[Spec], None], settings: Path | None = None
    ) -> Box:
        """Return a new one."""
        program = self._runtimes[runtime]
        containers = Containers(self.bundles, self._place, program, self._programs)
        volume = bind(containers.volume(), "/vol", "ro")
        made = containers.start(volume, privileged=False, change=change, settings=settings)
        return Box(made, worker_of(made.pid))


@pytest.fixture(scope="module")
def boxes(place: Place, runtimes: dict[str, Path], programs: dict[str, Path]) -> Iterator[Boxes]:
    """A maker of containers, which live as long as the module's tests."""
    made = Boxes(place, runtimes, programs)
    yield made
    made.bundles.close()


@pytest.fixture
def box(boxes: Boxes) -> Box:
    """The attacker; with runc, since callers can be interrupted there."""
    return boxes.get("eci", with_fuse)


@pytest.fixture
def limited(boxes: Boxes) -> Box:
    """One who has little."""
    return boxes.get("eci", with_limits)


@pytest.fixture
def other(boxes: Boxes) -> Box:
    """Somebody else, who minds his own business."""
    return boxes.get("eci", ordinary)


# -- calls that do not end ----------------------------------------------------------------


def check_hang(box: Box, what: str) -> None:
    """Have a call hang in it: the next ones of the same listener do not, and it can be killed."""
    done = box.run("hang", what, "1", str(PAIRS))
    assert done == ["hanging 1", f"pairs {PAIRS}", "callers killed", "pairs 10"]
    assert box.is_as_before()


@pytest.mark.parametrize(
    "what", ["memory", "path", "source", "umount", "move", "setattr", "layer", "root", "context"]
)
def test_a_call_hangs_alone(box: Box, what: str) -> None:
    """In the caller's memory, or in a file system, that does not answer."""
    check_hang(box, what)


def test_a_call_hangs_alone_for_a_page_that_nobody_delivers(boxes: Boxes) -> None:
    check_hang(boxes.get("eci", with_faults), "fault")


def test_who_has_no_right_to_the_kernels_faults_holds_up_nobody(box: Box) -> None:
    """The kernel does not ask him, for its own calls or for ours."""
    assert box.run("miss") == ["EFAULT"]
    assert box.is_as_before()


@pytest.mark.parametrize("what", ["memory", "path"])
def test_a_call_hangs_alone_where_nothing_interrupts_it(boxes: Boxes, what: str) -> None:
    check_hang(boxes.get("eci-crun", with_fuse), what)


def test_several_calls_hang_alone(box: Box) -> None:
    done = box.run("hang", "path", "5", str(PAIRS))
    assert done == ["hanging 5", f"pairs {PAIRS}", "callers killed", "pairs 10"]


def test_what_is_left_to_hanging_calls_is_bounded(box: Box, other: Box) -> None:
    """Then they hang up the rest of the container, and end when the file system does."""
    tasks = Path(f"/proc/{box.worker}/task")

    def threads() -> int:
        return len(list(tasks.iterdir()))

    with box.busy("hang", "memory", str(LEFT_MAX + 10), "0"):
        wait_until(lambda: threads() > LEFT_MAX, "nobody takes over", PATIENCE)
        assert other.answers()
        time.sleep(2)  # in which ten more could be left
        # Main thread, who serves the listener, those of other execs that are seen off.
        assert threads() <= LEFT_MAX + 4
    wait_until(lambda: threads() <= 4, "the threads stay", PATIENCE)
    assert box.is_as_before()


# -- much of everything -------------------------------------------------------------------


@pytest.mark.parametrize("words", [("flood", "32"), ("threads", "10000")], ids=lambda w: w[0])
def test_a_flood_of_calls(box: Box, other: Box, words: tuple[str, ...]) -> None:
    with box.busy(*words):
        assert other.answers()
    assert box.is_as_before()


def test_many_mounts(box: Box, other: Box) -> None:
    """Neither the others nor the container itself is held up by them."""
    assert box.run("many", "2000") == ["mounts 2000"]
    assert other.answers()
    assert box.answers()
    assert box.container.run("mnt", "umount2", "/mnt", "MNT_DETACH") == ["0"]
    assert box.is_as_before()


def test_long_ways(box: Box, other: Box) -> None:
    """40 links are followed, as the kernel does, and not one more; a path may have 4095 bytes."""
    assert box.run("paths") == ["0 0 ELOOP ELOOP EINVAL ENAMETOOLONG 0 0"]
    assert other.answers()


# -- callers that do not wait -------------------------------------------------------------


@pytest.mark.parametrize("words", ["die 100", "stop signal 20", "stop trace 20"])
@pytest.mark.parametrize("runtime", ["eci", "eci-crun"])
def test_callers_that_are_stopped_or_killed(
    boxes: Boxes, other: Box, runtime: str, words: str
) -> None:
    """In the midst of a call; those of the same listener go on meanwhile."""
    box = boxes.get(runtime, with_fuse)
    what, *_, number = words.split()
    assert box.run(*words.split()) == [f"{ {'die': 'died', 'stop': 'stopped'}[what] } {number}"]
    assert box.is_as_before()
    assert other.answers()


def test_a_frozen_container(box: Box, other: Box) -> None:
    call = box.container.runtime.call
    with box.busy("flood", "8"):
        call("pause", box.container.name)
        try:
            assert other.answers()
        finally:
            call("resume", box.container.name)
    assert box.is_as_before()


# -- containers that have nothing left ----------------------------------------------------


@pytest.mark.parametrize("what", ["forks", "memory"])
def test_a_container_without_processes_or_memory(limited: Box, other: Box, what: str) -> None:
    """The limits are the container's alone: its worker lives, and answers when there is room."""
    with limited.busy(what):
        assert other.answers()
    assert limited.is_as_before()


def test_a_container_without_processor_time(limited: Box, other: Box) -> None:
    """Its calls are under way for long, and wait for it alone."""
    update = ("update", limited.container.name, "--cpu-period", "100000", "--cpu-quota")
    with limited.busy("flood", "4"):
        limited.container.runtime.call(*update, "1000")
        try:
            assert other.answers()
        finally:
            limited.container.runtime.call(*update, "-1")
    assert limited.is_as_before()


def cgroups_of(pid: int) -> dict[str, str]:
    """Return the cgroups of a process, by hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.rpartition(":")[0]: line.rpartition(":")[2] for line in lines}


def test_no_process_of_ours_is_in_a_cgroup_of_the_container(limited: Box) -> None:
    """So neither its limits nor its freezer touch one."""
    holder = holder_of(limited.container.pid)
    keeper = int(Path(f"/proc/{holder}/stat").read_text().rpartition(")")[2].split()[1])
    theirs = cgroups_of(limited.container.pid)
    for pid in (limited.worker, holder, keeper):
        ours = cgroups_of(pid)
        assert ours.keys() == theirs.keys()
        inside = [key for key, path in ours.items() if f"{path}/".startswith(f"{theirs[key]}/")]
        # Where the runtime made none for it, both are at the top.
        assert [key for key in inside if theirs[key] != "/"] == []
    assert any(limited.container.name in path for path in theirs.values())


# -- the kernel's memory ------------------------------------------------------------------

BOUND = 8 << 20
"""Bytes; `double` would take 40 MiB, up to fs.mount-max."""


def with_memory(spec: Spec) -> None:
    """Give the container less memory than all its mounts take."""
    ordinary(spec)
    spec["linux"]["resources"] |= {"memory": {"limit": BOUND}}


def charged(pid: int) -> int:
    """Return the bytes that the memory cgroup of a process is charged."""
    for key, path in cgroups_of(pid).items():
        v1 = key.endswith(":memory")
        top, name = ("memory", "usage_in_bytes") if v1 else (".", "current")
        with suppress(FileNotFoundError):
            return int(Path(f"/sys/fs/cgroup/{top}{path}/memory.{name}").read_text())
    raise AssertionError(pid)


def mounts_of(pid: int) -> int:
    """Return how many mounts the process's namespace has."""
    return Path(f"/proc/{pid}/mountinfo").read_bytes().count(b"\n")


def settings_with(place: Place, bound: int) -> Path:
    """Return a file of settings with this bound."""
    path = place.directory("set") / "settings.json"
    path.write_text(json.dumps({"vm": {"mountMemory": bound >> 20}}))
    return path


def test_mounts_are_no_way_round_a_limit_of_memory(boxes: Boxes, other: Box, place: Place) -> None:
    """The worker makes them, and the kernel charges them to who makes them."""
    box = boxes.make("eci", with_memory, settings_with(place, BOUND))
    assert box.run("double") == ["ENOMEM"]
    assert charged(box.worker) < 2 * BOUND
    assert other.answers()
    assert box.container.run("mnt", *"mount none /tmp tmpfs - -".split()) == ["ENOMEM"]
    assert box.container.run("mnt", "umount2", "/mnt", "MNT_DETACH") == ["0"]
    wait_until(lambda: charged(box.worker) < BOUND, "they are not given back", PATIENCE)
    assert box.is_as_before()


def test_without_a_bound_they_are_one(boxes: Boxes, place: Place) -> None:
    """Five times as much as the container may have, which the machine pays."""
    box = boxes.make("eci", with_memory, settings_with(place, 0))
    assert box.run("double") == ["ENOSPC"]
    assert mounts_of(box.container.pid) > 50_000
    assert charged(box.container.pid) <= BOUND
    assert box.container.run("mnt", "umount2", "/mnt", "MNT_DETACH") == ["0"]


def test_mounts_in_many_namespaces_at_once(boxes: Boxes, other: Box, place: Place) -> None:
    """The kernel takes them back, and ends the worker for it; the next one goes on."""
    box = boxes.make("eci", ordinary, settings_with(place, BOUND))
    assert box.run("spread", "200") == ["0", "EPERM"]
    assert other.answers()
    worker = worker_of(box.container.pid)
    assert worker != box.worker
    wait_until(lambda: charged(worker) < BOUND, "they are not given back", PATIENCE)
    assert box.answers()
    # The holder is the same, so it was never the one to be ended.
    log = next(place.state_dir.glob(f"containers/{box.container.name}-*/keeper.log")).read_text()
    assert "killed by signal 9" in log
    assert "holder" not in log
