"""The chart of a soak: one small picture for each series."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.soak.meter import Sample
    from tests.soak.verdict import Finding

COLUMNS = 3


def draw(samples: Sequence[Sample], findings: Sequence[Finding], title: str, path: Path) -> None:
    """Write the chart as SVG: what there was under load, dots at rest, the slope over the dots."""
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "soak"
    rows = -(-len(findings) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.3 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    rests = [sample for sample in samples if sample.rest]
    for axes, finding in zip(figure.subplots(rows, COLUMNS).flat, findings, strict=False):
        name = finding.series.name
        axes.plot(
            [sample.seconds / 60 for sample in samples],
            [sample.values[name] for sample in samples],
            color="#b2bec3",
            linewidth=0.8,
        )
        axes.plot(
            [sample.seconds / 60 for sample in rests],
            [sample.values[name] for sample in rests],
            "o",
            color="#d35400",
            markersize=3,
        )
        slope = finding.slope
        judged = "" if finding.judged else ", not judged"
        axes.set_title(
            f"{finding.series.title}\n"
            f"{slope.value:+.2f}/h, 95 %: {slope.low:+.2f} to {slope.high:+.2f}{judged}",
            fontsize=8,
        )
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=5)
        axes.set_xlabel("minutes", fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    # A tenth of a point is as much as anybody sees.
    path.write_text(re.sub(r"(\d\.\d)\d+", r"\1", path.read_text()))
