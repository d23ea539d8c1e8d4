"""Which process is given which file, and when, where several run the tests (pytest-xdist).

The longest files come first, so that nobody has one of them left when the others are done.  Those
of `tests/workload` go to one process, as if they were one: each that has some of them starts a
dockerd for them, and gives it the Debian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    import pytest

TOGETHER = "tests/workload/"

LONGEST = (
    TOGETHER,
    "tests/differential/test_random.py",
    "tests/attack/test_uncovering.py",
    "tests/kernel/test_view.py",
    "tests/engine/test_crash.py",
    "tests/attack/test_races.py",
    "tests/engine/test_interrupted.py",
    "tests/engine/test_docker.py",
    "tests/engine/test_spared.py",
    "tests/engine/test_restricted.py",
    "tests/attack/test_loosening.py",
    "tests/engine/test_mounts.py",
    "tests/engine/test_observe.py",
    "tests/engine/test_runtime_bundle.py",
    "tests/engine/test_enable.py",
    "tests/engine/test_engine_crash.py",
    "tests/engine/test_rest.py",
    "tests/attack/test_engine_sockets.py",
    "tests/engine/test_restricted_socket.py",
    "tests/engine/test_cri.py",
    "tests/engine/test_upgrade.py",
    "tests/attack/test_starving.py",
    "tests/attack/test_kernel_fs.py",
    "tests/attack/test_protected_paths.py",
    "tests/attack/test_cgroups.py",
    "tests/differential/test_found.py",
    "tests/faults/test_state.py",
    "tests/faults/test_calls.py",
    "tests/faults/test_starts.py",
    "tests/engine/test_builds.py",
    "tests/engine/test_enable_podman.py",
    "tests/engine/test_fork_server.py",
    "tests/engine/test_nested.py",
    "tests/unit/test_images.py",
    "tests/unit/test_found_by_fuzzing.py",
)
"""Roughly; the others take some seconds at most."""


def longest_first(items: list[pytest.Item]) -> None:
    """Sort by file; what is in one, and the files that have no place here, keep their order."""
    places = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(given_as(item.nodeid), len(LONGEST)))


def given_as(nodeid: str) -> str:
    """Return the name of what a test is given out with: its file, as a rule."""
    file = nodeid.partition("::")[0]
    return TOGETHER if file.startswith(TOGETHER) else file


class Scheduler(LoadFileScheduling):  # type: ignore[misc] # xdist ships no types
    """Gives out files in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would give out the fullest files first

    def _split_scope(self, nodeid: str) -> str:
        return given_as(nodeid)
