"""The pure parts of the measurements: statistics, bounds, the file of results, the command line."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from benchmarks import bare, expect, frame, ground, plot, real, store, untouched
from benchmarks.__main__ import spread
from benchmarks.show import number
from benchmarks.storm import Turns
from eci_supervisor.cli.bundle import Request, Volume, configuration

if TYPE_CHECKING:
    from pathlib import Path


def result(
    case: str, rung: str, p50: float, p99: float = 9.0, question: str = "ladder"
) -> frame.Result:
    return frame.Result(question, case, rung, "µs", p50, p99, p99, 1)


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        ([5.0], 99, 5.0),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 101)), 100, 100),
        ([3, 1, 2], 50, 2),
        ([1, 2, 3, 4], 50, 2),
    ],
)
def test_percentile_is_the_nearest_rank(
    samples: list[float], percent: float, expected: float
) -> None:
    assert frame.percentile(samples, percent) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        frame.percentile([], 50)


def test_summary_says_what_the_samples_say() -> None:
    samples = [float(value) for value in range(1, 201)]
    found = frame.summary("ladder", "mount", "eci", "µs", samples)
    assert found == frame.Result("ladder", "mount", "eci", "µs", 100.5, 198.0, 200.0, 200)


def test_calibration_grows_until_the_batch_is_long_enough() -> None:
    asked: list[int] = []

    def timed(count: int) -> float:
        asked.append(count)
        return count * 7.0

    count = frame.calibrate(timed, 1000)
    assert count * 7 >= 1000
    assert asked == sorted(asked)
    assert all(after <= 10 * before for before, after in itertools.pairwise(asked))


def test_calibration_ends_at_the_limit() -> None:
    assert frame.calibrate(lambda _count: 0.0, 1000, most=300) == 300


@pytest.mark.parametrize(
    ("figure", "verdict"), [(1.3, expect.Verdict.OK), (1.31, expect.Verdict.FAILED)]
)
def test_a_bound_is_kept_up_to_its_limit(figure: float, verdict: expect.Verdict) -> None:
    results = [result("tmpfs pair", "native", 1.0), result("tmpfs pair", "eci", figure)]
    findings = {one.bound.text: one for one in expect.check(results)}
    found = findings["tmpfs pair, eci / native"]
    assert (found.figure, found.verdict) == (figure, verdict)


@pytest.mark.parametrize(
    ("fork", "verdict"), [(5, expect.Verdict.OK), (4.9, expect.Verdict.FAILED)]
)
def test_a_lower_bound_is_kept_from_its_limit_on(fork: float, verdict: expect.Verdict) -> None:
    results = [result("mount tmpfs", "eci", 1.0), result("mount tmpfs", "fork", fork)]
    findings = {one.bound.text: one for one in expect.check(results)}
    assert findings["mount tmpfs, fork / eci"].verdict is verdict


def test_what_was_not_measured_is_told_as_that() -> None:
    assert {one.verdict for one in expect.check([])} == {expect.Verdict.UNMEASURED}


def test_time_added_is_told_in_times_of_the_floor() -> None:
    rungs = {"native": 2.0, "verdict": 5.0, "eci": 11.0}
    figures = expect.Figures(result("remount", rung, time) for rung, time in rungs.items())
    assert figures.added("ladder", "remount") == 3.0


def test_growth_is_what_becomes_of_the_ratio() -> None:
    points = {("native", 10): 10.0, ("eci", 10): 12.0, ("native", 10_000): 20.0,
              ("eci", 10_000): 30.0}  # fmt: skip
    results = [
        result(f"tmpfs pair, mounts {count}", rung, time, question="growth")
        for (rung, count), time in points.items()
    ]
    findings = {one.bound.text: one for one in expect.check(results)}
    found = findings["tmpfs pair, 10,000 mounts / 10, eci over native"]
    assert found.figure == pytest.approx(1.25)
    assert found.verdict is expect.Verdict.FAILED


def test_untouched_is_told_in_times_of_the_slower_of_two_equal_containers() -> None:
    times = {"native": 100.0, "again": 102.0, "eci": 103.0}
    results = [result("compile", rung, time, question="untouched") for rung, time in times.items()]
    findings = {one.bound.text: one for one in expect.check(results)}
    found = findings["untouched: compile, eci / native or again"]
    assert found.figure == pytest.approx(103 / 102)
    assert found.verdict is expect.Verdict.OK


@pytest.mark.parametrize("question", ["untouched", "real"])
def test_what_is_bounded_there_is_measured_there(question: str) -> None:
    """By name: a bound of a case that nobody measures would never fail."""
    asked: set[tuple[str, str]] = set()

    class Asked(expect.Figures):
        def get(self, question: str, case: str, rung: str, stat: str = "p50") -> float:
            asked.add((question, case))
            return super().get(question, case, rung, stat)

    for bound in expect.BOUNDS:
        with contextlib.suppress(KeyError):
            bound.figure(Asked([]))
    work = (*untouched.CALLS, *untouched.PROGRAMS.values())
    measured = {
        "untouched": {case + suffix for case in work for suffix in untouched.KINDS},
        "real": {*real.CASES.values(), real.DOCKER},
    }
    assert {case for name, case in asked if name == question} <= measured[question]


def test_no_two_bounds_are_alike() -> None:
    texts = [bound.text for bound in expect.BOUNDS]
    assert len(set(texts)) == len(texts)


def test_the_file_has_the_machine_and_the_results(tmp_path: Path) -> None:
    path = str(tmp_path / "results.json")
    report = store.Report({"kernel": "6.18", "mitigations": {"mds": None}}, [result("a", "eci", 1)])
    store.dump(path, report)
    row = {"question": "ladder", "case": "a", "rung": "eci", "unit": "µs", "p50": 1.0, "p99": 9.0,
           "max": 9.0, "n": 1}  # fmt: skip
    with open(path, encoding="utf-8") as stream:
        assert json.load(stream) == {
            "environment": {"kernel": "6.18", "mitigations": {"mds": None}},
            "results": [row],
        }
    assert store.load(path) == report


def test_a_file_that_is_not_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"environment": {}, "results": [{"question": 1}]}')
    with pytest.raises(msgspec.ValidationError, match="question"):
        store.load(str(path))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only", "ladder"], ["--only", "ladder"]),
        (
            ["--only", "ladder", "ladder", "--quick"],
            ["--only", "ladder", "--only", "ladder", "--quick"],
        ),
        (["expect", "ladder"], ["expect", "ladder"]),
        (["--only", "ladder", "expect", "F"], ["--only", "ladder", "expect", "F"]),
    ],
)
def test_only_takes_several_names(words: list[str], expected: list[str]) -> None:
    assert spread(words) == expected


@pytest.mark.parametrize("name", frame.QUESTIONS)
def test_every_question_can_be_asked_and_has_a_title(name: str) -> None:
    question = frame.load(name)
    assert callable(question.measure)
    assert frame.title(question)


@pytest.mark.parametrize(
    ("case", "expected"), [("mounts 100", ("mounts", 100)), ("bind pair", None), ("7", None)]
)
def test_a_number_at_the_end_makes_a_series(case: str, expected: tuple[str, int] | None) -> None:
    assert plot.series(case) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(0.4567, "0.457"), (4.567, "4.57"), (45.67, "45.7"), (4567.0, "4,567")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_each_rung_has_each_place_in_turn_equally_often() -> None:
    names = ["native", "again", "eci"]
    rounds = [ground.turn(number, names) for number in range(6)]
    assert rounds[0] == names
    for place in range(3):
        assert sorted(order[place] for order in rounds) == sorted(names * 2)
    assert len({tuple(order) for order in rounds}) == 6


def test_a_bare_container_is_the_same_but_for_the_user_namespace() -> None:
    request = Request(command=("/work",), rootfs="/root", hostname="bench", privileged=True,
                      volumes=(Volume("/here", "/there", readonly=True),))  # fmt: skip
    config: dict[str, Any] = configuration(request, 40)
    changed = bare.unprotected(config)
    mapping = [{"containerID": 0, "hostID": bare.BASE, "size": bare.SIZE}]
    assert changed["linux"].pop("uidMappings") == changed["linux"].pop("gidMappings") == mapping
    assert changed["linux"]["namespaces"].pop() == {"type": "user"}
    assert changed == config
    assert bare.sources(config) == ["/root", "/here"]


def test_a_build_has_as_many_steps_as_it_says() -> None:
    assert real.SCRIPTS["build"].count("RUN") == real.STEPS == 30
    assert real.CASES["build"] == "docker build, 30 steps"


def test_charts_are_drawn_as_svg_and_png(tmp_path: Path) -> None:
    results = [
        result("bind", "native", 1.0, 2.0),
        result("bind", "eci", 50.0, 60.0),
        result("mounts 10", "eci", 1.0),
        result("mounts 100", "eci", 2.0),
    ]
    paths = plot.draw(results, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ladder-mounts.png",
        "ladder-mounts.svg",
        "ladder.png",
        "ladder.svg",
    ]
    assert len(paths) == 4


def test_a_turn_of_a_storm_is_told_by_what_each_process_did() -> None:
    turns = Turns()
    turns.add([30, 2_000_000, 10, 5_000_000], 500)
    turns.add([20, 1_000_000, 20, 1_000_000], 500)
    assert turns.throughput == [80, 80]
    assert turns.longest == [2, 5, 1, 1]
    assert turns.fairness == [1 / 3, 1]
