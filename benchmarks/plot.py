"""Charts of a file of results, as SVG and PNG."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from benchmarks.frame import Result

_SERIES = re.compile(r"(.*) (\d+)")
COLOURS = {
    "native": "#7f8c8d",
    "again": "#95a5a6",
    "filtered": "#b2bec3",
    "verdict": "#0984e3",
    "blind": "#00b894",
    "eci": "#d35400",
    "spared": "#f39c12",
    "fork": "#8e44ad",
    "python": "#27ae60",
    "ptrace": "#c0392b",
}


def series(case: str) -> tuple[str, int] | None:
    """Return name and number of a case that is a point of a series: `mounts 100`."""
    match = _SERIES.fullmatch(case)
    return (match[1], int(match[2])) if match else None


def charts(results: Sequence[Result]) -> Iterator[tuple[str, Figure]]:
    """Yield a name and a figure for each chart: bars of single cases, lines of series."""
    for question in dict.fromkeys(one.question for one in results):
        of_it = [one for one in results if one.question == question]
        single = [one for one in of_it if series(one.case) is None]
        for unit in dict.fromkeys(one.unit for one in single):
            some = [one for one in single if one.unit == unit]
            several = len({one.unit for one in single}) > 1
            yield f"{question}-{_word(unit)}" if several else question, _bars(question, unit, some)
        lines = [(found[0], one) for one in of_it if (found := series(one.case))]
        for name in dict.fromkeys(name for name, _ in lines):
            of_series = [one for other, one in lines if other == name]
            yield f"{question}-{_word(name)}", _lines(name, of_series)


def draw(results: Sequence[Result], directory: str) -> list[str]:
    """Write every chart as SVG and PNG into the directory, and return the paths."""
    # Text stays text, and the same results make the same file.
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
    paths = []
    for name, figure in charts(results):
        for ending in ("svg", "png"):
            path = os.path.join(directory, f"{name}.{ending}")
            metadata = {"Date": None} if ending == "svg" else None
            figure.savefig(path, dpi=120, bbox_inches="tight", metadata=metadata)
            paths.append(path)
    return paths


def _word(text: str) -> str:
    """Return the text as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("µ", "u")).strip("-")


def _rungs(results: Sequence[Result]) -> list[str]:
    """Return the rungs, in the order in which they first appear."""
    return list(dict.fromkeys(one.rung for one in results))


def _bars(question: str, unit: str, results: Sequence[Result]) -> Figure:
    """Return medians as bars, and a line from each up to its p99."""
    cases = list(dict.fromkeys(one.case for one in results))
    rungs = _rungs(results)
    figure = Figure(figsize=(min(14.0, max(6.0, 0.8 * len(cases) + 0.1 * len(results))), 4.5))
    axes = figure.subplots()
    width = 0.8 / len(rungs)
    for at, rung in enumerate(rungs):
        mine = [one for one in results if one.rung == rung]
        places = [cases.index(one.case) + (at - (len(rungs) - 1) / 2) * width for one in mine]
        medians = [one.p50 for one in mine]
        above = [max(0.0, one.p99 - one.p50) for one in mine]
        axes.bar(places, medians, width, label=rung, color=COLOURS.get(rung))
        axes.errorbar(places, medians, [[0.0] * len(mine), above], fmt="none", ecolor="#2d3436",
                      elinewidth=0.6)  # fmt: skip
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right")
    values = [one.p50 for one in results if one.p50 > 0]
    if values and max(values) / min(values) > 20:  # noqa: PLR2004 - else the small ones vanish
        axes.set_yscale("log")
    _finish(axes, f"{question}: median, line up to p99", unit)
    return figure


def _lines(name: str, results: Sequence[Result]) -> Figure:
    """Return medians as a line per rung, over the number in the case."""
    figure = Figure(figsize=(6.0, 4.0))
    axes = figure.subplots()
    for rung in _rungs(results):
        points = sorted(
            (found[1], one.p50)
            for one in results
            if one.rung == rung and (found := series(one.case))
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=rung, color=COLOURS.get(rung))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    _finish(axes, name, results[0].unit)
    return figure


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left")
    axes.margins(x=0.02)
    axes.set_ylabel(unit)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
