"""Attacks: raw system calls (`mnt.c`), each with its answer without protection, and with it.

An attack that does not succeed without protection would prove nothing, so both runs are tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

PRIVILEGED = "privileged"
SYS_ADMIN = "sys_admin"
KINDS = {PRIVILEGED: ["--privileged"], SYS_ADMIN: ["--cap-add=SYS_ADMIN"]}
PROGRAMS = ("mnt", "mnt32")

REBIND = "MS_REMOUNT|MS_BIND"


@dataclass(frozen=True, slots=True)
class Attack:
    """Calls, each with a pattern for its answer without protection and one with it."""

    name: str
    steps: tuple[tuple[str, str, str], ...]
    kinds: tuple[str, ...] = (PRIVILEGED, SYS_ADMIN)
    programs: tuple[str, ...] = PROGRAMS

    def words(self, program: str) -> list[str]:
        """Return the command line that makes the calls."""
        return [program, *" , ".join(call for call, _, _ in self.steps).split()]

    def check(self, output: str, *, protected: bool) -> None:
        """Compare the answers with the expected ones."""
        answers = output.splitlines()
        assert len(answers) == len(self.steps), output
        wrong = [
            f"{call}: {answer}, expected {expected}"
            for answer, (call, *both) in zip(answers, self.steps, strict=True)
            if not re.fullmatch(expected := both[protected], answer)
        ]
        assert not wrong, "\n".join(wrong)


def attack(
    name: str,
    *steps: tuple[str, str, str],
    kinds: tuple[str, ...] = (PRIVILEGED, SYS_ADMIN),
    programs: tuple[str, ...] = PROGRAMS,
) -> Attack:
    """Return an attack, on both kinds of container and in both widths of calls unless told."""
    return Attack(name, steps, kinds, programs)


def rebind(target: str, more: str = "", source: str = "-", fstype: str = "-") -> str:
    """Return the remount that would make the mount at `target` read-write."""
    return f"mount {source} {target} {fstype} {REBIND}{more} -"


SAME = ("0", "0")
DENIED = ("0", "EPERM")

# /vol is a read-only volume, /mnt an empty directory of the root file system.
OPENS = ("write /vol/x", "0", "EROFS")
OPENS_COPY = ("write /mnt/x", "0", "EROFS")
IN_PRIVATE = ("unshare CLONE_NEWNS", *SAME)
EMPTY_PATHS = "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"


def masked(attacks: Iterable[Attack]) -> list[Attack]:
    """Return the attacks for the container that has masks."""
    return [replace(one, kinds=(SYS_ADMIN,)) for one in attacks]


def cases(attacks: Iterable[Attack]) -> pytest.MarkDecorator:
    """Return the mark that runs a test once for each kind of container and width of the calls.

    The 32-bit spellings once each: where the mask is, or else in the more powerful container.
    """
    params = [
        pytest.param(one, kind, program, id=f"{one.name}-{kind}-{program}")
        for one in attacks
        for kind in one.kinds
        for program in one.programs
        if program == "mnt" or kind == one.kinds[0]
    ]
    ids = [param.id for param in params]
    assert len(set(ids)) == len(ids)
    return pytest.mark.parametrize(("one", "kind", "program"), params)


def new_tmpfs(slot: int) -> tuple[tuple[str, str, str], ...]:
    """Return the calls that make a detached tmpfs."""
    return (
        ("fsopen 15 tmpfs", *SAME),
        ("fsconfig 15 FSCONFIG_CMD_CREATE - -", *SAME),
        (f"fsmount_at {slot} 15 -", *SAME),
    )
