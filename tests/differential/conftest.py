"""The two sides, for every test here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.sides import Sides, sides_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.place import Place


@pytest.fixture(scope="module")
def sides(place: Place) -> Iterator[Sides]:
    """Containers with and without protection, of each kind."""
    with sides_in(place) as both:
        yield both
