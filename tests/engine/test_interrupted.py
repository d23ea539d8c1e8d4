"""Callers that are interrupted, killed or frozen after their call was performed.

The moment is no matter of luck: `tests/support/late.c` stops the worker where it is about to
answer.  What happens to the caller then is what can happen to it with a runtime whose filters do
not wait killable; with crun nothing but a fatal signal reaches it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import make_spec
from tests.support.engines import Bundles
from tests.support.programs import compile_late
from tests.support.rootfs import build_root
from tests.support.waiting import NR_MOUNT, NR_UMOUNT2, call_of, stop, wait_until
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from tests.support.bundle import Runtime
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

PATIENCE = 10.0


def read_line(stream: IO[str] | None) -> str:
    """Return the next line; fail where none comes.  The stream is unbuffered or read here only."""
    assert stream is not None
    assert select.select([stream], [], [], PATIENCE)[0], "nothing came"
    return stream.readline().rstrip("\n")


class Program:
    """A program in the container, `mnt` as a rule, whose lines are read one by one."""

    def __init__(self, runtime: Runtime, name: str, pid_file: Path, words: str) -> None:
        argv = runtime.argv("exec", "--pid-file", str(pid_file), name, *words.split())
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._pid_file = pid_file
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Its pid on the host."""
        wait_until(
            lambda: self._pid_file.exists() and self._pid_file.read_text() != "", "no pid", PATIENCE
        )
        return int(self._pid_file.read_text())

    def say(self) -> None:
        """Let it go on from a `wait`."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"x")
        self.process.stdin.flush()

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        stream = self.process.stdout.fileno()
        while b"\n" not in self._buffer:
            assert select.select([stream], [], [], PATIENCE)[0], "nothing came"
            read = os.read(stream, 4096)
            assert read, f"it ended: {self.errors()}"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def lines(self, count: int) -> list[str]:
        """Return the next lines."""
        return [self.line() for _ in range(count)]

    def skip_to(self, wanted: str) -> list[str]:
        """Return the lines before `wanted`, which is read as well."""
        seen: list[str] = []
        while (line := self.line()) != wanted:
            seen.append(line)
        return seen

    def errors(self) -> str:
        """Return what it has said to stderr; ends it."""
        self.process.kill()
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def state(self) -> str:
        """Return the letter that the kernel has for its state."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def is_calling(self) -> bool:
        """Whether it waits in a system call of the mount family."""
        return call_of(self.pid) in {NR_MOUNT, NR_UMOUNT2}

    def mounts(self) -> list[str]:
        """Return the mounts that it sees."""
        return Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()

    def is_dead(self) -> bool:
        """Whether it is no more than a zombie."""
        with suppress(OSError):
            return self.state() in {"Z", "X"}
        return True

    def close(self) -> None:
        """End it, also inside of the container."""
        with suppress(OSError, ValueError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


class Late:
    """Holds the worker back before each of its answers."""

    def __init__(self, program: Path, worker: int) -> None:
        self._process = subprocess.Popen(
            [program, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert read_line(self._process.stdout) == "ready"

    def held(self) -> None:
        """Wait until an answer is held back."""
        assert read_line(self._process.stdout) == "held"

    def next(self) -> None:
        """Let that answer go out, and hold the next one."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Let all answers go out from now on."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        """End, whatever it does."""
        with self._process:
            self._process.kill()


@dataclass(slots=True)
class Container:
    """A container with masks and CAP_SYS_ADMIN, its worker, and whether its calls wait killable."""

    runtime: Runtime
    name: str
    place: Place
    late: Path
    worker: int
    killable: bool
    descriptors: int = 0
    """How many the worker has when it is idle."""

    def run(self, words: str) -> list[str]:
        """Run a program to its end; returns its lines."""
        return self.runtime.call("exec", self.name, *words.split()).stdout.splitlines()

    @contextmanager
    def program(self, words: str) -> Iterator[Program]:
        """Start a program in it."""
        pid_file = self.place.directory("p") / "pid"
        program = Program(self.runtime, self.name, pid_file, words)
        try:
            yield program
        finally:
            program.close()

    @contextmanager
    def held_back(self) -> Iterator[Late]:
        """Hold the worker's answers back.  The last of them must have come before it ends.

        To be let go of interrupts the worker, and where that waits for a caller to take its
        descriptor, the kernel answers with descriptor 0 (ARCHITECTURE.md, "An interrupted call").
        """
        late = Late(self.late, self.worker)
        try:
            yield late
        finally:
            late.close()

    def settle(self) -> None:
        """Return when the worker has done with what it was about: one call has its turn."""
        assert self.run("mnt umount2 /bin -") == ["EINVAL"]

    def _holdings(self) -> tuple[int, int]:
        proc = Path(f"/proc/{self.worker}")
        return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))

    def is_idle(self) -> None:
        """Wait until the worker has the threads and descriptors of a container without `exec`."""
        wait_until(
            lambda: self._holdings()[0] == len(("main", "the first listener")),
            "a thread stays",
            PATIENCE,
        )
        if not self.descriptors:
            time.sleep(0.5)  # the thread has ended, and its listener is still to be closed
            self.descriptors = self._holdings()[1]
        wait_until(lambda: self._holdings()[1] == self.descriptors, "a descriptor stays", PATIENCE)


@pytest.fixture(scope="module")
def late_program(place: Place) -> Path:
    """Return the program that holds answers back."""
    return compile_late(place.directory("c"))


@pytest.fixture(scope="module")
def own_root(place: Place, programs: dict[str, Path]) -> Path:
    """Return a root file system for this module."""
    root = build_root(place.directory("b") / "root", programs.values())
    (root / "tmp/file").touch()
    return root


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def container(
    request: pytest.FixtureRequest,
    place: Place,
    runtimes: dict[str, Path],
    own_root: Path,
    late_program: Path,
) -> Iterator[Container]:
    """Return a running container, on each runtime; tests leave it as they found it."""
    bundles = Bundles(place, own_root)
    name = bundles.name()
    program = bundles.runtime(runtimes[request.param])
    bundles.expect(program, name)
    spec = make_spec(["sleep", "1000"], cgroup=bundles.cgroup(name), cap_add=["CAP_SYS_ADMIN"])
    spec["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}
    ]
    spec["linux"]["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    )
    pid_file = place.directory("p") / "pid"
    bundle = bundles.write(spec)
    program.call("create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
    program.start(name)
    worker = worker_of(int(pid_file.read_text()))
    made = Container(program, name, place, late_program, worker, request.param == "eci-crun")
    made.settle()
    made.is_idle()
    yield made
    bundles.close()


# -- signals ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A call, what comes before it, and what can be seen of it."""

    before: str
    call: str
    look: str
    """What shows whether it was performed."""
    without: str
    with_it: str
    answer: str = "0"
    taken_back: bool = False
    """Whether nothing is left of it where the caller sees EINTR."""


TMPFS = "mount none /mnt tmpfs - -"
TWO = f"{TMPFS} , mkdir /mnt/a , mkdir /mnt/b , mount none /mnt/a tmpfs - -"


def fuse_for(user: int) -> str:
    """Return the words that make a context of FUSE for a user in slot 1, which nobody serves."""
    options = {"fd": 9, "rootmode": 40000, "user_id": user, "group_id": 0}
    words = [f"fsconfig 1 FSCONFIG_SET_STRING {key} {value}" for key, value in options.items()]
    words = [
        "descriptor /dev/fuse 9",
        "fsopen 1 fuse",
        *words,
        "fsconfig 1 FSCONFIG_CMD_CREATE - -",
    ]
    return " , ".join(words)


CASES = {
    "new": Case("", TMPFS, "mounts /mnt", "0", "1", taken_back=True),
    "new_proc": Case("", "mount proc /mnt proc - -", "mounts /mnt", "0", "1", taken_back=True),
    "new_on_the_root": Case("", "mount none / tmpfs - -", "mounts /", "1", "2", taken_back=True),
    "new_in_a_chroot": Case(
        f"{TMPFS} , mkdir /mnt/a , chroot /mnt/a",
        "mount none / tmpfs - -",
        "write /x",
        "0",
        "0",
        taken_back=True,
    ),
    # It comes to lie on the mount that covers the working directory.
    "new_from_beneath": Case(
        f"chdir /mnt , {TMPFS} , mount none /tmp tmpfs - -",
        "mount none . tmpfs - -",
        "mounts /mnt",
        "1",
        "2",
        taken_back=True,
    ),
    # Its descriptor serves for one mount.
    "new_fuse": Case(
        "descriptor /dev/fuse 9",
        "mount fuse /mnt fuse - fd=9,rootmode=40000,user_id=0,group_id=0",
        "mounts /mnt",
        "0",
        "1",
    ),
    "bind": Case("", "mount /bin /mnt - MS_BIND -", "mounts /mnt", "0", "1", taken_back=True),
    "bind_of_a_tree": Case(
        "", "mount / /mnt - MS_BIND|MS_REC -", "mounts /mnt/proc", "0", "1", taken_back=True
    ),
    "bind_of_a_file": Case(
        "",
        "mount /etc/passwd /tmp/file - MS_BIND -",
        "mounts /tmp/file",
        "0",
        "1",
        taken_back=True,
    ),
    "remount": Case(
        TMPFS, "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY -", "flags /mnt", "rw", "ro"
    ),
    "remount_of_the_file_system": Case(
        TMPFS, "mount - /mnt - MS_REMOUNT|MS_RDONLY -", "write /mnt/x", "0", "EROFS"
    ),
    "propagation": Case(
        f"{TMPFS} , mount - /mnt - MS_PRIVATE -",
        "mount - /mnt - MS_UNBINDABLE -",
        "tree /mnt OPEN_TREE_CLONE",
        "0",
        "EINVAL",
    ),
    "move": Case(TWO, "mount /mnt/a /mnt/b - MS_MOVE -", "mounts /mnt/b", "0", "1"),
    "umount": Case(f"{TMPFS} , {TMPFS}", "umount2 /mnt -", "mounts /mnt", "2", "1"),
    "umount_detach": Case(f"{TMPFS} , {TMPFS}", "umount2 /mnt MNT_DETACH", "mounts /mnt", "2", "1"),
    # Where it comes again it would find the mark, and unmount.
    "umount_expire": Case(TMPFS, "umount2 /mnt MNT_EXPIRE", "mounts /mnt", "1", "1", "EAGAIN"),
    "mount_setattr": Case(
        TMPFS, "mount_setattr /mnt - MOUNT_ATTR_RDONLY - -", "flags /mnt", "rw", "ro"
    ),
    "move_mount": Case(f"{TWO} , tree /mnt/a -", "attach /mnt/b -", "mounts /mnt/b", "0", "1"),
    "move_mount_of_a_detached_tree": Case(
        "tree /bin OPEN_TREE_CLONE", "attach /mnt -", "mounts /mnt", "0", "1"
    ),
    "move_mount_of_a_new_mount": Case(
        "context tmpfs , made", "attach /mnt -", "mounts /mnt", "0", "1"
    ),
    "fsmount": Case("context tmpfs", "made", "attach /mnt -", "EBADF", "0"),
    # Nobody serves it, so that it answers nothing: fsmount(2) does not ask it either.
    "fsmount_of_fuse": Case(
        fuse_for(0),
        "fsmount_at 2 1 0",
        "move_mount 2 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH",
        "EINVAL",
        "0",
    ),
    "fsmount_of_proc": Case("context proc", "made", "attach /mnt -", "EBADF", "0"),
}  # fmt: skip


def start_of(case: Case, handler: str) -> str:
    """Return the words that make everything ready for the call."""
    before = f"{case.before} , " if case.before else ""
    return f"mnt unshare CLONE_NEWNS , {before}catch {handler} , wait"


def is_ready(program: Program) -> None:
    """Read what comes before the call, which has to have worked."""
    seen = program.skip_to("waiting")
    assert set(seen) <= {"0"}, seen


def interrupt(container: Container, program: Program, late: Late, times: int = 1) -> None:
    """Send the signal while the answer is held, `times` times, and let the last answer go."""
    program.say()
    late.held()
    assert program.line() == "0"  # of `wait`
    for round_ in range(times):
        if round_:
            late.next()
            late.held()
        os.kill(program.pid, signal.SIGUSR2)
        if container.killable:
            break
        assert program.line() == "caught"
    if container.killable:
        wait_until(lambda: program.state() == "D", "it does not wait killable", PATIENCE)
    late.end()
    if container.killable:
        assert program.line() == "caught"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_restarted_call_is_performed_once(container: Container, case: Case) -> None:
    """The kernel makes the call again by itself, three times, and the program sees one answer."""
    words = f"{start_of(case, 'SA_RESTART')} , {case.call} , {case.look} , wait"
    with container.program(words) as program:
        is_ready(program)
        with container.held_back() as late:
            interrupt(container, program, late, 3)
            assert program.lines(2) == [case.answer, case.with_it]
    container.is_idle()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_call_that_fails_with_eintr(container: Container, case: Case) -> None:
    """A new mount is taken back; all else is done, and the same call made again says so."""
    twice = "" if container.killable else "twice "
    words = f"{start_of(case, '-')} , {twice}{case.call} , {case.look} , wait"
    with container.program(words) as program:
        is_ready(program)
        mounts = program.mounts()
        with container.held_back() as late:
            interrupt(container, program, late)
            if not container.killable:
                assert program.lines(2) == ["EINTR", "waiting"]
                container.settle()
                if case.taken_back:
                    assert program.mounts() == mounts
                program.say()
            assert program.lines(2) == [case.answer, case.with_it]
    container.is_idle()


@pytest.mark.parametrize("user", [0, 1000])
def test_file_system_that_nobody_serves(container: Container, user: int) -> None:
    """No call waits for an answer of it where the kernel needs none."""
    made = (
        f"unshare CLONE_NEWNS , {fuse_for(user)} , fsmount_at 2 1 MOUNT_ATTR_NOEXEC , "
        "setattr 2 '' AT_EMPTY_PATH MOUNT_ATTR_RDONLY 0 0 , "
        "move_mount 2 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH , close 2"
    )
    used = (
        "setattr cwd /mnt 0 0 MOUNT_ATTR_RDONLY 0 , mount /mnt /tmp - MS_BIND - , umount2 /tmp - , "
        f"{TMPFS} , umount2 /mnt - , mount - /mnt - MS_REMOUNT|MS_BIND|MS_NOSUID - , "
        "mount /mnt /tmp - MS_MOVE - , umount2 /tmp -"
    )
    with container.program(f"mnt {made} , wait , {used}") as program:
        is_ready(program)
        assert re.search(r" /mnt ro,noexec,.* - fuse none ", program.mounts()[-1])
        program.say()
        assert program.lines(9) == ["0"] * 9
    container.is_idle()


# -- ends ---------------------------------------------------------------------------------

NEW = [name for name, case in CASES.items() if case.taken_back and not case.before]


@pytest.mark.parametrize("name", [*NEW, "fsmount", "fsmount_of_proc", "umount"])
def test_killed_caller_leaves_nothing(container: Container, name: str) -> None:
    case = CASES[name]
    if name == "umount":
        container.run("mnt mount none /mnt tmpfs - -")
        case = Case("", "umount2 /mnt -", "", "", "")
    mounts = container.run("cat /proc/self/mountinfo")
    start = f"mnt {case.before} , wait" if case.before else "mnt wait"
    with container.program(f"{start} , {case.call}") as program:
        is_ready(program)
        with container.held_back() as late:
            program.say()
            late.held()
            os.kill(program.pid, signal.SIGKILL)
            wait_until(program.is_dead, "it does not die", PATIENCE)
            late.end()
    container.is_idle()
    after = container.run("cat /proc/self/mountinfo")
    if name == "umount":
        assert after == [line for line in mounts if " /mnt " not in line]
    else:
        assert after == mounts


@pytest.mark.parametrize("name", ["new", "umount", "move", "fsmount"])
def test_frozen_caller(container: Container, name: str) -> None:
    """Where nothing but a fatal signal interrupts, it is frozen once it has its answer."""
    case = CASES[name]
    with container.program(f"{start_of(case, '-')} , {case.call} , {case.look} , wait") as program:
        is_ready(program)
        with container.held_back() as late, TemporaryFile() as stdio:
            program.say()
            late.held()
            argv = container.runtime.argv("pause", container.name)
            pause = subprocess.Popen(argv, stdin=stdio, stdout=stdio, stderr=stdio)
            if not container.killable:
                assert pause.wait(PATIENCE) == 0
            late.end()
            assert pause.wait(PATIENCE) == 0
            container.runtime.call("resume", container.name)
            assert program.lines(3) == ["0", case.answer, case.with_it]
    container.is_idle()


# Keeps everything else off the processor that it is told, for half a second.
HOG = """\
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print("runs", flush=True)
end = time.monotonic() + 0.5
while time.monotonic() < end:
    pass
"""


@contextmanager
def hog(processor: int) -> Iterator[None]:
    """Let nothing else run on `processor`, until half a second is over."""
    argv = [sys.executable, "-c", HOG, str(processor)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert read_line(process.stdout) == "runs"
        yield
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["new", "umount", "move"])
def test_caller_is_awake_before_its_answer(container: Container, name: str) -> None:
    """It was interrupted and has not run since: it is given no answer before it does."""
    case = CASES[name]
    words = f"{start_of(case, 'SA_RESTART')} , {case.call} , {case.look} , wait"
    with container.program(words) as program:
        is_ready(program)
        stop(container.worker)
        try:
            program.say()
            assert program.line() == "0"  # of `wait`
            wait_until(program.is_calling, "it does not call", PATIENCE)
            processor = min(os.sched_getaffinity(program.pid))
            os.sched_setaffinity(program.pid, {processor})
            with hog(processor):
                os.kill(program.pid, signal.SIGUSR2)
                os.kill(container.worker, signal.SIGCONT)
        finally:
            os.kill(container.worker, signal.SIGCONT)
        assert sorted(program.lines(3)) == sorted(["caught", case.answer, case.with_it])
    container.is_idle()


@pytest.mark.parametrize("name", ["new", "bind"])
def test_exec_in_another_thread(container: Container, name: str) -> None:
    """The thread that calls is killed, and its number goes to the one that executes."""
    case = CASES[name]
    words = f"mnt unshare CLONE_NEWNS , wait , heir /mnt , {case.call}"
    with container.program(words) as program:
        assert program.skip_to("waiting") == ["0"]
        with container.held_back() as late:
            program.say()
            assert program.lines(2) == ["0", "0"]
            late.held()
            program.say()
            assert program.skip_to("waiting") == []
            late.end()
            container.settle()
        program.say()
        assert program.lines(2) == ["0", case.without]
    container.is_idle()


# Not on a runtime whose filters do not wait killable: there a signal in the very moment of the
# answer can lose it, if seldom, which neither side is told (ARCHITECTURE.md, "An interrupted
# call").
@pytest.mark.slow
@pytest.mark.parametrize("container", ["eci-crun"], indirect=True)
@pytest.mark.parametrize("handler", ["restart", "eintr"])
@pytest.mark.parametrize("program", ["storm", "storm32"])
def test_storm_of_signals(container: Container, handler: str, program: str) -> None:
    """Whatever a call answers, the mount table is as it says, thousands of times."""
    script = (
        "mnt unshare CLONE_NEWNS >&2; mount -t tmpfs none /mnt && mkdir /mnt/a /mnt/b && "
        f"{program} {handler} 600 700 /mnt; umount -l /mnt"
    )
    done = container.runtime.call("exec", container.name, "sh", "-c", script, timeout=100)
    seen = dict(re.findall(r"(\w+)=(\d+)", done.stdout))
    assert int(seen.get("calls", 0)) >= 3600, done.stdout
    assert int(seen["signals"]) > 100
    container.is_idle()
