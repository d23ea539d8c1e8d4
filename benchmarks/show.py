"""Results and findings as tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.expect import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.frame import Result

BASE = "native"
"""The rung that all others are compared with."""
COLOURS = {Verdict.OK: "green", Verdict.FAILED: "bold red", Verdict.UNMEASURED: "dim"}


def number(value: float) -> str:
    """Return three digits that mean something, or all that stand before the point."""
    for digits, below in ((3, 1), (2, 10), (1, 100)):
        if abs(value) < below:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def results_table(title: str, results: Sequence[Result]) -> Table:
    """Return one row per case and rung, with the median's ratio to `native` where there is one."""
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    table.add_column("rung")
    for name in ("p50", "p99", "max", "unit", "n", f"p50 / {BASE}"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    base = {one.case: one.p50 for one in results if one.rung == BASE}
    for at, one in enumerate(results):
        first = at == 0 or results[at - 1].case != one.case
        last = at + 1 == len(results) or results[at + 1].case != one.case
        has_ratio = one.rung != BASE and base.get(one.case)
        table.add_row(
            one.case if first else "",
            one.rung,
            number(one.p50),
            number(one.p99),
            number(one.max),
            one.unit,
            str(one.n),
            f"{one.p50 / base[one.case]:.2f}" if has_ratio else "",
            end_section=last,
        )
    return table


def findings_table(findings: Iterable[Finding]) -> Table:
    """Return one row per bound."""
    table = Table(title="what it must reach", title_justify="left")
    for name in ("bound", "limit", "figure", "", "then on to"):
        table.add_column(name, justify="right" if name in {"limit", "figure"} else "left")
    for finding in findings:
        bound = finding.bound
        sign = "≥" if bound.at_least else "≤"
        unit = f" {bound.unit}" if bound.unit else ""
        further = ""
        if bound.further is not None:
            reached = finding.figure is not None and bound.holds(finding.figure, bound.further)
            further = f"{sign} {bound.further:g}{': reached' if reached else ''}"
        table.add_row(
            bound.text,
            f"{sign} {bound.limit:g}{unit}",
            "" if finding.figure is None else f"{number(finding.figure)}{unit}",
            f"[{COLOURS[finding.verdict]}]{finding.verdict}",
            further,
        )
    return table
