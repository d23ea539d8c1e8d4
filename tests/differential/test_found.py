"""What random calls have found, each difference once, as short as it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.sides import PRIVILEGED, SYS_ADMIN, Script

if TYPE_CHECKING:
    from tests.differential.sides import Sides

pytestmark = [pytest.mark.root, pytest.mark.engine]


def same(sides: Sides, *lines: str, kind: str = PRIVILEGED) -> None:
    """Compare a script, in both sizes of words."""
    for program in ("sequence", "sequence32"):
        script = Script(kind, program, lines)
        differences = sides.run(script).differences
        assert not differences, "\n".join([*differences, str(script)])


def test_every_call_has_a_trace_line_at_once(sides: Sides) -> None:
    """The reader went to sleep without asking to be woken, when it had found something just then.

    What came next stayed in the ring, until the ring was full; refusals were not logged either.
    """
    for _ in range(10):
        same(sides, *[". umount2 =/mnt/a 0", ". mount =none =/mnt/b =tmpfs 0 -"] * 30)


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/.", "/proc/sys/kernel/../kernel/.", "/sys/firmware/../kernel/."]
)
@pytest.mark.parametrize("flags", ["0", "8", "2"])
def test_umount_of_a_directory_does_not_remove_the_mount_that_it_is_in(
    sides: Sides, path: str, flags: str
) -> None:
    """A path without a name at its end was judged as what it is, and then its mount was removed."""
    same(sides, f". umount2 ={path} {flags}", kind=SYS_ADMIN)


@pytest.mark.parametrize("path", ["/mnt/a/.", "/proc/self/fd/100", "/proc/self/fd/100/x/..", "/"])
def test_umount_of_what_is_no_mount_by_a_path_without_name(sides: Sides, path: str) -> None:
    same(sides, ". hold 0 =/mnt/a 200000", f". umount2 ={path} 0")


def test_umount_of_what_lies_on_the_working_directory(sides: Sides) -> None:
    """The last step of umount2 looks down, however the path ends."""
    mounted = [". chdir =/mnt/a", ". mount =none =/mnt/a =tmpfs 0 -"]
    for path in (".", "/proc/self/cwd", "/proc/self/fd/100", "x/.."):
        same(sides, ". hold 0 =/mnt/a 200000", *mounted, f". umount2 ={path} 0")
        same(sides, ". hold 0 =/mnt/a 200000", *mounted * 2, f". umount2 ={path} 2")


@pytest.mark.parametrize("path", ["=", "*1", "=/mnt/missing", "!a", "=/w/in"])
def test_unknown_flags_of_umount_count_before_its_path(sides: Sides, path: str) -> None:
    same(sides, *(f". umount2 {path} {flags}" for flags in ("10", "ffffffff", "80000000")))


def test_remount_in_another_mount_namespace(sides: Sides) -> None:
    flags = ("20", "1020", "102e")
    same(sides, *(f". mount - =/proc/1/root/mnt - {one} -" for one in flags))


def test_symlinks_of_a_mount_that_forbids_them(sides: Sides) -> None:
    same(
        sides,
        ". mount - =/mnt - 1120 -",
        ". mount =none =la =tmpfs 0 -",
        ". mount =none =/mnt/la/x =tmpfs 0 -",
        ". umount2 =la 8",
        ". mount =lb =/mnt/c - 1000 -",
    )


@pytest.mark.parametrize("flags", ["80001000", "100001000", "8000000000001020", "80002000"])
def test_flags_that_are_the_kernels_own_count_before_the_source(sides: Sides, flags: str) -> None:
    magic = f"{int(flags, 16) & 0xFFFFFFFF0000FFFF | 0xC0ED0000:x}"
    for one in (flags, magic):
        for target in ("/mnt/a", "/vol", "/mnt/missing"):
            same(sides, f". mount =loop ={target} =tmpfs {one} -")
