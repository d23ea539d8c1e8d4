"""The sweeps: a part of each in every run, all of it with ECI_FAULTS=all (`make faults`)."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.engines import Bundles
from tests.support.faults import compile_faults
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.sweep import Totals
    from tests.support.place import Place

EVERY = os.environ.get("ECI_FAULTS") == "all"
collect_ignore = [] if EVERY else ["test_ends.py"]
TOTALS = pytest.StashKey["Totals"]()


def pytest_configure(config: pytest.Config) -> None:
    """Nothing has been counted yet."""
    config.stash[TOTALS] = Counter()


@pytest.fixture(scope="session")
def totals(pytestconfig: pytest.Config) -> Totals:
    """What became of each system call, by errno."""
    return pytestconfig.stash[TOTALS]


@pytest.fixture(scope="session")
def injector(place: Place) -> Path:
    """The program that makes system calls fail."""
    return compile_faults(place.directory("c"))


@pytest.fixture(scope="module")
def many(place: Place, programs: dict[str, Path]) -> Iterator[Bundles]:
    """A maker of bundles for the whole module, on a root file system that it may write to."""
    maker = Bundles(place, build_root(place.directory("b") / "root", programs.values()))
    yield maker
    maker.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the totals of one of several processes on (pytest-xdist)."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = [(*key, count) for key, count in session.config.stash[TOTALS].items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take them."""
    for call, error, outcome, count in getattr(node, "workeroutput", {}).get("faults", ()):
        node.config.stash[TOTALS][call, error, outcome] += count


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the totals."""
    found = config.stash.get(TOTALS, Counter())
    if not found or not EVERY:
        return
    terminalreporter.section("faults: system call, errno, outcomes")
    by_call: dict[tuple[str, str], Counter[str]] = {}
    for (call, error, outcome), count in found.items():
        by_call.setdefault((call, error), Counter())[outcome] += count
    for (call, error), outcomes in sorted(by_call.items()):
        text = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        terminalreporter.line(f"{call:18} {error:8} {text}")
    terminalreporter.line(f"{sum(found.values())} faults in all")
