"""What the soak calls flat, and what not."""

from __future__ import annotations

from random import Random

import pytest

from tests.soak.verdict import LEAST, Series, judge, theil_sen

ONE = Series("x", "something", per_hour=1.0, slack=0.5)
MACHINE = Series("x", "something", per_hour=1.0, shared=True)
# Ten minutes, one sample every forty seconds.
SECONDS = [40.0 * number for number in range(1, 16)]


def faults(values: list[float], *, end: float | None = None, one: Series = ONE) -> list[str]:
    """Judge the values; alone on the machine only for series that are not the machine's."""
    last = values[0] if end is None else end
    return judge(one, SECONDS, values, start=values[0], end=last, alone=False).faults


def test_a_line_is_flat() -> None:
    assert faults([7.0] * len(SECONDS)) == []


def test_noise_is_flat() -> None:
    for seed in range(200):
        random = Random(seed)  # noqa: S311 - nothing secret
        assert faults([100 + random.gauss(0, 0.02) for _ in SECONDS], end=100) == [], seed


@pytest.mark.parametrize("every", [1, 2, 3])
def test_one_thing_lost_now_and_then_is_a_leak(every: int) -> None:
    assert len(faults([7.0 + number // every for number in range(len(SECONDS))])) == 1


def test_samples_that_stand_out_hide_no_leak_and_make_none() -> None:
    flat, rising = [7.0] * len(SECONDS), [7.0 + number for number in range(len(SECONDS))]
    flat[9] = rising[9] = 500.0
    assert faults(flat) == []
    assert len(faults(rising)) == 1


def test_what_comes_in_the_beginning_is_no_leak() -> None:
    assert faults([0.0, 4.0, 6.0, 7.0, *[8.0] * (len(SECONDS) - 4)], end=0.0) == []


def test_what_is_left_at_the_end_is_a_fault() -> None:
    assert faults([7.0] * len(SECONDS), end=7.5) == []
    assert len(faults([7.0] * len(SECONDS), end=8.0)) == 1


def test_what_is_the_machines_is_judged_only_where_nobody_else_is() -> None:
    rising = [float(number) for number in range(len(SECONDS))]
    assert faults(rising, one=MACHINE) == []
    assert len(judge(MACHINE, SECONDS, rising, start=0, end=0, alone=True).faults) == 1


def test_slope_is_per_hour_and_its_interval_holds_it() -> None:
    slope = theil_sen(SECONDS, [second / 3600 * 5 + 2 for second in SECONDS])
    assert [slope.low, slope.value, slope.high] == pytest.approx([5.0] * 3)


def test_too_few_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="say nothing"):
        theil_sen(SECONDS[: LEAST - 1], [1.0] * (LEAST - 1))
