"""The order in which files are given to several processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from tests.support.order import LONGEST, longest_first

if TYPE_CHECKING:
    import pytest

TOP = Path(__file__).parents[2]


def test_each_file_that_is_named_is_there() -> None:
    assert [name for name in LONGEST if not (TOP / name).exists()] == []
    assert len(set(LONGEST)) == len(LONGEST)


def test_the_longest_come_first_and_the_rest_stays_as_it_was() -> None:
    late, soon, first = "tests/unit/test_z.py", LONGEST[-1], "tests/workload/test_any.py"
    names = [f"{late}::b", f"{soon}::d", f"{late}::a", f"{soon}::c", f"{first}::e"]
    items = [SimpleNamespace(nodeid=name) for name in names]
    longest_first(cast("list[pytest.Item]", items))
    seen = [item.nodeid for item in items]
    assert seen == [f"{first}::e", f"{soon}::d", f"{soon}::c", f"{late}::b", f"{late}::a"]
