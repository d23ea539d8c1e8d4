"""What holds for every test.

- A session has a place of its own (`tests.support.place`); ``ECI_STATE_DIR`` names the state
  directory in it from the first import on, so that no test can touch the machine's /run/eci, and
  ``ECI_LOG_DIR`` that of the audit log.
- After each module and at the end nothing may be left: no mount, cgroup, process, namespace
  (each is held by one of these) or state.  What is left is an error of that module.
- With ``ECI_CI`` set every skip is a failure: there a test that did not run has proved nothing.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import order
from tests.support.place import Place

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

pytest_plugins = ["tests.support.engines", "tests.support.sides", "tests.support.containers"]

PLACE = pytest.StashKey[Place]()

ENGINE_PROGRAMS = ("dockerd", "containerd", "runc", "crun", "podman", "busybox", "gcc")


def pytest_configure(config: pytest.Config) -> None:
    """Make the session's place, and say where it is in the environment."""
    place = Place.create()
    config.stash[PLACE] = place
    os.environ.update(place.environment)
    # What an earlier shell had set must not decide what is tested.
    for name in ("ECI_RUNTIME", "ECI_TRACE", "ECI_RANGES", "ECI_SETTINGS"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the place.  Whatever keeps it from going has been reported as left behind."""
    place = config.stash.get(PLACE, None)
    if place is None:
        return
    if place.left_mounts():
        # Nothing below a mount may be removed: it can show what is not ours.
        return
    try:
        place.remove()
    except OSError as error:
        config.issue_config_time_warning(
            pytest.PytestWarning(f"{place.root} stays: {error}"), stacklevel=1
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> order.Scheduler | None:
    """Have files given out as `tests.support.order` says."""
    return order.Scheduler(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why; among several processes, order the files."""
    if hasattr(config, "workerinput"):
        order.longest_first(items)
    missing = [name for name in ENGINE_PROGRAMS if shutil.which(name) is None]
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if item.get_closest_marker("engine") and missing:
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))
        if item.get_closest_marker("debian") and shutil.which("mmdebstrap") is None:
            item.add_marker(pytest.mark.skip(reason="not installed: mmdebstrap"))


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where CI asked for that; an expected failure is no skip."""
    if os.environ.get("ECI_CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr
        report.longrepr = f"skipped, which ECI_CI forbids: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Apply `_refuse_skip` to tests."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Apply `_refuse_skip` to modules that skip themselves while they are imported."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def place(pytestconfig: pytest.Config) -> Iterator[Place]:
    """The session's place; when the last fixture that uses it has gone, nothing may be left."""
    place = pytestconfig.stash[PLACE]
    yield place
    _fail_on(place)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(place: Place) -> Iterator[None]:
    """Nothing that a module's tests started may outlive the module."""
    yield
    _fail_on(place)


def _fail_on(place: Place) -> None:
    left = place.leftovers()
    if left:
        pytest.fail("left behind:\n" + "\n".join(left), pytrace=False)
