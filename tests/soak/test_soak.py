"""Ten minutes of mixed load; `make soak` runs it, `make test` does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.run import soak

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.place import Place

MINUTES = 10
SEED = 1

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow, pytest.mark.soak]


@pytest.mark.timeout(MINUTES * 60 + 400)
def test_nothing_grows(place: Place, runtimes: dict[str, Path], tmp_path: Path) -> None:
    result = soak(place, runtimes, MINUTES, tmp_path, seed=SEED, alone=True)
    print(result.text())  # noqa: T201 - shown where the test fails
    assert result.all_faults == []
