"""What one call costs, and what it would cost in other ways.

Rungs, all in one container (see containers.py):

- `native`: no filter.
- `filtered`: a filter that the call passes.
- `verdict`: a C listener that lets every call go on; the way there and back, the floor.
- `blind`: a C listener that looks at the objects and makes the call, and never asks who is calling.
- `eci`: this project, in a container with a read-only volume: every call is trapped.
- `spared`: this project, in another one that was given nothing that hides anything: unmounts,
  binds and new file systems are not trapped.
- `fork`: a process for each call, which enters the namespaces and makes the call (C).
- `python`: a listener in Python that stays in the namespaces and makes the calls.
- `ptrace`: a tracer in Python that stops at every system call, and lets it go on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.containers import HERE, NoAnswerError, pid_of, workshop
from benchmarks.frame import calibrate, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.containers import Container, Program, Workshop
    from benchmarks.frame import Result, Run

NAME = "ladder"
PYTHON = (sys.executable, "-s", "-P")


@dataclass(frozen=True, slots=True)
class Case:
    """A case of calls.c, and what its two calls and both together are called here."""

    word: str
    first: str = ""
    second: str = ""
    both: str = ""
    rivals: bool = True
    """Do all rungs make it?  A new procfs needs more than the rivals do."""
    locked: bool = False
    """Is it about the read-only volume, which `spared` has not?"""


CASES = (
    Case("tmpfs", "mount tmpfs", "umount", "tmpfs pair"),
    Case("bind", "mount bind", "umount bind", "bind pair"),
    Case("procfs", both="procfs pair", rivals=False),
    Case("overlay", both="overlay pair"),
    Case("detach", second="umount detach"),
    Case("remount", "remount"),
    Case("move", "move_mount"),
    Case("setattr", "mount_setattr"),
    Case("missing", "failing mount"),
    Case("refused", "refused mount", locked=True),
)
Samples: TypeAlias = "dict[str, list[tuple[int, int]]]"
"""For each rung the nanoseconds of the two calls of a case."""
RIVALS = ("blind", "fork", "python", "ptrace")


def measure(run: Run) -> Iterator[Result]:
    """Ask all rungs in turns, a batch each, and yield the statistics of each call."""
    rounds = run.pick(6, 40)
    with ExitStack() as stack:
        shop = stack.enter_context(workshop())
        container = stack.enter_context(shop.container())
        spared = stack.enter_context(shop.container(locked=False)).program
        rungs = {
            name: spared if name == "spared" else stack.enter_context(rung(shop, container, name))
            for name in ("native", "filtered", "spared", "eci", "verdict", *RIVALS)
        }
        for case in run.steps(CASES, NAME):
            without = (*(() if case.rivals else RIVALS), *(("spared",) if case.locked else ()))
            some = {name: one for name, one in rungs.items() if name not in without}
            samples = in_turns(some, case.word, rounds, run.pick(20e6, 40e6))
            yield from results(case, samples)


@contextmanager
def rung(shop: Workshop, container: Container, name: str) -> Iterator[Program]:
    """Give a program in the container whose calls are answered as that rung does."""
    listeners = {
        "verdict": [shop.program("verdict")],
        "blind": [shop.program("blind")],
        "fork": [shop.program("fork")],
        "python": [*PYTHON, os.path.join(HERE, "listener.py")],
    }
    if name == "eci":
        yield container.program
    elif name in listeners:
        with shop.entered(container, name, "mounts", listeners[name]) as program:
            yield program
    elif name == "ptrace":
        with shop.entered(container, name) as program, tracer(program):
            yield program
    else:
        filtering = "other" if name == "filtered" else "none"
        with shop.entered(container, name, filtering) as program:
            yield program


def in_turns(rungs: dict[str, Program], word: str, rounds: int, batch: float) -> Samples:
    """Have each rung make a batch of calls in each round; return the times of the two calls.

    `batch`: how many nanoseconds a batch takes at least, after which its count is chosen.
    """

    def timed(program: Program) -> int:
        return calibrate(lambda count: sum(program.ask(word, count)), batch, most=20_000)

    counts = {name: timed(program) for name, program in rungs.items()}
    samples: Samples = {name: [] for name in rungs}
    for _ in range(rounds):
        for name, program in rungs.items():
            numbers = program.ask(word, counts[name])
            samples[name] += zip(numbers[0::2], numbers[1::2], strict=True)
    return samples


def results(case: Case, samples: Samples) -> Iterator[Result]:
    """Yield statistics in microseconds of the first call, of the second, of both; of each rung."""
    for name, pick in (
        (case.first, lambda pair: pair[0]),
        (case.second, lambda pair: pair[1]),
        (case.both, sum),
    ):
        for rung, pairs in samples.items() if name else ():
            times = [pick(pair) / 1000 for pair in pairs]
            yield summary(NAME, name, rung, "µs", times)


@contextmanager
def tracer(program: Program) -> Iterator[None]:
    """Let every system call of the program stop at a tracer."""
    with subprocess.Popen(
        [*PYTHON, os.path.join(HERE, "tracer.py"), str(pid_of(program))], stdout=subprocess.PIPE
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline() != b"ready\n":
                raise NoAnswerError("the tracer is not ready")
            yield
        finally:
            process.kill()
