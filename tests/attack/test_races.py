"""The same attacks while a thread changes what a call points at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import PRIVILEGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sides import Protected, Volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 4000


def counts(line: str) -> dict[str, int]:
    """Decode what the race program prints."""
    return {name: int(count) for name, _, count in (word.partition("=") for word in line.split())}


@pytest.mark.parametrize("program", ["race", "race32"])
def test_rewritten_path_of_a_remount_gets_no_other_verdict(
    protected: Protected, volumes: Volumes, program: str
) -> None:
    script = (
        f"mnt mount none /mnt tmpfs - - >&2; {program} remount {ROUNDS} /mnt /vol; mnt flags /vol"
    )
    line, flags = protected.run(PRIVILEGED, ["sh", "-c", script]).splitlines()
    seen = counts(line)
    flips = seen.pop("flips")
    # Both verdicts were given, to paths that were whole or torn (/mol), and to no other effect.
    assert flips > 100
    assert seen["0"] > 0
    assert seen["EPERM"] > 0
    assert set(seen) <= {"0", "EPERM", "ENOENT", "EINVAL"}
    assert sum(seen.values()) >= ROUNDS
    assert flags.startswith("ro")
    assert volumes.written() == []


@pytest.mark.parametrize("program", ["race", "race32"])
def test_rewritten_path_of_an_umount_gets_no_other_verdict(
    protected: Protected, volumes: Volumes, program: str
) -> None:
    script = f"""
        mkdir -p /t/in; {program} umount {ROUNDS} /t/in /w/in; echo "$?"
        while mnt umount2 /t/in MNT_DETACH | grep -qx 0; do :; done
        mnt write /w/in/x
    """
    line, status, write = protected.run(PRIVILEGED, ["sh", "-c", script]).splitlines()
    seen = counts(line)
    flips = seen.pop("flips")
    assert status == "0"
    assert flips > 100
    assert seen["0"] > 0
    assert seen["EPERM"] > 0
    assert set(seen) <= {"0", "EPERM"}
    assert write == "EROFS"
    assert volumes.written() == []


@pytest.mark.parametrize(
    ("calls", "opened"),
    [
        (f"race remount {ROUNDS} /mnt /vol; mnt write /vol/x", "0"),
        (f"mkdir -p /t/in; race umount {ROUNDS} /t/in /w/in; mnt write /w/in/x", "0"),
    ],
)
def test_race_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], calls: str, opened: str
) -> None:
    script = f"mnt mount none /mnt tmpfs - - >&2; {calls}"
    line, write = bare(PRIVILEGED, ["sh", "-c", script]).splitlines()
    assert counts(line)["0"] > 0
    assert write == opened
