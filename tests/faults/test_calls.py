"""A call of the container, while each system call of the worker that serves it fails in turn.

The caller gets an error, and nothing was done, or the right answer, and all was done.  The worker
keeps nothing, and the next call finds it as it was.
"""

from __future__ import annotations

import errno
import resource
from typing import TYPE_CHECKING

import pytest

from tests.faults.conftest import EVERY
from tests.faults.scenarios import ALL, MASKED, PLACE
from tests.faults.sweep import Box, Sweep, pairs
from tests.support.faults import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.scenarios import Scenario
    from tests.faults.sweep import Totals
    from tests.support.engines import Bundles
    from tests.support.faults import Call

pytestmark = [pytest.mark.root, pytest.mark.engine]

KINDS = ALL if EVERY else (MASKED,)
STATX, MOVE_MOUNT, PIDFD_OPEN = 332, 429, 434
RUNTIMES = ("eci", "eci-crun") if EVERY else ("eci",)
CASES = [
    pytest.param(kind, scenario, who, id=f"{kind}-{scenario.name}-{who}")
    for kind in KINDS
    for scenario, who in pairs(kind, every=EVERY)
]


class Boxes:
    """One container for each kind; a new one where a test went wrong in it."""

    def __init__(self, bundles: Bundles, program: Path, injector: Path) -> None:
        self.thorough = program.name == "eci-runtime"
        """With all errnos: of the runtime the worker's calls depend little."""
        self._made: dict[str, Box] = {}
        self._bundles, self._program, self._injector = bundles, program, injector

    def of(self, kind: str) -> Box:
        """Return the container of that kind."""
        if kind not in self._made:
            self._made[kind] = Box(self._bundles, self._program, self._injector, kind)
        return self._made[kind]

    def give_up(self, kind: str) -> None:
        """Have the next test get a new one."""
        box = self._made.pop(kind, None)
        if box is not None:
            box.close()

    def close(self) -> None:
        """Let all go."""
        for kind in list(self._made):
            self.give_up(kind)


@pytest.fixture(scope="module", params=RUNTIMES)
def boxes(
    request: pytest.FixtureRequest, many: Bundles, runtimes: dict[str, Path], injector: Path
) -> Iterator[Boxes]:
    """Containers of each kind."""
    made = Boxes(many, runtimes[request.param], injector)
    yield made
    made.close()


@pytest.mark.parametrize(("kind", "scenario", "who"), CASES)
def test_every_system_call_fails_once(
    boxes: Boxes, totals: Totals, kind: str, scenario: Scenario, who: str
) -> None:
    try:
        sweep = Sweep(boxes.of(kind), scenario, who)
        sweep.run(every=EVERY and boxes.thorough)
    except BaseException:
        boxes.give_up(kind)
        raise
    assert sweep.totals
    totals.update(sweep.totals)


@pytest.mark.parametrize(("kind", "scenario", "who"), CASES)
def test_worker_without_descriptors_or_memory(
    boxes: Boxes, totals: Totals, kind: str, scenario: Scenario, who: str
) -> None:
    try:
        box = boxes.of(kind)
        sweep = Sweep(box, scenario, who)
        used = open_files(box.worker).total()
        sweep.starve(resource.RLIMIT_NOFILE, iter(range(3, used + 12, 1 if EVERY else 4)))
        sweep.starve(resource.RLIMIT_AS, iter([1]))
    except BaseException:
        boxes.give_up(kind)
        raise
    totals.update(sweep.totals)


def test_a_mount_that_may_not_be_looked_at_is_let_go_once_it_has_a_place(boxes: Boxes) -> None:
    """A FUSE file system says EACCES to all but its user; detached, its mount is not known either.

    The worker keeps what fsmount(2) has made until then: after that, nobody could unmount it.
    """
    box = boxes.of(MASKED)
    agent = box.agent(PLACE)

    def attach(nth: int = 0) -> list[Call]:
        for call in ("fsopen 1 tmpfs", "fsconfig 1 FSCONFIG_CMD_CREATE - -", "fsmount_at 2 1 -"):
            assert agent.call(call) == "0"
        box.injector.arm(nth, STATX, errno.EACCES)
        agent.send("move_mount 2 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH")
        calls = box.injector.result()
        assert agent.answer() == "0"
        for call in ("close 2", "close 1", "umount2 /mnt -"):
            assert agent.call(call) == "0", call
        return calls

    def of_source() -> int:
        numbers = [call.number for call in attach()]
        if MOVE_MOUNT not in numbers:  # on a busy machine it can be another thread that makes it
            return 0
        before = numbers[: numbers.index(MOVE_MOUNT)]
        return max(nth for nth, number in enumerate(before, 1) if number == STATX)

    try:
        tries = (attach(nth) for _ in range(10) if (nth := of_source()))
        assert any(call.failed for calls in tries for call in calls)
    except BaseException:
        boxes.give_up(MASKED)
        raise


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOMEM])
def test_a_caller_whose_pidfd_could_not_be_opened_has_its_descriptors_all_the_same(
    boxes: Boxes, error: int
) -> None:
    """EINVAL: a kernel before 6.9, which has none of a thread.  ENOMEM: there was no room once."""
    box = boxes.of(MASKED)
    agent = box.new_agent()
    try:
        box.injector.arm(1, PIDFD_OPEN, error)
        agent.send("mount none /mnt tmpfs - -")
        assert any(call.failed for call in box.injector.result())
        assert agent.answer() == ("0" if error == errno.EINVAL else "EPERM")
        for call in ("fsopen 1 tmpfs", "fsconfig 1 FSCONFIG_CMD_CREATE - -", "fsmount_at 2 1 -"):
            assert agent.call(call) == "0", call
        agent.call("umount2 /mnt MNT_DETACH")
    except BaseException:
        boxes.give_up(MASKED)
        raise
    finally:
        agent.close()
