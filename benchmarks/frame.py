"""What every question shares: how it is asked, what it answers with, and the statistics."""

from __future__ import annotations

import importlib
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress

QUESTIONS = ("ladder", "growth", "storm", "untouched", "real", "start")
"""Modules of this package, in the order in which they are asked; see `Question`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """One case on one rung: a row of the JSON file."""

    question: str
    case: str
    """What was done.  A case that ends in a number is a point of a series (`mounts 100`)."""
    rung: str
    """By whom: `native` without anything of ours, `eci`, or a rival."""
    unit: str
    """Of the next three."""
    p50: float
    p99: float
    max: float
    n: int
    """How many samples there were."""


@dataclass(slots=True)
class Run:
    """One run of the suite: how thorough it is, and where it shows how far it has come."""

    quick: bool = False
    progress: Progress | None = None

    def pick(self, quick: T, full: T) -> T:
        """Return what this run is to use."""
        return quick if self.quick else full

    def steps(self, items: Sequence[T], title: str) -> Iterator[T]:
        """Yield the items, and move a progress bar of that title along."""
        if self.progress is None:
            yield from items
            return
        task = self.progress.add_task(title, total=len(items))
        for item in items:
            yield item
            self.progress.advance(task)
        self.progress.remove_task(task)


class Question(Protocol):
    """What a module of `QUESTIONS` has; the first line of its docstring is its title."""

    __doc__: str | None

    def measure(self, run: Run) -> Iterator[Result]:
        """Yield what was found; needs root.  `question` of each result is the module's name."""


def load(name: str) -> Question:
    """Return the module of a question."""
    module: Question = importlib.import_module(f"benchmarks.{name}")
    return module


def title(question: Question) -> str:
    """Return the first line of its docstring, without the full stop."""
    return (question.__doc__ or "").split("\n", 1)[0].rstrip(".")


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least `percent` of all samples do not exceed."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(question: str, case: str, rung: str, unit: str, samples: Sequence[float]) -> Result:
    """Return median, p99, maximum and number of the samples, which have the unit already."""
    return Result(
        question=question,
        case=case,
        rung=rung,
        unit=unit,
        p50=statistics.median(samples),
        p99=percentile(samples, 99),
        max=max(samples),
        n=len(samples),
    )


def calibrate(timed: Callable[[int], float], target: float, most: int = 1 << 20) -> int:
    """Return how many operations take at least `target` (in the unit of `timed`), or `most`.

    `timed(count)` does so many and says how long they took.  It is called with growing counts,
    so it also warms up what is measured.  A clock reading is thus small beside every sample.
    """
    count = 1
    while count < most:
        took = timed(count)
        if took >= target:
            break
        # Straight to the aim, but never more than tenfold: the first ones are cold.
        wanted = math.ceil(count * target / took) if took > 0 else most
        count = min(most, max(count + 1, min(wanted, count * 10)))
    return count
