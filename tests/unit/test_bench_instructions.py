"""The guard over counts of instructions: what it takes for growth, and for noise."""

from __future__ import annotations

import pytest

from benchmarks.instructions import CountError, Counts, growth, steady, waking

WAS = Counts(program=1000, libraries=500, entries=30, syscalls=18)


def test_counts_are_read_from_a_line() -> None:
    assert Counts.parse("1000 500 30 18\n") == WAS


@pytest.mark.parametrize("line", ["", "1000 500 30\n", "1 2 3 4 5\n"])
def test_any_other_line_is_an_error(line: str) -> None:
    with pytest.raises(CountError, match="steps"):
        Counts.parse(line)


def test_the_same_each_time() -> None:
    assert steady("mount", [WAS, WAS]) == WAS


def test_a_dozen_instructions_of_noise_are_let_pass() -> None:
    noisy = [Counts(program, 500, 30, 18) for program in (1010, 1000, 990, 1000, 1010)]
    assert steady("mount", noisy) == WAS


@pytest.mark.parametrize("noisy", [Counts(1011, 500, 30, 18), Counts(1000, 500, 30, 19)])
def test_more_noise_is_an_error(noisy: Counts) -> None:
    with pytest.raises(CountError, match="mount: not the same each time"):
        steady("mount", [WAS, noisy, WAS])


@pytest.mark.parametrize(
    ("now", "lines"),
    [
        (WAS, []),
        (Counts(1020, 500, 30, 18), []),
        (Counts(1021, 500, 30, 18), ["mount: program 1000 -> 1021 (+2.1%)"]),
        (Counts(1000, 900, 30, 18), []),
        (Counts(1000, 500, 31, 18), ["mount: entries 30 -> 31 (+3.3%)"]),
        (Counts(1000, 500, 30, 19), ["mount: syscalls 18 -> 19 (+5.6%)"]),
        (Counts(10, 10, 3, 1), []),
    ],
)
def test_growth(now: Counts, lines: list[str]) -> None:
    assert growth({"mount": WAS}, {"mount": now}) == lines


def test_a_call_without_a_record_fails() -> None:
    assert growth({}, {"mount": WAS}) == ["mount: nothing recorded"]


def test_a_recorded_call_that_is_not_counted_fails() -> None:
    assert growth({"mount": WAS}, {}) == ["mount: not counted"]


def test_refusals_that_woke_the_keeper_are_the_ones_compared() -> None:
    quiet = Counts(2084, 1785, 38, 18)
    woke = Counts(2091, 1837, 39, 19)
    assert waking([quiet, woke, quiet]) == [woke]
    assert waking([quiet, quiet]) == [quiet, quiet]
