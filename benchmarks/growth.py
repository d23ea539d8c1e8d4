"""Whether a call takes longer where there is more: mounts, rules, containers.

The pair of a tmpfs and that of a bind, native and under this project, in turns:

- with ever more mounts in the mount namespace, which both rungs share;
- in containers with ever more host-protected paths in their rules (the settings name that many);
- beside ever more containers that are alive, and idle.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.containers import workshop
from benchmarks.frame import summary
from benchmarks.ladder import in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.containers import Container, Workshop
    from benchmarks.frame import Result, Run

NAME = "growth"
PAIRS = ("tmpfs", "bind")


def measure(run: Run) -> Iterator[Result]:
    """Yield the statistics of each pair at each point of each series."""
    with workshop() as shop:
        yield from with_mounts(run, shop)
        yield from with_rules(run, shop)
        yield from with_containers(run, shop)


def with_mounts(run: Run, shop: Workshop) -> Iterator[Result]:
    """Measure in one mount namespace that fills up."""
    with shop.container() as container:
        for count in run.steps((10, 100, 1000, 10_000), "growth: mounts"):
            container.program.ask("fill", count)
            yield from pairs(run, shop, container, f"mounts {count}")


def with_rules(run: Run, shop: Workshop) -> Iterator[Result]:
    """Measure in containers whose settings name ever more host-protected paths."""
    for count in run.steps((1, 100, 10_000), "growth: rules"):
        with shop.container(settings=settings(shop, count)) as container:
            yield from pairs(run, shop, container, f"rules {count}")


def settings(shop: Workshop, count: int) -> str:
    """Write settings that protect so many directories of the host, and return their path."""
    top = os.path.join(shop.directory, "protected")
    paths = [os.path.join(top, str(number)) for number in range(count)]
    for path in paths:
        os.makedirs(path, mode=0o700, exist_ok=True)
    file = os.path.join(shop.directory, f"settings-{count}.json")
    with open(file, "w", encoding="utf-8") as stream:
        json.dump({"vm": {"protectedPaths": paths}}, stream)
    return file


def with_containers(run: Run, shop: Workshop) -> Iterator[Result]:
    """Measure in one container, beside others."""
    with ExitStack() as stack:
        first = stack.enter_context(shop.container())
        alive = 1
        for count in run.steps(run.pick((1, 20), (1, 10, 50, 200)), "growth: containers"):
            for _ in range(count - alive):
                stack.enter_context(shop.container())
            alive = count
            yield from pairs(run, shop, first, f"containers {count}")


def pairs(run: Run, shop: Workshop, container: Container, point: str) -> Iterator[Result]:
    """Yield the statistics of both pairs, in microseconds."""
    with shop.entered(container, "native") as native:
        rungs = {"native": native, "eci": container.program}
        for word in PAIRS:
            samples = in_turns(rungs, word, run.pick(6, 40), run.pick(10e6, 20e6))
            for rung, times in samples.items():
                both = [(first + second) / 1000 for first, second in times]
                yield summary(NAME, f"{word} pair, {point}", rung, "µs", both)
