"""Where Hypothesis takes its choices from, so that a seed stands for the same scripts always.

Its own source draws, now and then, a number that it has found in the source of the project's
modules, of those that happen to be imported by then: what a seed stood for changed with every
commit, and with the order of the tests.
"""

from __future__ import annotations

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

BACKEND = "seed-alone"
"""For `hypothesis.settings(backend=...)`."""


class SeedAlone(HypothesisProvider):
    """Hypothesis' own source of choices without the numbers that it has collected."""

    def _maybe_draw_constant(self, *_args: object, **_options: object) -> None:
        """Draw none."""


AVAILABLE_PROVIDERS[BACKEND] = SeedAlone
