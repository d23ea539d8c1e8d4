"""The keeper at rest: a program without an interpreter waits, and Python comes back for work."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec
from tests.support.engines import Bundles
from tests.support.waiting import wait_until
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.support.bundle import Runtime
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

CALLS = (
    "mnt mount none /mnt tmpfs - - , umount2 /mnt - , mount - /vol - MS_REMOUNT|MS_BIND -".split()
)
ANSWERS = ["0", "0", "EPERM"]
POLL = "7"
"""poll(2) on x86-64, as /proc/PID/syscall has it."""
SCRIPT = """
while :; do
    until [ -e /out/go ]; do sleep 0.05; done
    rm /out/go
    mnt mount - /vol - 'MS_REMOUNT|MS_BIND' - > /out/answer
done
"""


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


AHEAD = 2
"""How many containers come to rest, which takes three seconds each, while another is tested."""


class Box:
    """A running container of which the keeper comes to rest."""

    def __init__(self, program: Path, bundles: Bundles, place: Place) -> None:
        """Start it."""
        self.place = place
        self.runtime: Runtime = bundles.runtime(program)
        self.name = bundles.name()
        bundles.expect(self.runtime, self.name)
        self.out = place.directory("v")
        spec = make_spec(
            ["sh", "-c", SCRIPT],
            cgroup=bundles.cgroup(self.name),
            privileged=True,
            mounts=[bind(place.directory("v"), "/vol", "ro"), bind(self.out, "/out")],
        )
        self.runtime.call("run", "--detach", "--bundle", str(bundles.write(spec)), self.name)
        (self.state_dir,) = place.state_dir.glob(f"containers/{self.name}-*")
        self.worker = worker_of(json.loads(self.runtime.call("state", self.name).stdout)["pid"])
        # Of the worker's holder, whose child the worker is.
        self.keeper = parent(parent(self.worker))

    @property
    def rests(self) -> bool:
        """Whether the keeper is the waiting program now, and waits."""
        proc = Path(f"/proc/{self.keeper}")
        words = (proc / "cmdline").read_bytes().split(b"\0")
        # Its first word, unless valgrind runs it (tools/proof); without a path where Python that
        # could not take over has come back to it (start.py).
        return any(os.path.basename(word) == b"eci-keeper" for word in words) and (
            (proc / "syscall").read_text().split()[0] == POLL
        )

    def wait_for_rest(self) -> None:
        """Wait until nothing is to be done."""
        wait_until(lambda: self.rests, "the keeper does not rest")

    def calls(self) -> list[str]:
        """Mount, unmount and try what is refused, in a process that joins the container."""
        return self.runtime.call("exec", self.name, *CALLS).stdout.split()

    def refusals(self) -> int:
        """Return how many refusals stand in the log."""
        log = self.state_dir / "keeper.log"
        return log.read_text().count("<refused:no-loosening>") if log.exists() else 0

    def wait_for_refusals(self, number: int) -> None:
        """Wait until so many refusals stand in the log, and no more."""
        wait_until(lambda: self.refusals() == number, "not logged")


class Stock:
    """Containers of each runtime, of which some are always on their way to rest."""

    def __init__(self, runtimes: dict[str, Path], bundles: Bundles) -> None:
        self.bundles = bundles
        self._runtimes = runtimes
        self._boxes: dict[str, deque[Box]] = {name: deque() for name in runtimes}

    def take(self, runtime: str) -> Box:
        """Return one that nobody has had, its keeper at rest."""
        boxes = self._boxes[runtime]
        while len(boxes) <= AHEAD:
            boxes.append(Box(self._runtimes[runtime], self.bundles, self.bundles.place))
        box = boxes.popleft()
        box.wait_for_rest()
        return box


@pytest.fixture(scope="module")
def stock(runtimes: dict[str, Path], place: Place, bundle_root: Path) -> Iterator[Stock]:
    """The containers of this module."""
    made = Stock(runtimes, Bundles(place, bundle_root))
    yield made
    made.bundles.close()


@pytest.fixture
def box(stock: Stock, runtime: str) -> Box:
    """A running container, its keeper at rest."""
    return stock.take(runtime)


@pytest.fixture
def each(stock: Stock, runtimes: dict[str, Path]) -> list[Box]:
    """One of each runtime, where it is the time that passes which is tested."""
    return [stock.take(name) for name in runtimes]


def wake_ups(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep so far."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_nothing_wakes_up_when_idle(each: list[Box]) -> None:
    pids = [pid for box in each for pid in (box.keeper, box.worker)]
    before = [wake_ups(pid) for pid in pids]
    time.sleep(5)
    assert [wake_ups(pid) for pid in pids] == before
    assert all(box.rests for box in each)


def test_rest_again_after_each_exec(box: Box) -> None:
    for _ in range(2):
        assert box.calls() == ANSWERS
        assert not box.rests
        box.wait_for_rest()


@pytest.mark.slow
def test_hundred_execs(box: Box) -> None:
    for _ in range(100):
        assert box.calls() == ANSWERS
    box.wait_for_rest()
    assert box.calls() == ANSWERS


def test_refusals_are_logged(each: list[Box]) -> None:
    """Nothing but the event brings Python back; the second comes a while after the first."""
    for number in (1, 2):
        for box in each:
            (box.out / "go").touch()
        for box in each:
            box.wait_for_refusals(number)
            assert (box.out / "answer").read_text() == "EPERM\n"
            box.wait_for_rest()


def test_flood_of_refusals_wakes_seldom(box: Box) -> None:
    """An event while it has only just gone to rest waits, and is not lost."""
    (box.out / "go").touch()
    box.wait_for_refusals(1)
    box.wait_for_rest()
    (box.out / "go").touch()
    wait_until(lambda: not (box.out / "go").exists(), "not done")
    time.sleep(2)
    assert box.rests
    assert box.refusals() == 1
    box.wait_for_refusals(2)


def test_end_of_the_container(box: Box) -> None:
    os.kill(json.loads(box.runtime.call("state", box.name).stdout)["pid"], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{box.worker}").exists(), "the worker stays")
    box.runtime.call("delete", box.name)
    wait_until(lambda: not box.state_dir.exists(), "the state stays")


def without(tree: Any, key: str) -> Any:
    """Return JSON without that key, wherever it is."""
    if isinstance(tree, dict):
        return {name: without(value, key) for name, value in tree.items() if name != key}
    return [without(value, key) for value in tree] if isinstance(tree, list) else tree


def test_end_without_an_interpreter(box: Box) -> None:
    """Seen by taking away what Python would have to know to come back."""
    words = Path(f"/proc/{box.keeper}/cmdline").read_bytes().split(b"\0")
    os.truncate(f"/proc/{box.keeper}/fd/{int(words[1])}", 0)
    os.kill(json.loads(box.runtime.call("state", box.name).stdout)["pid"], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{box.worker}").exists(), "the worker stays")
    box.runtime.call("delete", box.name)
    assert not box.state_dir.exists()
    wait_until(lambda: not Path(f"/proc/{box.keeper}").exists(), "the keeper stays")


def test_deleted_without_hooks(box: Box) -> None:
    """Then the keeper clears up, and an ID range that is free is given to the next one."""
    for name in ("state.json", "config.json", "status"):  # runc's, crun's
        file = box.runtime.root / box.name / name
        if file.exists():
            file.write_text(json.dumps(without(json.loads(file.read_text()), "poststop")))
    ranges = {path.name for path in box.place.state_dir.glob(f"ranges/*/{box.name}-*")}
    assert len(ranges) == 1
    box.runtime.call("delete", "--force", box.name)
    wait_until(lambda: not box.state_dir.exists(), "the state stays")
    assert not list(box.place.state_dir.glob(f"ranges/*/{box.name}-*"))
    wait_until(lambda: not Path(f"/proc/{box.keeper}").exists(), "the keeper stays")


def test_interpreter_that_fails_costs_no_keeper(box: Box) -> None:
    """What Python cannot take over stays with the waiting program, which says so."""
    words = Path(f"/proc/{box.keeper}/cmdline").read_bytes().split(b"\0")
    os.truncate(f"/proc/{box.keeper}/fd/{int(words[1])}", 0)
    for _ in range(3):
        assert box.calls() == ANSWERS
        box.wait_for_rest()
    log = (box.state_dir / "keeper.log").read_text()
    assert log.count("the keeper stays at rest: DecodeError") == 1  # tried once a minute
    assert log.count("what they refuse is counted, and not logged") == 1
    box.runtime.call("delete", "--force", box.name)
    wait_until(lambda: not box.state_dir.exists(), "the state stays")
    wait_until(lambda: not Path(f"/proc/{box.keeper}").exists(), "the keeper stays")
