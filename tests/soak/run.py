"""A soak from beginning to end.

Cycles of load and rest: under load everything goes on at once; then each load finishes its step,
what came and went is gone, and only the *residents* are there, containers that live from the
beginning to the end.  Samples at rest are judged (`verdict.py`): nothing but a leak moves them.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tests.soak.chart import draw
from tests.soak.load import Attacks, Bare, Engine, Execs, Ground, Kills, Load, Mounts, settle
from tests.soak.meter import SERIES, Meter
from tests.soak.verdict import Finding, judge
from tests.support.docker import Dockerd
from tests.support.programs import compile_programs
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.soak.meter import Sample
    from tests.support.place import Place

LOAD_SECONDS = 25.0
EVERY = 3.0
"""Seconds between two samples under load."""
ENOUGH = 8
"""Times at rest, at least: two thirds of them are judged."""
MOST_FAULTS = 5
"""So many, and it ends."""


@dataclass(slots=True)
class Result:
    """What a soak has found."""

    samples: list[Sample]
    findings: list[Finding]
    steps: dict[str, int]
    faults: list[str] = field(default_factory=list)

    @property
    def all_faults(self) -> list[str]:
        """Return everything that is wrong, in words."""
        return [*self.faults, *(fault for one in self.findings for fault in one.faults)]

    def text(self) -> str:
        """Return a table of the findings, and what is wrong."""
        lines = [f"{'':38} {'start':>8} {'end':>8} {'slope/h':>9} {'95 %':>18} {'allowed':>8}"]
        for one in self.findings:
            interval = f"{one.slope.low:.2f} to {one.slope.high:.2f}"
            lines.append(
                f"{one.series.title:38} {one.start:8.5g} {one.end:8.5g} {one.slope.value:9.2f} "
                f"{interval:>18} {one.series.per_hour:8g}{'' if one.judged else '  not judged'}"
            )
        lines.append("steps: " + ", ".join(f"{name} {n}" for name, n in self.steps.items()))
        return "\n".join([*lines, *(self.all_faults or ["flat"])])


class _Cycle:
    """Runs every load in a thread of its own for a while, and samples meanwhile."""

    def __init__(self, meter: Meter, result: Result, random: Random) -> None:
        self.meter = meter
        self.result = result
        self._random = random

    def run(self, loads: Mapping[str, Load], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._work, args=(name, load, self._random.random(), deadline))
            for name, load in loads.items()
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.meter.take(rest=False)
            time.sleep(EVERY)

    def _work(self, name: str, load: Load, seed: float, deadline: float) -> None:
        random = Random(seed)  # noqa: S311 - nothing secret
        while time.monotonic() < deadline and len(self.result.faults) < MOST_FAULTS:
            try:
                load.step(random)
            except Exception:  # noqa: BLE001 - whatever it is, it is reported, and fails the soak
                self.result.faults.append(f"{name}: {traceback.format_exc()}")
            self.result.steps[name] += 1


def soak(
    place: Place,
    runtimes: dict[str, Path],
    minutes: float,
    out: Path,
    *,
    seed: int,
    alone: bool,
    tell: Callable[[str], object] = print,
) -> Result:
    """Run one for so many minutes, and write `samples.json`, `soak.svg` and `soak.txt` to `out`."""
    programs = compile_programs(place.directory("c"), ("mnt",))
    root = build_root(place.directory("b") / "root", programs.values())
    (root / "tmp/file").touch()
    meter = Meter(place)
    result = Result(meter.samples, [], {})
    with Dockerd(place, runtimes, "eci") as dockerd:
        dockerd.import_image(root)
        ground = Ground(place, dockerd, runtimes, root)
        ground.roll_call()
        settle(ground, 0)
        start = meter.take(rest=True)
        random = Random(seed)  # noqa: S311 - nothing secret
        _cycles(ground, _Cycle(meter, result, random), minutes * 60, tell)
        dockerd.docker("rm", "-fv", *dockerd.out("ps", "-aq").split())
        ground.roll_call()
        settle(ground, 0)
        end = meter.take(rest=True)
    rests = [sample for sample in meter.samples[1:-1] if sample.rest]
    if len(rests) < ENOUGH:
        result.faults.append(f"{len(rests)} times at rest say nothing")
        return result
    for series in SERIES:
        result.findings.append(
            judge(
                series,
                [sample.seconds for sample in rests],
                [sample.values[series.name] for sample in rests],
                start=start.values[series.name],
                end=end.values[series.name],
                alone=alone,
            )
        )
    _write(result, out, f"{minutes:g} minutes, seed {seed}")
    return result


def _cycles(ground: Ground, cycle: _Cycle, seconds: float, tell: Callable[[str], object]) -> None:
    """Go through cycles of load and rest for so long."""
    mounts = Mounts(ground)
    loads: dict[str, Load] = {
        "mounts": mounts,
        "execs": Execs(ground, mounts.residents),
        "engine": Engine(ground),
        "bare": Bare(ground),
        "attacks": Attacks(ground),
        "kills": Kills(ground),
    }
    cycle.result.steps.update(dict.fromkeys(loads, 0))
    residents = len(ground.dockerd.out("ps", "-q").split())
    cycle.meter.begin()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(cycle.result.faults) < MOST_FAULTS:
        cycle.run(loads, LOAD_SECONDS)
        try:
            ground.roll_call()
            settle(ground, residents)
        except Exception:  # noqa: BLE001 - as in `_work`; what was seen before is worth telling
            cycle.result.faults.append(f"rest: {traceback.format_exc()}")
            continue
        values = cycle.meter.take(rest=True).values
        tell(", ".join(f"{name} {value:.4g}" for name, value in values.items()))


def _write(result: Result, out: Path, title: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = {"steps": result.steps, "samples": [asdict(sample) for sample in result.samples]}
    (out / "samples.json").write_text(json.dumps(data))
    (out / "soak.txt").write_text(result.text() + "\n")
    draw(result.samples[1:-1], result.findings, title, out / "soak.svg")
