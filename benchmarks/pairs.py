"""How much longer a mount takes in a protected container than without one.

The same static program runs in two places that both live through the whole measurement: in a user
and mount namespace of its own (native), and in a privileged container under eci-runtime.  They are
asked in turns, A B A B, so that whatever else the machine does falls on both.

An unmount waits for an expedited RCU grace period, and what that costs depends on what else runs:
3 µs for one program alone on an otherwise idle machine, 40 to 60 µs where another processor is
busy, or where all has to run on one.  A supervised call has two processes at work, so it never
sees the best case; a native one does.  Hence both conditions are measured.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eci_supervisor.cli.bundle import Request, configuration
from eci_supervisor.cli.run import last_capability, runtime_program

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = os.path.join(os.path.dirname(__file__), "pairs.c")
KINDS = ("tmpfs", "bind", "missing")
TITLES = {
    "tmpfs": ("mount tmpfs", "umount tmpfs"),
    "bind": ("mount --bind", "umount bind"),
    "missing": ("mount, fails: ENOENT", ""),
}
WARM_UP = 20


@dataclass(slots=True)
class Place:
    """A running program and what it has answered so far, in nanoseconds."""

    process: subprocess.Popen[str]
    mounts: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    umounts: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def ask(self, kind: str, count: int) -> tuple[list[int], list[int]]:
        """Let it do `count` pairs and return the times of the mounts and of the umounts."""
        into, out = self.process.stdin, self.process.stdout
        if into is None or out is None:
            raise RuntimeError("the program was started without pipes")
        into.write(f"{kind} {count}\n")
        into.flush()
        numbers = [int(word) for word in out.readline().split()]
        if len(numbers) != 2 * count:
            raise RuntimeError(f"{self.process.args!r} gave no answer; it ended with {_end(self)}")
        return numbers[0::2], numbers[1::2]

    def measure(self, kind: str, count: int) -> None:
        """Ask, and keep the answer."""
        mounts, umounts = self.ask(kind, count)
        self.mounts[kind] += mounts
        self.umounts[kind] += umounts


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one call, in microseconds."""

    call: str
    native: float
    protected: float
    pair: bool = False
    """A whole mount and umount: what the aim is about."""

    @property
    def ratio(self) -> float:
        """How many times the native median the protected one is."""
        return self.protected / self.native


def _end(place: Place) -> int:
    """Return the exit code of a place whose program has stopped answering."""
    return place.process.wait(10)


@contextmanager
def _place(command: list[str]) -> Iterator[Place]:
    """Give the running program; it ends with its input."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Place(process)
        # Its input ends here, and with it the program and the container.
        process.communicate(timeout=30)


@contextmanager
def _temporary_directory() -> Iterator[str]:
    """Give a directory on the file system of the container's root; it is removed at the end."""
    directory = tempfile.mkdtemp(prefix="eci-bench-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _bundle(directory: str, program: str) -> str:
    """Make the bundle of a privileged container that runs the program, and return its path."""
    rootfs = os.path.join(directory, "rootfs")
    for name in ("proc", "sys", "dev", "work"):
        os.makedirs(os.path.join(rootfs, name))
    shutil.copy(program, os.path.join(rootfs, "pairs"))
    request = Request(command=("/pairs", "/work"), rootfs=rootfs, hostname="bench", privileged=True)
    config = configuration(request, last_capability())
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as stream:
        json.dump(config, stream)
    return directory


@contextmanager
def _busy_processor() -> Iterator[None]:
    """Keep one processor busy with a process that never calls the kernel."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def run(rounds: int, count: int, *, busy: bool) -> list[Row]:
    """Measure `rounds` times `count` pairs of each kind in both places; return the medians.

    `busy`: while another process keeps a processor busy.
    """
    with ExitStack() as stack:
        if busy:
            stack.enter_context(_busy_processor())
        directory = stack.enter_context(_temporary_directory())
        program = os.path.join(directory, "pairs")
        subprocess.run(["gcc", "-O2", "-static", "-o", program, SOURCE], check=True)
        work = os.path.join(directory, "work")
        os.mkdir(work)
        bundle = _bundle(os.path.join(directory, "bundle"), program)
        unshare = ["unshare", "--user", "--map-root-user", "--mount"]
        native = stack.enter_context(_place([*unshare, program, work]))
        identity = f"eci-bench-{secrets.token_hex(6)}"
        protected = stack.enter_context(
            _place([runtime_program(), "run", "--bundle", bundle, identity])
        )
        for kind in KINDS:
            for place in (native, protected):
                place.ask(kind, WARM_UP)
        for _ in range(rounds):
            for kind in KINDS:
                for place in (native, protected):
                    place.measure(kind, count)
    return [row for kind in KINDS for row in _rows(kind, native, protected)]


def _rows(kind: str, native: Place, protected: Place) -> Iterator[Row]:
    """Yield the rows of one kind: mount, umount, both."""

    def median(times: list[int]) -> float:
        return statistics.median(times) / 1000

    mount, umount = TITLES[kind]
    yield Row(mount, median(native.mounts[kind]), median(protected.mounts[kind]))
    if not umount:
        return
    yield Row(umount, median(native.umounts[kind]), median(protected.umounts[kind]))
    whole = [
        median([sum(times) for times in zip(p.mounts[kind], p.umounts[kind], strict=True)])
        for p in (native, protected)
    ]
    yield Row(f"{kind}: mount + umount", whole[0], whole[1], pair=True)
