"""Random calls get the kernel's answers, but where a rule says no.

`python -m tests.differential --calls 500000` goes on for longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.search import search

if TYPE_CHECKING:
    from tests.differential.sides import Sides

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

CALLS = 25_000
SEED = 11
"""One that finds no difference, as do those from 12 to 20: the long run takes new ones."""


# What takes so long is to find the shortest script when there is a difference.
@pytest.mark.timeout(900)
def test_random_calls_are_answered_as_by_the_kernel(sides: Sides) -> None:
    count = search(sides, SEED, CALLS)
    assert count.calls >= CALLS
    # Were everything an error, or nothing refused, the comparison would show little.
    assert count.done > CALLS / 20
    assert count.refused > CALLS / 200
