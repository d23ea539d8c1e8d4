"""How many pairs of mount and unmount are made at once.

Of a tmpfs, by processes that begin at the same moment and each do nothing else: 1 to 32 processes
in one container, and one process in each of 1 to 64 containers.  Native and under this project in
turns, for the same length of time each; in one container also as `spared` and `verdict`, which are
those of ladder.py.

- `throughput`: pairs in a second, all processes together; one sample a turn.
- `longest`: the longest pair of each process in milliseconds; one sample for each and turn.
- `fairness`: pairs of the process that made fewest in a turn, in times of the one that made most.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.containers import workshop
from benchmarks.frame import summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.containers import Program, Workshop
    from benchmarks.frame import Result, Run

NAME = "storm"
AHEAD_NS = 500_000_000
"""All processes are there by then, and wait for the moment."""


@dataclass(slots=True)
class Turns:
    """What one rung did in its turns, at one point of a series."""

    throughput: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    fairness: list[float] = field(default_factory=list)

    def add(self, numbers: Sequence[int], milliseconds: int) -> None:
        """Add a turn: pairs and nanoseconds of the longest, for each process."""
        made, longest = numbers[0::2], numbers[1::2]
        self.throughput.append(sum(made) * 1000 / milliseconds)
        self.longest += [one / 1e6 for one in longest]
        self.fairness.append(min(made) / max(made))


def measure(run: Run) -> Iterator[Result]:
    """Yield throughput, longest wait and fairness of each rung at each point."""
    with workshop() as shop:
        yield from in_one(run, shop)
        yield from in_many(run, shop)


def in_one(run: Run, shop: Workshop) -> Iterator[Result]:
    """Storm with ever more processes in one container."""
    with (
        shop.container() as container,
        shop.entered(container, "native") as native,
        shop.entered(container, "verdict", "mounts", [shop.program("verdict")]) as verdict,
        shop.container(locked=False) as spared,
    ):
        rungs = {
            "native": native,
            "verdict": verdict,
            "eci": container.program,
            "spared": spared.program,
        }
        for count in run.steps(run.pick((1, 32), (1, 2, 4, 8, 16, 32)), "storm: processes"):
            turns = {name: Turns() for name in rungs}
            for _ in range(run.pick(3, 10)):
                for name, program in rungs.items():
                    turns[name].add(storm([program], count, length(run)), length(run))
            yield from results(f"processes {count}", turns)


def in_many(run: Run, shop: Workshop) -> Iterator[Result]:
    """Storm in ever more containers, with one process in each."""
    with ExitStack() as stack:
        rungs: dict[str, list[Program]] = {"native": [], "eci": []}
        for count in run.steps(run.pick((1, 8), (1, 4, 16, 64)), "storm: containers"):
            while len(rungs["eci"]) < count:
                container = stack.enter_context(shop.container())
                rungs["eci"].append(container.program)
                rungs["native"].append(stack.enter_context(shop.entered(container, "native")))
            turns = {name: Turns() for name in rungs}
            for _ in range(run.pick(3, 10)):
                for name, programs in rungs.items():
                    turns[name].add(storm(programs, 1, length(run)), length(run))
            yield from results(f"containers {count}", turns)


def length(run: Run) -> int:
    """Return how many milliseconds a turn takes."""
    return run.pick(200, 500)


def storm(programs: Sequence[Program], processes: int, milliseconds: int) -> list[int]:
    """Let each program storm with so many processes; return their answers in one list."""
    at = time.monotonic_ns() + AHEAD_NS
    for program in programs:
        program.send("storm", processes, at, milliseconds)
    return [number for program in programs for number in program.receive()]


def results(point: str, turns: dict[str, Turns]) -> Iterator[Result]:
    """Yield the statistics of a point."""
    for rung, of_it in turns.items():
        yield summary(NAME, f"throughput, {point}", rung, "pairs/s", of_it.throughput)
    for rung, of_it in turns.items():
        yield summary(NAME, f"longest, {point}", rung, "ms", of_it.longest)
    for rung, of_it in turns.items():
        yield summary(NAME, f"fairness, {point}", rung, "fewest/most", of_it.fairness)
