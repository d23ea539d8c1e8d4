"""Whether a line is flat.  Pure: numbers in, verdict out.

A line *rises* where the lower end of the 95 % interval of its Theil-Sen slope is above the bound
that its series states: a leak is then both certain and large enough to matter.  The median of all
pairwise slopes is not moved by a few samples that stand out, and the interval is Kendall's
(Sen 1968; Hollander and Wolfe, "Nonparametric Statistical Methods", 9.3).

What has to be as before is compared with the start once everything has ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR = 3600.0
Z = 1.96
"""Of the two-sided 95 % interval."""
WARM = 1 / 3
"""The part of the run that is not judged: caches fill, tables reach their size."""
LEAST = 5
"""Fewer samples say nothing about a slope."""


@dataclass(frozen=True, slots=True)
class Series:
    """One number that is recorded, and how far it may go."""

    name: str
    title: str
    per_hour: float
    """The slope that is allowed, in the number's own unit."""
    slack: float = 0.0
    """How much more than at the start may be left at the end."""
    shared: bool = False
    """The whole machine's: judged only where nobody else uses it."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Theil-Sen slope and its 95 % interval, per hour."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one series."""

    series: Series
    slope: Slope
    start: float
    end: float
    judged: bool

    @property
    def faults(self) -> list[str]:
        """Return what is wrong, in words."""
        if not self.judged:
            return []
        one = self.series
        found = []
        if self.slope.low > one.per_hour:
            found.append(
                f"{one.title}: rises by {self.slope.value:.2f} an hour "
                f"(at least {self.slope.low:.2f}; allowed {one.per_hour:g})"
            )
        if self.end > self.start + one.slack:
            found.append(
                f"{one.title}: {self.end:g} at the end, {self.start:g} at the start "
                f"(allowed {one.slack:g} more)"
            )
        return found


def theil_sen(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the slope of `values`, per hour; ValueError with fewer than `LEAST` of them."""
    count = len(values)
    if count < LEAST:
        raise ValueError(f"{count} samples say nothing about a slope")
    slopes = sorted(
        (values[j] - values[i]) / (seconds[j] - seconds[i]) * HOUR
        for i in range(count)
        for j in range(i + 1, count)
    )
    spread = Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(math.floor((len(slopes) - spread) / 2), 0)
    high = min(math.ceil((len(slopes) + spread) / 2), len(slopes) - 1)
    return Slope(median(slopes), slopes[low], slopes[high])


def judge(
    series: Series,
    seconds: Sequence[float],
    values: Sequence[float],
    *,
    start: float,
    end: float,
    alone: bool,
) -> Finding:
    """Judge one series by its samples at rest; `seconds` from the beginning of the load on."""
    warm = seconds[-1] * WARM
    judged = [(second, value) for second, value in zip(seconds, values, strict=True)
              if second >= warm]  # fmt: skip
    slope = theil_sen([second for second, _ in judged], [value for _, value in judged])
    return Finding(series, slope, start, end, judged=alone or not series.shared)
