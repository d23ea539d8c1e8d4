"""Makes system calls of the worker fail: the driver of faults.c, and who calls in the container."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eci_supervisor.kernel import syscalls
from tests.support.programs import GCC, SOURCES
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.bundle import Runtime

PATIENCE = 20.0
"""Seconds until an answer counts as lost."""
CAPS = ("bounding", "effective", "permitted", "inheritable", "ambient")


class Call(NamedTuple):
    """A system call that was counted."""

    number: int
    result: int
    failed: bool
    """It was made to fail."""


class LostError(AssertionError):
    """No answer, or nobody who could give one."""


def compile_faults(out: Path) -> Path:
    """Build faults.c into `out`; returns the program."""
    target = out / "faults"
    subprocess.run([*GCC, "-o", str(target), str(SOURCES / "faults.c")], check=True)
    return target


def parse(line: str) -> Call:
    """Return the call of a line of the program's, without the thread."""
    number, result, *mark = line.split()
    return Call(int(number), int(result), mark == ["!"])


class Lines:
    """The lines of a pipe, each within `PATIENCE`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def is_there(self) -> bool:
        """Whether there is something to read."""
        return b"\n" in self._rest or bool(select.select([self._fd], [], [], 0)[0])

    def next(self, what: str) -> str:
        """Return the next one; `LostError` with `what` where none comes."""
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._fd, 65536) if ready else b""
            if not chunk:
                raise LostError(f"no answer: {what}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


class Injector:
    """Stands beside a worker: `faults attach`."""

    def __init__(self, program: Path, worker: int) -> None:
        self._process = subprocess.Popen(
            [program, "attach", str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin
        self._lines = Lines(self._process.stdout.fileno())

    def arm(self, nth: int = 0, number: int = 0, error: int = 0, times: int = 1) -> None:
        """Have the `nth` system call for the next call of the container fail; 0: none.

        Or the first after it that has that number, and `times` - 1 more of these.
        """
        self._to.write(b"%d %d %d %d\n" % (nth, number, error, times))
        self._to.flush()
        assert self._lines.next("the injector is not ready") == "armed"

    def result(self) -> list[Call]:
        """Return what the worker did for that call; `LostError` if it has ended."""
        calls = []
        while line := self._lines.next("the worker does not come back"):
            if line == "gone":
                raise LostError("the worker has ended")
            calls.append(parse(line))
        return calls

    def close(self) -> None:
        """Let go of the worker."""
        self._process.kill()
        self._process.wait()
        self._to.close()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Agent:
    """A process in a container that makes calls, one by one: `mnt -`."""

    def __init__(self, runtime: Runtime, name: str, *, user: int = 0) -> None:
        """Start it by `exec`; with `user`, as that one with CAP_SYS_ADMIN alone."""
        directory = runtime.root.parent / f"{runtime.root.name}-agent{time.monotonic_ns()}"
        directory.mkdir()
        pid_file = directory / "pid"
        caps = {key: ["CAP_SYS_ADMIN"] for key in CAPS}
        process = {
            "args": ["mnt", "-"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": user, "gid": user},
            "capabilities": caps,
        }
        words = ["mnt", "-"]
        if user:
            (directory / "process.json").write_text(json.dumps(process))
            words = ["--process", str(directory / "process.json")]
        head = ["exec", "--pid-file", str(pid_file)]
        argv = runtime.argv(*head, *words[:-2], name, *words[-2:])
        if user:
            argv = runtime.argv(*head, *words, name)
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin
        self._lines = Lines(self._process.stdout.fileno())
        assert self.call("chdir /") == "0"
        wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the pid file")
        self.pid = int(pid_file.read_text())

    def send(self, call: str) -> None:
        """Have a call made; `answer` must follow."""
        self._to.write("\t".join(shlex.split(call)).encode() + b"\n")
        self._to.flush()

    def answer(self) -> str:
        """Return what came of it: 0, or the name of an errno."""
        return self._lines.next("the caller waits for ever")

    def is_there(self) -> bool:
        """Whether the answer has come."""
        return self._lines.is_there()

    def call(self, call: str) -> str:
        """Make a call and return its answer."""
        self.send(call)
        return self.answer()

    def table(self) -> list[str]:
        """Return the mounts that it sees, without what differs between two equal ones."""
        return sorted(map(_mount, Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()))

    def close(self) -> None:
        """End it."""
        self._to.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _mount(line: str) -> str:
    """Return a line of mountinfo without ids, device and numbers of peer groups."""
    words = line.split()
    dash = words.index("-")
    kinds = [word.partition(":")[0] for word in words[6:dash]]
    # How the layers of an overlay were named is nobody's business.
    last = words[dash:-1] if words[dash + 1] == "overlay" else words[dash:]
    return " ".join([*words[3:6], *kinds, *last])


def open_files(pid: int) -> Counter[str]:
    """Return what a worker has open, and how often.

    Not the one descriptor of each file of a caller's in procfs, which it may keep or not.
    """
    found: Counter[str] = Counter()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[os.readlink(fd)] += 1
    for name in found:
        found[name] -= re.match(r"/proc/\d+(/|$)", name) is not None
    return +found


def mounts_of_namespaces(pid: int, but: Sequence[int]) -> dict[int, int]:
    """Return how many mounts there are in each mount namespace that a process holds, by inode.

    `but`: inodes of those that do not count.
    """
    found = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            text = os.readlink(fd)
        except OSError:
            continue
        if text.startswith("mnt:[") and (inode := int(text[5:-1])) not in but:
            found[inode] = _count_mounts(fd)
    return found


def _count_mounts(namespace: Path) -> int:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            syscalls.setns(fd, syscalls.lib.CLONE_NEWNS)
            table = os.open(f"{os.getpid()}/mountinfo", os.O_RDONLY, dir_fd=proc)
            with os.fdopen(table, "rb") as file:
                os.write(into, b"%d" % len(file.readlines()))
            status = 0
        finally:
            os._exit(status)
    for one in (fd, proc, into):
        os.close(one)
    with os.fdopen(out, "rb") as file:
        count = file.read()
    os.waitpid(child, 0)
    assert count, f"{namespace} cannot be entered"
    return int(count)
