"""The policy table as the worker takes it in (csrc/policy.c): nothing leads out of it."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from eci_supervisor._eci import ffi, lib

from eci_supervisor.kernel import table

DEVICE = (8, 1)
GRANT = table.GrantRow(b"/ro", DEVICE, b"/volumes/a", table.RDONLY, table.MOUNT, hides=True)
OPEN = table.GrantRow(b"/rw", DEVICE, b"/volumes/b", 0, table.MOUNT, hides=False)
PROC = table.GrantRow(b"/proc", (0, 51), b"/", table.NOSUID, table.PROC, hides=False)


class Blob:
    """A table in memory that a test may damage."""

    def __init__(self, *grants: table.GrantRow) -> None:
        made = table.build(
            grants,
            [table.InodeRule(*DEVICE, 2, table.PROTECTED)],
            proc_masked=True,
            sysfs_masked=True,
            ids=(100000, 65536),
            trace=False,
            waits_killable=False,
        )
        self.memory = ffi.from_buffer("char[]", bytearray(made))
        self.size = len(made)
        self.head: Any = ffi.cast("struct eci_policy *", self.memory)

    @property
    def grants(self) -> Any:
        """The rows, to be damaged."""
        return ffi.cast("struct eci_grant *", lib.eci_policy_grants(self.head))

    def check(self) -> int:
        """Return what the worker is told."""
        return int(lib.eci_policy_check(self.head, self.size))


def test_a_table_of_ours_is_taken() -> None:
    assert Blob(GRANT, OPEN, PROC).check() == 0
    assert Blob().check() == 0


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("magic", 1),
        ("version", lib.ECI_POLICY_VERSION + 1),
        ("size", 8),
        ("grants_off", 4),
        ("slots_off", 4),
        ("grants_off", 2**32 - 8),
        ("slots_off", 2**32 - 8),
        # Over the head, and over the grants.
        ("grants_off", 0),
        ("slots_off", ffi.sizeof("struct eci_policy")),
        ("n_grants", 2**32 - 1),
        ("n_slots", 2**31),
        ("n_slots", 0),
        ("n_slots", 3),
    ],
)
def test_a_head_that_leads_out_of_the_table_is_refused(member: str, value: int) -> None:
    blob = Blob(GRANT)
    setattr(blob.head, member, value)
    assert blob.check() == -errno.EINVAL


@pytest.mark.parametrize("member", ["root_off", "point_off"])
def test_a_string_that_leads_out_of_the_table_is_refused(member: str) -> None:
    for grants in ((GRANT,), (OPEN, GRANT)):
        blob = Blob(*grants)
        row = blob.grants[len(grants) - 1]
        # The first is the head, which is no string however it looks.
        for offset in (0, blob.size, 2**32 - 1):
            setattr(row, member, offset)
            assert blob.check() == -errno.EINVAL


def test_a_string_without_an_end_is_refused() -> None:
    blob = Blob(GRANT)
    blob.memory[blob.size - 1] = b"x"
    assert blob.check() == -errno.EINVAL


def test_a_full_table_takes_no_more_inodes_and_knows_those_it_has() -> None:
    blob = Blob()
    n = 0
    while lib.eci_policy_add_inode(blob.head, *DEVICE, 100 + n, table.ABOVE) == 0:
        n += 1
    # One slot each for the first rule and for its device.
    assert n == blob.head.n_slots - 2
    assert lib.eci_policy_add_inode(blob.head, *DEVICE, 99, table.ABOVE) == -errno.ENOSPC
    assert lib.eci_policy_add_inode(blob.head, 9, 9, 99, table.ABOVE) == -errno.ENOSPC
    assert [lib.eci_policy_inode(blob.head, *DEVICE, 100 + i) for i in range(n)] == (
        [table.ABOVE] * n
    )
    # Whoever asks for one that is not there goes round once, and no further.
    assert lib.eci_policy_inode(blob.head, *DEVICE, 99) == 0
    for device in ((8, 2), (9, 1)):
        assert lib.eci_policy_inode(blob.head, *device, 2) == 0
        assert lib.eci_policy_knows_device(blob.head, *device) == 0


@pytest.mark.parametrize(
    ("device", "root", "held"),
    [
        (DEVICE, b"/volumes/a", table.RDONLY),
        (DEVICE, b"/volumes/a/b", table.RDONLY),
        (DEVICE, b"/volumes/ab", 0),
        (DEVICE, b"/volumes", 0),
        (DEVICE, b"/volumes/b", 0),
        ((9, 1), b"/volumes/a", 0),
        ((8, 2), b"/volumes/a", 0),
        ((0, 51), b"/sys", table.NOSUID),
    ],
)
def test_what_is_held_of_a_storage(device: tuple[int, int], root: bytes, held: int) -> None:
    assert lib.eci_policy_held(Blob(GRANT, OPEN, PROC).head, *device, root) == held


def test_only_mounts_that_hide_and_proc_and_sys_have_a_place_to_be_looked_up() -> None:
    blob = Blob(GRANT, OPEN, PROC)
    for i, own in enumerate(((8, 1, 10), (8, 1, 20), (0, 51, 1))):
        row = blob.grants[i]
        row.own_major, row.own_minor, row.own_ino = own
    for own, hides in (
        ((8, 1, 10), 1),
        ((8, 2, 10), 0),
        ((9, 1, 10), 0),
        ((8, 1, 11), 0),
        ((8, 1, 20), 0),
        ((0, 51, 1), 1),
    ):
        assert lib.eci_policy_hides(blob.head, *own) == hides
