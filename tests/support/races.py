"""Which races are run on which runtime."""

from __future__ import annotations

import itertools
import os

RUNTIMES = ("eci", "eci-crun")
PROGRAMS = ("race", "race32")
EVERY = os.environ.get("ECI_RACES") == "all"
"""Whether each race is run in every pair."""


def pairs(values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return pairs of a runtime and one of `values`: each of both, in turn.

    A runtime has no part in a race: it has made the container, and decided about its listener.
    Which call it is, and how wide, stands in the notification, which no thread can change.
    """
    if EVERY:
        return list(itertools.product(RUNTIMES, values))
    return [(RUNTIMES[number % 2], value) for number, value in enumerate(values)]
