"""The attacks again, while a thread changes what the call points at (`tests/support/race.c`).

Each of them on both runtimes and in both widths of calls, but in two of the four pairs;
`ECI_RACES=all` tries all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import PRIVILEGED
from tests.support.races import PROGRAMS, pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.attack.conftest import Guarded
    from tests.support.sides import Protected, Volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 2500
ROUNDS_WITHOUT = 500
"""Fewer, and enough: there, what begins with the foreign variant in memory succeeds."""
TRIES_WITHOUT = 5
"""A race is won by chance: where other processes take the processors, not in every run."""

# A string is also seen torn, as a path that leads nowhere or elsewhere.
WHOLE = frozenset({"0", "EPERM"})
TORN = WHOLE | {"ENOENT", "EINVAL"}
# A descriptor of what the round before has unmounted; a name that was exchanged again.
STALE = WHOLE | {"EINVAL", "EBUSY"}


@dataclass(frozen=True, slots=True)
class Race:
    """What is called, what changes, and between what: `own` is the container's to act upon."""

    call: str
    what: str
    own: str
    foreign: str
    outcomes: frozenset[str] = WHOLE
    on_mount: bool = False
    """Whether `own` has to be a mount, and not just a directory."""

    def script(self, program: str, rounds: int) -> str:
        """Return the commands that run it, and print whether volumes have become writable."""
        own = self.own
        mount = f"mnt mount none {own} tmpfs - - >&2" if self.on_mount else ":"
        return f"""
            mkdir -p {own}; {mount}
            {program} {self.call} {self.what} {rounds} {own} {self.foreign}; echo "$?"
            while mnt umount2 {own} MNT_DETACH | grep -qx 0; do :; done
            ls {self.foreign} | tr '\\n' ' '; echo
            mnt write {self.foreign}/x
        """


def on(
    call: str,
    own: str,
    foreign: str,
    *,
    on_mount: bool,
    string: frozenset[str],
    fd: frozenset[str] = WHOLE,
) -> list[Race]:
    """Return the races of that call: by string, by descriptor and by symbolic link."""
    return [
        Race(call, "string", own, foreign, string, on_mount),
        Race(call, "fd", own, foreign, fd, on_mount),
        Race(call, "link", own, foreign, WHOLE | {"ENOENT"}, on_mount),
    ]


RACES = [
    *on("remount", "/mnt", "/vol", on_mount=True, string=TORN),
    *on("setattr", "/mnt", "/vol", on_mount=True, string=TORN),
    Race("setattr", "struct", "/mnt", "/vol"),
    *on("umount", "/r/in", "/w/in", on_mount=False, string=TORN, fd=STALE),
    *on("umount", "/t/ow", "/t/in", on_mount=False, string=TORN, fd=STALE),
    *on("move", "/t/ow", "/t/in", on_mount=True, string=TORN),
]
BINDS = [
    Race("bind", "string", "/w/aaaaaa", "/w/secret", TORN),
    Race("bind", "fd", "/w/aaaaaa", "/w/secret"),
    Race("bind", "link", "/w/aaaaaa", "/w/secret", WHOLE | {"ENOENT"}),
    # Detached copies from the file system of the protected path are refused one and all.
    Race("attach", "fd", "/dev/pts/", "/w/secret", STALE),
]


# What is left of two siblings, each a mount point or a directory, when nothing lies on top.
STILL_THERE = """
    for name in ow in; do
        while mnt umount2 /t/$name MNT_DETACH | grep -qx 0; do :; done
    done
    ls -d /t/*/sub
"""


def name_of(race: Race) -> str:
    """Return the id of a race."""
    return f"{race.call}-{race.what}{race.foreign.replace('/', '-')}"


def counts(line: str) -> dict[str, int]:
    """Decode what the race program prints."""
    return {name: int(count) for name, _, count in (word.partition("=") for word in line.split())}


def check(line: str, race: Race, rounds: int) -> None:
    """Check that both verdicts were given, and no other."""
    seen = counts(line)
    assert seen.pop("flips") > 100
    assert seen.pop("leaks") == 0
    assert seen["0"] > 0
    assert seen["EPERM"] > 0
    assert set(seen) <= race.outcomes
    assert sum(seen.values()) >= rounds


@pytest.mark.parametrize(("protected", "program"), pairs(PROGRAMS), indirect=["protected"])
@pytest.mark.parametrize("race", RACES, ids=name_of)
def test_nothing_changes_the_verdict(
    protected: Protected, volumes: Volumes, race: Race, program: str
) -> None:
    try:
        script = race.script(program, ROUNDS)
        line, status, names, write = protected.run(PRIVILEGED, ["sh", "-c", script]).splitlines()
        assert status == "0"
        check(line, race, ROUNDS)
        assert "sub" in names
        assert write == "EROFS"
        assert volumes.written() == []
    except BaseException:
        protected.renew(PRIVILEGED)
        volumes.mend()
        raise


@pytest.mark.parametrize(("guarded", "program"), pairs(PROGRAMS), indirect=["guarded"])
@pytest.mark.parametrize("race", BINDS, ids=name_of)
def test_nothing_shows_a_protected_path(guarded: Guarded, race: Race, program: str) -> None:
    words = [program, race.call, race.what, str(ROUNDS), race.own, race.foreign]
    check(guarded.run(words), race, ROUNDS)


@pytest.mark.parametrize(("protected", "program"), pairs(PROGRAMS), indirect=["protected"])
def test_exchanged_mount_points_are_not_taken_for_each_other(
    protected: Protected, program: str
) -> None:
    """From a mount namespace that does not have the mounts, rename(2) lets their places go.

    Without protection no race is needed: test_uncovering.py, "renamed from another namespace".
    """
    race = f"{program} umount swap {ROUNDS} /t/ow /t/in"
    words = f"mkdir -p /t/ow; {race} >&2; echo $?; {STILL_THERE}"
    try:
        seen = protected.run(PRIVILEGED, ["sh", "-c", words]).splitlines()
    finally:
        protected.renew(PRIVILEGED)  # the names may have changed places
    assert seen in (["0", "/t/in/sub"], ["0", "/t/ow/sub"])


@pytest.mark.parametrize("race", RACES, ids=name_of)
def test_race_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], race: Race
) -> None:
    script = race.script("race", ROUNDS_WITHOUT)
    seen = []
    for _ in range(TRIES_WITHOUT):
        *lines, write = bare(PRIVILEGED, ["sh", "-c", script]).splitlines()
        # A volume that went away under the race's hands may have taken the place of its own.
        if write == "0":
            return
        seen.append(lines)
    pytest.fail(f"never won: {seen}")


@pytest.mark.parametrize("race", BINDS, ids=name_of)
def test_race_shows_a_path_without_protection(
    bare: Callable[[str, list[str]], str], race: Race
) -> None:
    words = ["race", race.call, race.what, str(ROUNDS_WITHOUT), race.own, race.foreign]
    assert any(counts(bare(PRIVILEGED, words))["leaks"] > 0 for _ in range(TRIES_WITHOUT))
