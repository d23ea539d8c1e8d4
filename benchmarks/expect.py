"""The inequalities that the project has set itself, and whether a file of results keeps them.

Pure: results in, findings out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.frame import Result


class Verdict(StrEnum):
    """What came of a bound."""

    OK = "ok"
    FAILED = "failed"
    UNMEASURED = "not measured"


class Figures:
    """Results, looked up by question, case and rung."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = {(one.question, one.case, one.rung): one for one in results}

    def get(self, question: str, case: str, rung: str, stat: str = "p50") -> float:
        """Return one statistic; KeyError where it was not measured."""
        value: float = getattr(self._results[question, case, rung], stat)
        return value

    def ratio(self, question: str, case: str, rung: str, to: str, stat: str = "p50") -> float:
        """Return how many times the figure of `to` that of `rung` is."""
        return self.get(question, case, rung, stat) / self.get(question, case, to, stat)

    def added(self, question: str, case: str) -> float:
        """Return the time that eci adds to a call, in times of what `verdict` adds."""
        native = self.get(question, case, "native")
        floor = self.get(question, case, "verdict") - native
        return (self.get(question, case, "eci") - native) / floor


@dataclass(frozen=True, slots=True)
class Bound:
    """One line of the table."""

    text: str
    limit: float
    figure: Callable[[Figures], float]
    """Raises KeyError where a result is missing."""
    at_least: bool = False
    """The figure has to be so great; else it must not be greater."""
    further: float | None = None
    """What to reach after that; no failure."""
    unit: str = ""

    def holds(self, figure: float, limit: float) -> bool:
        """Say whether the figure keeps the limit."""
        return figure >= limit if self.at_least else figure <= limit


@dataclass(frozen=True, slots=True)
class Finding:
    """A bound, its figure where there is one, and what that means."""

    bound: Bound
    figure: float | None
    verdict: Verdict


def _ratio(
    question: str, case: str, rung: str, to: str, stat: str = "p50"
) -> Callable[[Figures], float]:
    return lambda figures: figures.ratio(question, case, rung, to, stat)


def _added(case: str) -> Callable[[Figures], float]:
    return lambda figures: figures.added("ladder", case)


def _difference(question: str, case: str, rung: str, to: str) -> Callable[[Figures], float]:
    return lambda figures: figures.get(question, case, rung) - figures.get(question, case, to)


def _value(question: str, case: str, rung: str) -> Callable[[Figures], float]:
    return lambda figures: figures.get(question, case, rung)


def _growth(case: str, few: int, many: int) -> Callable[[Figures], float]:
    """Return how the ratio to native grows between two points of a series."""

    def figure(figures: Figures) -> float:
        small, great = (
            figures.ratio("growth", f"{case} {count}", "eci", "native") for count in (few, many)
        )
        return great / small

    return figure


def _untouched(case: str) -> Callable[[Figures], float]:
    """Return eci in times of the slower of two equal containers: they differ by noise alone."""

    def figure(figures: Figures) -> float:
        equal = (figures.get("untouched", case, rung) for rung in ("native", "again"))
        return figures.get("untouched", case, "eci") / max(equal)

    return figure


UNTOUCHED = ("getppid", "open", "stat", "fork+exec", "compile", "apt-get install",
             "compile, privileged", "apt-get install, privileged")  # fmt: skip
"""Not the bare calls of a privileged container: there a filter is new, and has its price."""
OTHER_CALLS = ("start", "state", "kill", "delete")

BOUNDS: tuple[Bound, ...] = (
    Bound(
        "tmpfs pair, eci / native",
        1.3,
        _ratio("ladder", "tmpfs pair", "eci", "native"),
        further=1.15,
    ),
    Bound(
        "bind pair, eci / native", 1.6, _ratio("ladder", "bind pair", "eci", "native"), further=1.4
    ),
    Bound("added to mount bind, eci / verdict", 3.0, _added("mount bind"), further=2.0),
    Bound("added to remount, eci / verdict", 3.0, _added("remount"), further=2.0),
    Bound("added to failing mount, eci / verdict", 2.2, _added("failing mount")),
    Bound("added to refused mount, eci / verdict", 2.2, _added("refused mount")),
    Bound(
        "tmpfs pair, p99, eci / native", 1.5, _ratio("ladder", "tmpfs pair", "eci", "native", "p99")
    ),
    Bound(
        "bind pair, p99, eci / native", 1.5, _ratio("ladder", "bind pair", "eci", "native", "p99")
    ),
    Bound(
        "mount tmpfs, fork / eci", 5, _ratio("ladder", "mount tmpfs", "fork", "eci"), at_least=True
    ),
    Bound("procfs pair, eci / native", 2, _ratio("ladder", "procfs pair", "eci", "native")),
    Bound("overlay pair, eci / native", 2, _ratio("ladder", "overlay pair", "eci", "native")),
    Bound(
        "tmpfs pair, spared / native",
        1.3,
        _ratio("ladder", "tmpfs pair", "spared", "native"),
        further=1.15,
    ),
    Bound(
        "bind pair, spared / native",
        1.6,
        _ratio("ladder", "bind pair", "spared", "native"),
        further=1.4,
    ),
    Bound(
        "tmpfs pair, p99, spared / native",
        1.5,
        _ratio("ladder", "tmpfs pair", "spared", "native", "p99"),
    ),
    Bound("procfs pair, spared / native", 2, _ratio("ladder", "procfs pair", "spared", "native")),
    Bound(
        "32 processes in one container, throughput spared / native",
        0.8,
        _ratio("storm", "throughput, processes 32", "spared", "native"),
        at_least=True,
    ),
    Bound(
        "tmpfs pair, 10,000 mounts / 10, eci over native",
        1.1,
        _growth("tmpfs pair, mounts", 10, 10_000),
    ),
    Bound(
        "bind pair, 10,000 mounts / 10, eci over native",
        1.1,
        _growth("bind pair, mounts", 10, 10_000),
    ),
    Bound(
        "32 processes in one container, throughput eci / native",
        0.8,
        _ratio("storm", "throughput, processes 32", "eci", "native"),
        at_least=True,
    ),
    *(
        Bound(f"untouched: {case}, eci / native or again", 1.01, _untouched(case))
        for case in UNTOUCHED
    ),
    Bound(
        "bubblewrap, 200 times, eci / native",
        1.1,
        _ratio("real", "bubblewrap, 200 times", "eci", "native"),
    ),
    Bound(
        "docker run --rm true, eci / native",
        1.15,
        _ratio("real", "docker run --rm true", "eci", "native"),
    ),
    Bound("create, added", 30, _difference("start", "create", "eci", "native"), unit="ms"),
    *(
        Bound(f"{case}, added", 3, _difference("start", case, "eci", "native"), unit="ms")
        for case in OTHER_CALLS
    ),
    Bound(
        "PSS per container, 100 containers",
        1,
        _value("start", "PSS per container, containers 100", "eci"),
        unit="MiB",
    ),
    Bound("idle: wake-ups per minute", 0, _value("start", "wake-ups per minute", "eci")),
)
"""Every bound.  What `native` means in each question is told in README.md."""


def check(results: Iterable[Result], bounds: Iterable[Bound] = BOUNDS) -> Iterator[Finding]:
    """Yield a finding for each bound."""
    figures = Figures(results)
    for bound in bounds:
        try:
            figure = bound.figure(figures)
        except KeyError:
            yield Finding(bound, None, Verdict.UNMEASURED)
            continue
        kept = bound.holds(figure, bound.limit)
        yield Finding(bound, figure, Verdict.OK if kept else Verdict.FAILED)
