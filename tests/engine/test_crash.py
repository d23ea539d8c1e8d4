"""Whichever process of ours is killed, and whenever: nothing is lost, and nobody let in.

Moments are no matter of luck: `tests/support/moment.c` kills the worker at the beginning or the
end of the N-th system call that it makes for a call.  Each moment is tried with
`ECI_KILL_STEP=1` (`make kills`), else some, spread over all.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime import cleanup, state
from tests.engine.test_interrupted import Program
from tests.support.bundle import add_fuse, bind
from tests.support.moments import Moment
from tests.support.programs import compile_tracer
from tests.support.waiting import call_of, kill, stop, wait_until
from tests.support.worker import holder_of, worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.bundle import Spec
    from tests.support.containers import Container, Containers
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

STEP = int(os.environ.get("ECI_KILL_STEP", "9"))
SOON = 1.0
"""Seconds: how long a call may wait for its answer, and the next one for its turn."""
LOOSEN = "mount - /vol - MS_REMOUNT|MS_BIND -"
CALLS = f"mnt mount none /mnt tmpfs - - , umount2 /mnt - , {LOOSEN}".split()
ANSWERS = ["0", "0", "EPERM"]


@pytest.fixture(scope="module")
def moments(place: Place) -> Path:
    """Return the program that kills at a moment."""
    return compile_tracer(place.directory("c"), "moment")


class Box:
    """A container with masks, CAP_SYS_ADMIN, a read-only volume and /dev/fuse; and what is ours."""

    def __init__(self, containers: Containers, place: Place) -> None:
        self.place = place
        volume = containers.volume("d")
        self.container: Container = containers.start(
            bind(volume, "/vol", "ro"), privileged=False, change=add_fuse
        )
        (self.state_dir,) = place.state_dir.glob(f"containers/{self.container.name}-*")

    @property
    def worker(self) -> int:
        """The process that serves."""
        return worker_of(self.container.pid)

    @property
    def holder(self) -> int:
        """The one that starts the next worker."""
        return holder_of(self.container.pid)

    def keepers(self) -> list[int]:
        """Return the keeper and its second, in this order.

        Both have the keeper's lock open; the second sleeps until the keeper is gone.
        """
        lock = self.state_dir / "lock"
        found = [pid for pid in _pids() if _has_open(pid, lock)]
        return sorted(found, key=lambda pid: (_parent(pid) in found, pid))

    def has_both(self) -> bool:
        """Whether there is a keeper, a second of its own, a worker and a holder of that."""
        try:
            return len(self.keepers()) == len(("keeper", "second")) and self.worker != self.holder
        except AssertionError:
            return False

    def exec(self) -> list[str]:
        """Join the container with a new process, which mounts and tries what is refused."""
        return self.container.run(*CALLS)

    def rests(self) -> bool:
        """Whether the keeper is the waiting program, and waits."""
        keeper = self.keepers()[0]
        return Path(f"/proc/{keeper}/exe").readlink().name == "eci-keeper"

    @contextmanager
    def program(self, words: str) -> Iterator[Program]:
        """Start a program in it."""
        pid_file = self.place.directory("p") / "pid"
        program = Program(self.container.runtime, self.container.name, pid_file, words)
        try:
            yield program
        finally:
            program.close()


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    """Return what /proc/PID/stat has behind the name: the state, the parent."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int | None:
    try:
        return int(_stat(pid)[1])
    except OSError:
        return None


def _has_open(pid: int, path: Path) -> bool:
    descriptors = f"/proc/{pid}/fd"
    try:
        wanted = path.stat()
        return any(
            os.path.samestat(os.stat(f"{descriptors}/{name}"), wanted)
            for name in os.listdir(descriptors)
        )
    except OSError:
        return False


@pytest.fixture
def box(containers: Containers, place: Place) -> Box:
    """A running container."""
    return Box(containers, place)


def _is_dead(pid: int) -> bool:
    try:
        return _stat(pid)[0] in {"Z", "X"}
    except OSError:
        return True


