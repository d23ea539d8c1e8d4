"""Where Hypothesis takes its choices from, so that a seed stands for the same scripts always.

Its own source draws, now and then, a number that it has found in the source of the project's
modules, of those that happen to be imported by then: what a seed stood for changed with every
commit, and with the order of the tests.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


class SeedAlone(HypothesisProvider):
    """Hypothesis' own source of choices without the numbers that it has collected."""

    def _maybe_draw_constant(self, *_args: object, **_options: object) -> None:
        """Draw none."""


@contextmanager
def seed_alone() -> Iterator[None]:
    """Let the seed alone decide what is drawn meanwhile.

    In the place of Hypothesis' own source: one of another name would be a source that it knows
    nothing of, and it would make other scripts of the choices.
    """
    usual = AVAILABLE_PROVIDERS["hypothesis"]
    AVAILABLE_PROVIDERS["hypothesis"] = SeedAlone
    try:
        yield
    finally:
        AVAILABLE_PROVIDERS["hypothesis"] = usual
