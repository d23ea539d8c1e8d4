"""What a name means changes while a call is under way that has looked it up.

No matter of luck, as in test_races.py: `tests/support/moment.c` holds the worker's thread at the
end of each of its system calls in turn, and there another caller changes what the name leads to.
That one has its answer before the thread goes on, or it waits for its turn.  Whichever it is, all
must be as if one call had come after the other.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind
from tests.support.containers import Containers
from tests.support.engines import Bundles
from tests.support.faults import Agent
from tests.support.moments import Moment
from tests.support.programs import compile_tracer
from tests.support.waiting import kill
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

NR_FUTEX, NR_IOCTL = "202", "16"
ID_VALID = "0x40082102"
"""SECCOMP_IOCTL_NOTIF_ID_VALID."""
ENDS = range(0, 400, 2)
"""Moments that are ends of system calls; more than a call has."""
PATIENCE = 20
"""Seconds."""
# /t/in is a read-only volume that may not go; on it lies something of the container's own.
OWN = "mount none /t/in tmpfs - -"
MARK = "umount2 /t/in MNT_EXPIRE"
GOES = "umount2 /t/in MNT_DETACH"
MOVES = "mount /t/in /tmp - MS_MOVE -"
TMPFS = "mount none /mnt tmpfs - -"
DETACH = "umount2 /mnt MNT_DETACH"
CLEAN = ("/mnt", "/tmp", "/t/in")


@dataclass(frozen=True, slots=True)
class Case:
    """What comes before, a call, another caller's; and what is seen, whichever of them is first.

    What is seen are the answers, of the call and of the other one, and of a look afterwards.
    """

    before: tuple[str, ...]
    call: str
    other: str
    look: str = "mounts /t/in"
    first: tuple[str, str, str] = ("0", "EPERM", "1")
    last: tuple[str, str, str] = ("EPERM", "0", "1")
    too: tuple[str, str, str] | None = None
    """What is right as well."""


CASES = {
    "umount": Case((OWN,), "umount2 /t/in -", GOES),
    "umount_of_a_dot": Case((OWN,), "umount2 /t/in/. -", GOES),
    # That the other one looks it up is use of it, so that it does not go.
    "umount_of_what_has_expired": Case((OWN, MARK), MARK, GOES, too=("EAGAIN", "0", "1")),
    "move": Case((OWN,), "mount /t/in /mnt - MS_MOVE -", MOVES),
    "move_mount": Case((OWN,), "move_mount cwd /t/in cwd /mnt -", MOVES),
    # The container's own: what is on top by then goes, and not what was.
    "detach": Case((TMPFS, TMPFS), DETACH, DETACH, "mounts /mnt", ("0",) * 3, ("0",) * 3),
}  # fmt: skip


class Pair:
    """Two callers of one container, and its worker."""

    def __init__(self, containers: Containers, tracer: Path) -> None:
        volume = containers.volume("sub")
        top = {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []}
        made = containers.start(top, bind(volume, "/t/in", "ro"), privileged=False)
        self.made = made
        self.worker = worker_of(made.pid)
        self.one, self.other = (Agent(made.runtime, made.name) for _ in range(2))
        self._tracer = tracer

    def waits_for_its_turn(self) -> bool:
        """Whether a thread of the worker does: nothing else has one sleep on a futex."""
        for task in Path(f"/proc/{self.worker}/task").iterdir():
            with suppress(OSError):  # it has ended
                if (task / "syscall").read_text().split()[0] == NR_FUTEX:
                    return int(task.name) != self.worker
        return False

    def await_other(self) -> None:
        """Return when the other one has its answer, or waits for its turn."""
        deadline = time.monotonic() + PATIENCE
        while not (self.other.is_there() or self.waits_for_its_turn()):
            assert time.monotonic() < deadline, "it hangs"
            time.sleep(0.001)

    def at(self, number: int, case: Case) -> tuple[str, str, str] | None:
        """Make both calls, the other one at that moment; None where there is none of the number."""
        assert {self.one.call(call) for call in case.before} <= {"0", "EAGAIN"}
        with Moment(self._tracer, self.worker, number, "hold") as moment:
            self.one.send(case.call)
            held = moment.said() == "held"
            if held:
                self.other.send(case.other)
                self.await_other()
                moment.go_on()
                assert moment.said() == "whole"
            answers = self.one.answer(), self.other.answer() if held else ""
        look = self.one.call(case.look)
        for place in CLEAN:
            self.one.call(f"umount2 {place} MNT_DETACH")
        return (*answers, look) if held else None

    def killed_at(self, number: int, call: str) -> bool | None:
        """Kill one that makes a call, at that moment; None where there is none of the number.

        Returns whether the worker had still to ask if anybody waits.
        """
        with (
            closing(Agent(self.made.runtime, self.made.name)) as caller,
            Moment(self._tracer, self.worker, number, "hold") as moment,
        ):
            caller.send(call)
            if moment.said() != "held":
                assert caller.answer() == "0"
                return None
            asks = any(
                (task / "syscall").read_text().split()[:3:2] == [NR_IOCTL, ID_VALID]
                for task in Path(f"/proc/{self.worker}/task").iterdir()
            )
            kill(caller.pid)
            moment.go_on()
            assert moment.said() == "whole"
            return asks

    def close(self) -> None:
        """Let both go."""
        self.one.close()
        self.other.close()


@pytest.fixture(scope="module")
def pair(place: Place, runtimes: dict[str, Path], programs: dict[str, Path]) -> Iterator[Pair]:
    """Two callers, with runc; the worker is the same with crun."""
    bundles = Bundles(place, place.root)
    containers = Containers(bundles, place, runtimes["eci"], programs)
    made = Pair(containers, compile_tracer(place.directory("c"), "moment"))
    yield made
    made.close()
    bundles.close()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_call_after_the_other(pair: Pair, case: Case) -> None:
    seen = []
    for number in ENDS:
        outcome = pair.at(number, case)
        if outcome is None:
            break
        assert outcome in {case.first, case.last, case.too}, f"moment {number}"
        seen.append(outcome)
    assert len(seen) < len(ENDS)
    # The other one was first in the beginning, and last in the end.
    assert (seen[0], seen[-1]) == (case.last, case.first)


REMOUNT = "mount - mnt - MS_REMOUNT|MS_BIND|MS_NOEXEC -"
"""That the caller is in its directory no more is noticed before; that it waits no more, last."""


def test_nothing_is_done_for_a_caller_that_has_gone(pair: Pair) -> None:
    """All that was read of it may be another's by then; up to the last look it is not done."""
    done = []
    asked = []
    for number in range(400):
        assert pair.other.call(TMPFS) == "0"
        asks = pair.killed_at(number, REMOUNT)
        done.append(pair.other.call("flags /mnt") == "rw,noexec")
        assert pair.other.call(DETACH) == "0"
        if asks is None:
            break
        asked.append(asks)
    # It begins to ask at one moment, and is told at the next.
    last = asked.index(True)
    assert asked[last:] == [True, True, *[False] * (len(asked) - last - 2)]
    assert done == [False] * (last + 1) + [True] * (len(done) - last - 1)