# -- the worker, at each moment of a call ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A call; what comes before it; what shows whether it was performed; and how to undo it."""

    before: str
    call: str
    look: str
    seen: str
    after: str
    answers: frozenset[str] = frozenset({"0"})
    """What the caller may see.  Where it is no 0, nothing is looked at."""


NR_OPENAT2 = 437
TMPFS = "mount none /mnt tmpfs - -"
GONE = "umount2 /mnt MNT_DETACH"
SEAL = "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY -"
LOST = frozenset({"0", "EINVAL", "EBUSY"})
TWO = f"{TMPFS} , mkdir /mnt/a , mkdir /mnt/b , mount none /mnt/a tmpfs - -"
CASES = {
    "new": Case("", TMPFS, "mounts /mnt", "1", GONE),
    "new_proc": Case("", "mount proc /mnt proc - -", "mounts /mnt", "1", GONE),
    "bind": Case("", "mount /bin /mnt - MS_BIND -", "mounts /mnt", "1", GONE),
    "move": Case(TWO, "mount /mnt/a /mnt/b - MS_MOVE -", "mounts /mnt/b", "1", GONE),
    "umount": Case(f"{TMPFS} , {TMPFS}", "umount2 /mnt -", "mounts /mnt", "1", GONE),
    "umount_detach": Case(f"{TMPFS} , {TMPFS}", GONE, "mounts /mnt", "1", GONE),
    "remount": Case(TMPFS, SEAL, "flags /mnt", "ro", GONE),
    "move_mount": Case("tree /bin OPEN_TREE_CLONE", "attach /mnt -", "mounts /mnt", "1", GONE),
    # The mount that was made is gone with the worker where nobody had got it.
    "fsmount": Case("context tmpfs", "made", "attach /mnt -", "0", GONE, LOST),
    "refused": Case("", LOOSEN, "flags /vol", "ro", "write /vol/x", frozenset({"EPERM"})),
}  # fmt: skip
MOST_MOMENTS = 400
BEGINS = {"unshare CLONE_NEWNS": "0", "umount2 /bin -": "EINVAL"}
"""What each program does first, and the answers; by the last one its listener is served."""
THREADS = len(("main", "for the first process", "for the program"))


def words_of(case: Case, rounds: int) -> str:
    """Return the words of a program that makes the call again and again."""
    steps = [case.before, "wait", case.call, case.look, case.after]
    return " , ".join([*BEGINS, *[step for step in steps if step] * rounds])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_worker_killed_at_each_moment(box: Box, moments: Path, case: Case) -> None:
    """The caller gets one answer within a second, and what it asked for is done once."""
    before = len(case.before.split(" , ")) if case.before else 0
    numbers = range(0, MOST_MOMENTS, STEP)
    with box.program(f"mnt {words_of(case, len(numbers))}") as program:
        assert program.lines(len(BEGINS)) == list(BEGINS.values())
        wait_until(box.has_both, "something of ours is missing")
        descriptors = open_files(box.worker)
        holder = box.holder
        for moment in numbers:
            assert set(program.lines(before)) <= {"0"}
            assert program.line() == "waiting"
            if not kill_at(program, moments, await_served(holder), moment, case):
                break
        else:
            pytest.fail("the call takes more moments than were tried")
        assert moment > 0
    assert box.exec() == ANSWERS
    wait_until(lambda: open_files(box.worker) <= descriptors, "a descriptor stays open")


def kill_at(program: Program, moments: Path, worker: int, moment: int, case: Case) -> bool:
    """Let the program make its call, kill the worker at that moment; False where it is over."""
    with Moment(moments, worker, moment, "kill") as tracer:
        program.say()
        assert program.line() == "0"
        said = tracer.said()
        began = time.monotonic()
        answer = program.line()
    assert time.monotonic() - began < SOON, f"moment {moment}"
    assert answer in case.answers, f"moment {moment}"
    seen, after = program.lines(2)
    if answer == "0":
        assert (seen, after) == (case.seen, "0"), f"moment {moment}"
    elif case.call == LOOSEN:
        assert (seen, after) == (case.seen, "EROFS"), f"moment {moment}"
    return said == "killed"


