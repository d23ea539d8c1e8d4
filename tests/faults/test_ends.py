"""A container rests and is removed, while system calls of the programs that see to it fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.conftest import EVERY
from tests.faults.errnos import errnos_of, name_of
from tests.faults.sweep import ERROR, RIGHT, errno_name
from tests.faults.test_starts import Maker
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.sweep import Totals
    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.faults import Call

pytestmark = [pytest.mark.root, pytest.mark.engine]

DELETE = '"$@" delete --force "$NAME"'
ASK = f'"$@" exec "$NAME" mnt mount - /vol - MS_REMOUNT\\|MS_BIND - > "$OUT/answers"; {DELETE}'


@pytest.fixture(scope="module")
def maker(many: Bundles, runtimes: dict[str, Path], injector: Path) -> Maker:
    """A maker of containers, over runc."""
    return Maker(many, runtimes["eci"], injector)


class Running:
    """A container that runs, and is removed under the injector."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self.name = maker.bundles.name()
        self.runtime: Runtime = maker.runtime()
        maker.bundles.expect(self.runtime, self.name)
        self._bundle = maker.bundle(self.name)
        self._start()

    def _start(self) -> None:
        self.runtime.call("create", "--bundle", str(self._bundle), self.name)
        self.runtime.start(self.name)

    def state(self) -> list[Path]:
        """Return its state directory, where there is one."""
        return list(self._maker.bundles.place.state_dir.glob(f"containers/{self.name}-*"))

    def keepers(self) -> list[int]:
        """Wait until the keeper rests, and return its pid and that of its second."""
        (directory,) = self.state()
        found: list[int] = []

        def rests() -> bool:
            found[:] = _resting(str(directory))
            return len(found) > 1

        wait_until(rests, "the keeper rests")
        return found

    def remove(
        self, program: str, fault: tuple[int, int, int], script: str, *more: str
    ) -> tuple[str, list[Call]]:
        """Run the script, which removes it; returns the outcome and the calls of `program`."""
        words = [*more, "--", "sh", "-fc", script, "sh", *self.runtime.argv()]
        _, calls, out = self._maker.run(program, fault, words, NAME=self.name)
        answers = out / "answers"
        assert not answers.exists() or answers.read_text().split() in (["EPERM"], ["ENOSYS"], [])
        try:
            wait_until(lambda: not self.state(), "it is removed", 4 if fault[0] else 15)
        except AssertionError:
            # Whoever makes the next one of that name clears up.
            self._start()
            self.runtime.call("delete", "--force", self.name)
            self._maker.must_be_gone(self.runtime, self.name)
            return ERROR, calls
        self._maker.must_be_gone(self.runtime, self.name)
        return RIGHT, calls


def _resting(directory: str) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/eci-keeper") and os.fsencode(directory) in words:
                yield int(name)


def _sweep(maker: Maker, totals: Totals, program: str, script: str, step: int) -> None:
    def once(nth: int, number: int, error: int) -> list[Call]:
        box = Running(maker)
        more = [f"+{pid}" for pid in box.keepers()] if program == "eci-keeper" else []
        outcome, calls = box.remove(program, (nth, number, error), script, *more)
        if any(call.failed for call in calls):
            totals[name_of(number), errno_name(error), outcome] += 1
        return calls

    numbers = [call.number for call in once(0, 0, 0)]
    assert numbers
    for nth in range(step, len(numbers) + 1, step):
        number = numbers[nth - 1]
        errors = errnos_of(number, every=True)
        error = errors[nth % len(errors)]
        try:
            once(nth, number, error)
        except AssertionError as problem:
            problem.add_note(f"{program}: {nth}, {name_of(number)}: {errno_name(error)}")
            raise


@pytest.mark.timeout(300)
def test_what_clears_up_fails_and_the_next_create_does_it(maker: Maker, totals: Totals) -> None:
    _sweep(maker, totals, "eci-cleanup", DELETE, 2 if EVERY else 30)


@pytest.mark.timeout(300)
def test_keeper_at_rest_wakes_up(maker: Maker, totals: Totals) -> None:
    _sweep(maker, totals, "eci-keeper", ASK, 1 if EVERY else 3)
