"""Random scripts on both sides until there are enough, or two answers differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.differential.repeatable import seed_alone
from tests.differential.vocabulary import scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.differential.sides import Comparison, Script, Sides

LENGTH = 60
"""Calls of a script, those between mount calls included."""
ROUND = 100
"""Scripts from one seed: a test that goes on and on varies less and less."""


@dataclass
class Count:
    """How much was compared."""

    scripts: int = 0
    calls: int = 0
    """Of the mount family."""
    done: int = 0
    """... that were successful."""
    refused: int = 0
    """... that a rule refused."""

    def add(self, comparison: Comparison) -> None:
        """Count a script."""
        self.scripts += 1
        self.calls += comparison.calls
        self.done += comparison.done
        self.refused += comparison.refused


def search(sides: Sides, number: int, calls: int) -> Count:
    """Compare scripts with at least so many calls, made from the seed `number`.

    AssertionError with the shortest script that was found, what differs, and the seed.
    """
    count = Count()
    rounds = 0
    while count.calls < calls:
        _round(sides, f"{number}.{rounds}", count)
        rounds += 1
    return count


def _round(sides: Sides, number: str, count: Count) -> None:
    def compare(script: Script) -> None:
        comparison = sides.run(script)
        count.add(comparison)
        text = "\n".join([*comparison.differences, str(script), f"seed {number}"])
        assert not comparison.differences, text

    draw(number, compare)


def draw(number: str, use: Callable[[Script], None], number_of_scripts: int = ROUND) -> None:
    """Call `use` with each of the scripts that the seed stands for.

    Where it fails, with shorter ones until the shortest is found that fails.
    """

    @seed(number)
    @settings(
        max_examples=number_of_scripts,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(scripts(LENGTH))
    def each(script: Script) -> None:
        use(script)

    with seed_alone():
        each()