def served_by(holder: int) -> int:
    """Return the pid of the worker of a holder, once it serves every listener; else 0."""
    children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    return next((pid for pid in map(int, children) if threads_of(pid) == THREADS), 0)


def await_served(holder: int) -> int:
    """Wait for that worker, and return it: a second look may find a thread more, and so nobody."""
    found = [0]

    def look() -> int:
        found.append(served_by(holder))
        return found[-1]

    wait_until(look, "not every listener is served")
    return found[-1]


def threads_of(pid: int) -> int:
    """Return how many threads it has; 0 where it is gone."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    return 0


def calls_of(pid: int) -> set[int]:
    """Return the system calls that its threads wait in."""
    try:
        return {call_of(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}
    except OSError:
        return set()


def open_files(pid: int) -> int:
    """Return how many descriptors it has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_worker_killed_while_others_wait(box: Box) -> None:
    """Calls that nobody has received are not lost either."""
    words = f"mnt wait , {TMPFS} , {GONE} , {LOOSEN}"
    # On a place of its own: one that goes as it is mounted upon is ENOENT, natively as well.
    with box.program(words) as one, box.program(words.replace("/mnt", "/tmp")) as other:
        assert [one.line(), other.line()] == ["waiting"] * 2
        worker = box.worker
        stop(worker)
        for program in (one, other):
            program.say()
            assert program.line() == "0"
            wait_until(program.is_calling, "it does not call")
        kill(worker)
        assert [one.lines(3), other.lines(3)] == [ANSWERS] * 2
    assert box.exec() == ANSWERS
    assert "killed by signal 9" in (box.state_dir / "keeper.log").read_text()


def test_call_that_two_later_workers_meet_is_denied(box: Box) -> None:
    """It may be what kills them.  Here it hangs, in a file system that nobody serves."""
    options = "fd=9,rootmode=40000,user_id=0,group_id=0"
    silent = f"descriptor /dev/fuse 9 , mount fuse /mnt fuse - {options}"
    with box.program(f"mnt {silent} , wait , mount none /mnt/x tmpfs - -") as program:
        assert program.lines(3) == ["0", "0", "waiting"]
        program.say()
        assert program.line() == "0"
        for _ in ("the one that received it", "the next one"):
            # It has taken the call up, and not only begun.
            wait_until(lambda: NR_OPENAT2 in calls_of(box.worker), "it does not hang")
            kill(box.worker)
        assert program.line() == "EPERM"
    assert box.container.run("mnt", "umount2", "/mnt", "MNT_DETACH") == ["0"]
    assert box.exec() == ANSWERS


def test_worker_killed_again_and_again(box: Box) -> None:
    for _ in range(5):
        kill(box.worker)
        assert box.exec() == ANSWERS
    wait_until(box.has_both, "something of ours is missing")


def test_holder_killed(box: Box) -> None:
    """The worker makes itself another one, and then there is one for it, too."""
    for _ in range(2):
        kill(box.holder)
        assert box.exec() == ANSWERS
        wait_until(box.has_both, "nobody holds")
        kill(box.worker)
        assert box.exec() == ANSWERS
        wait_until(box.has_both, "nobody serves")
    log = (box.state_dir / "keeper.log").read_text()
    assert log.count("the holder of the worker was killed") == len(("one", "other"))


# -- the keeper -----------------------------------------------------------------------------


def the_end_comes(box: Box) -> None:
    """Delete the container: nothing of ours stays."""
    pids = [*box.keepers(), box.worker, box.holder]
    box.container.runtime.call("delete", "--force", box.container.name)
    wait_until(lambda: not box.state_dir.exists(), "the state stays")
    wait_until(lambda: all(_is_dead(pid) for pid in pids), "a process stays")


@pytest.mark.parametrize("resting", [False, True])
def test_keeper_killed(box: Box, *, resting: bool) -> None:
    """Its second takes in whoever joins, with the same policy, and has a second soon."""
    wait_until(lambda: box.has_both() and (not resting or box.rests()), "it does not come to rest")
    for _ in range(2):
        keeper, second = box.keepers()
        kill(keeper)
        began = time.monotonic()
        assert box.exec() == ANSWERS
        assert time.monotonic() - began < 2 * SOON  # an exec of the runtime's is part of it
        wait_until(box.has_both, "no second")
        assert box.keepers()[0] == second
    wait_until(box.rests, "it does not rest")
    the_end_comes(box)


@pytest.mark.parametrize("resting", [False, True])
def test_second_killed(box: Box, *, resting: bool) -> None:
    wait_until(lambda: box.has_both() and (not resting or box.rests()), "it does not come to rest")
    keeper, second = box.keepers()
    kill(second)
    wait_until(box.has_both, "no second")
    assert box.keepers()[0] == keeper
    assert box.exec() == ANSWERS
    the_end_comes(box)


def test_container_ends_while_the_second_keeps_it(box: Box) -> None:
    wait_until(box.has_both, "no second")
    keeper, second = box.keepers()
    kill(keeper)
    assert second in box.keepers()
    the_end_comes(box)


def test_all_of_it_killed_one_after_the_other(box: Box) -> None:
    each: list[Callable[[], int]] = [
        lambda: box.worker,
        lambda: box.keepers()[0],
        lambda: box.holder,
    ]
    for _ in range(2):
        for of in each:
            wait_until(box.has_both, "something of ours is missing")
            kill(of())
            assert box.exec() == ANSWERS
    wait_until(box.has_both, "something of ours is missing")
    the_end_comes(box)


# -- while a container is being made --------------------------------------------------------


def _named(name: str) -> set[int]:
    """Return the pids of processes of that name."""
    found = set()
    for pid in _pids():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.add(pid)
    return found


@pytest.mark.parametrize("who", ["hook", "keeper", "worker"])
def test_killed_while_the_hook_waits(containers: Containers, place: Place, who: str) -> None:
    """The create fails, the next one is as ever, and nothing is left of either."""
    before = place.leftovers(patience=0)
    gate = place.directory("v")
    wait = f"touch {gate}/there; until [ -e {gate}/go ]; do sleep 0.02; done"

    def with_gate(spec: Spec) -> None:
        """Hold the runtime up before our hook comes."""
        spec["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", wait]}]}

    def hooks() -> list[int]:
        words = str(state_dir).encode()
        return [
            pid for pid in _named("eci-hook") if words in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def ours() -> list[tuple[int, int]]:
        """Return the keeper and the worker: they take the container up beside the runtime."""
        return [
            (keeper, worker)
            for keeper in _named("eci-keeper")
            if _has_open(keeper, state_dir / "lock")
            for worker in _named("eci-worker")
            if _parent(worker) == keeper
        ]

    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(containers.start, privileged=False, change=with_gate)
        try:
            wait_until((gate / "there").exists, "the runtime does not come to the hooks")
            (state_dir,) = place.state_dir.glob("containers/*")
            wait_until(ours, "no keeper and its worker")
            ((keeper, worker),) = ours()
            stop(keeper)
        finally:
            (gate / "go").touch()
        wait_until(hooks, "no hook")
        kill({"hook": hooks()[0], "keeper": keeper, "worker": worker}[who])
        if who != "keeper":
            os.kill(keeper, signal.SIGCONT)
        assert isinstance(made.exception(30), AssertionError)
    if who == "keeper":
        # crun runs no hooks then, and nobody clears up until somebody is short of ID ranges.
        store = state.open_store(str(place.state_dir))
        with store.locked():
            cleanup.collect(store, str(place.state_dir))
    assert containers.start(privileged=False).run("mnt", *TMPFS.split()) == ["0"]
    containers.bundles.close()
    assert place.leftovers(before=before) == []
