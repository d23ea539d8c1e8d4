"""The rules, one by one: facts in, verdict out (csrc/decide.c through cffi)."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from eci_supervisor._eci import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.kernel import reasons, table

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 32, 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_MGC_VAL = 0xC0ED0000
MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8

ROOT_SB = (0, 50)
VOLUME_SB = (8, 1)
PROC_SB = (0, 51)
SYS_SB = (0, 52)
NULL_SB = (0, 6)

ROOTFS = table.GrantRow(b"/", ROOT_SB, b"/", 0, table.ROOTFS, hides=False)
RO_VOLUME = table.GrantRow(b"/ro", VOLUME_SB, b"/volumes/a", table.RDONLY, table.MOUNT, hides=True)
RW_VOLUME = table.GrantRow(b"/rw", VOLUME_SB, b"/volumes/b", 0, table.MOUNT, hides=False)
PROC = table.GrantRow(b"/proc", PROC_SB, b"/", table.NOSUID, table.PROC, hides=False)
SYS = table.GrantRow(b"/sys", SYS_SB, b"/", table.RDONLY, table.SYSFS, hides=True)
MASK = table.GrantRow(b"/proc/kcore", NULL_SB, b"/null", 0, table.MASK, hides=True)
GRANTS = [ROOTFS, RO_VOLUME, RW_VOLUME, PROC, SYS, MASK]

# What the worker would have filled in: root inode of the mount, inode under it, mount id.
FILLED = {
    b"/ro": ((8, 1, 1000), (0, 50, 7), 101),
    b"/proc": ((0, 51, 1), (0, 50, 8), 102),
    b"/sys": ((0, 52, 1), (0, 50, 9), 103),
    b"/proc/kcore": ((0, 6, 4), (0, 51, 77), 104),
}


class Policy:
    """A policy table in memory, completed as the worker does it."""

    def __init__(
        self,
        grants: list[table.GrantRow],
        rules: list[table.InodeRule] | None = None,
        *,
        masked: bool = True,
    ) -> None:
        self.blob = ffi.from_buffer(
            "char[]",
            bytearray(
                table.build(
                    grants,
                    rules or [],
                    proc_masked=masked,
                    sysfs_masked=masked,
                    ids=(100000, 65536),
                    trace=False,
                    waits_killable=False,
                )
            ),
        )
        self.policy = ffi.cast("struct eci_policy *", self.blob)
        rows = ffi.cast("struct eci_grant *", lib.eci_policy_grants(self.policy))
        for i, grant in enumerate(grants):
            if grant.point in FILLED:
                own, covered, _ = FILLED[grant.point]
                rows[i].own_major, rows[i].own_minor, rows[i].own_ino = own
                rows[i].cov_major, rows[i].cov_minor, rows[i].cov_ino = covered

    def decide(
        self,
        op: int,
        flags: int = 0,
        *,
        fs: int = 0,
        src: dict[str, Any] | None = None,
        dst: dict[str, Any] | None = None,
        **more: int,
    ) -> tuple[int, str]:
        """Return the errno and the name of the reason; `more` are members of the call."""
        call = ffi.new("struct eci_call *", {"op": op, "flags": flags, "fs": fs, **more})
        source = ffi.NULL if src is None else ffi.new("struct eci_place *", src)
        target = ffi.new("struct eci_place *", dst or {})
        verdict = ffi.new("struct eci_verdict *")
        lib.eci_decide(self.policy, call, source, target, verdict)
        return verdict.error, reasons.NAMES[verdict.reason]


ALLOWED = (0, "performed")
LOOSENING = (errno.EPERM, "refused:no-loosening")
UNCOVERING = (errno.EPERM, "refused:no-uncovering")
BUSY = (errno.EBUSY, "refused:kernel-fs-busy")
PROTECTED = (errno.EPERM, "refused:host-protected-path")
NEW_KERNEL_FS = (errno.EPERM, "refused:new-kernel-fs")
NO_MEMORY = (errno.ENOMEM, "refused:mount-memory")


@pytest.fixture
def policy() -> Policy:
    return Policy(GRANTS)


def storage(sb: tuple[int, int], root: bytes) -> dict[str, Any]:
    """Facts of the root of a mount that shows this storage."""
    return {"sb_major": sb[0], "sb_minor": sb[1], "root": root, "is_root": 1}


def at(point: bytes, *, mnt_id: int | None = None, covered: object = ()) -> dict[str, Any]:
    """Facts of an initial mount, or of a copy of it; `covered` says what it lies on now."""
    own, initially, initial_id = FILLED[point]
    under = initially if covered == () else covered
    facts: dict[str, Any] = {
        "major": own[0],
        "minor": own[1],
        "ino": own[2],
        "is_root": 1,
        "mnt_id": initial_id if mnt_id is None else mnt_id,
    }
    if isinstance(under, tuple):
        facts |= {"cov_known": 1}
        facts |= dict(zip(("cov_major", "cov_minor", "cov_ino"), under, strict=True))
    return facts


@pytest.mark.parametrize(
    "op", [lib.ECI_OP_NEW, lib.ECI_OP_BIND, lib.ECI_OP_MOVE, lib.ECI_OP_ATTACH]
)
def test_nothing_is_added_where_there_is_no_room(policy: Policy, op: int) -> None:
    assert policy.decide(op, src={}, full=1) == NO_MEMORY
    assert policy.decide(op, src={}) == ALLOWED
    assert policy.decide(op, dst={"self_hits": lib.ECI_INODE_PROTECTED}, full=1) == PROTECTED


@pytest.mark.parametrize(
    ("flags", "op"),
    [
        (0, lib.ECI_OP_NEW),
        (MS_RDONLY | MS_REC, lib.ECI_OP_NEW),
        (MS_BIND, lib.ECI_OP_BIND),
        (MS_BIND | MS_REC | MS_RDONLY, lib.ECI_OP_BIND),
        (MS_REMOUNT, lib.ECI_OP_REMOUNT),
        (MS_REMOUNT | MS_MOVE | MS_PRIVATE, lib.ECI_OP_REMOUNT),
        (MS_REMOUNT | MS_BIND, lib.ECI_OP_REMOUNT_BIND),
        (MS_REMOUNT | MS_BIND | MS_MOVE, lib.ECI_OP_REMOUNT_BIND),
        (MS_REMOUNT | MS_BIND | MS_PRIVATE, lib.ECI_OP_REMOUNT_BIND),
        (MS_BIND | MS_MOVE, lib.ECI_OP_BIND),
        (MS_SHARED | MS_MOVE, lib.ECI_OP_PROPAGATION),
        (MS_UNBINDABLE, lib.ECI_OP_PROPAGATION),
        (MS_SLAVE | MS_REC, lib.ECI_OP_PROPAGATION),
        (MS_MOVE, lib.ECI_OP_MOVE),
        (MS_MGC_VAL | MS_BIND, lib.ECI_OP_BIND),
        (MS_MGC_VAL | MS_REMOUNT | MS_BIND, lib.ECI_OP_REMOUNT_BIND),
    ],
)
def test_forms_of_mount_are_told_apart_in_the_kernels_order(flags: int, op: int) -> None:
    call = ffi.new("struct eci_call *")
    lib.eci_decode_mount(flags, call)
    assert call.op == op


def test_nothing_of_a_call_is_left_as_it_was() -> None:
    """What stood there before must not say that a remount goes beneath something."""
    call = ffi.new("struct eci_call *")
    ffi.buffer(call)[:] = b"\xff" * ffi.sizeof("struct eci_call")
    lib.eci_decode_mount(MS_REMOUNT | MS_BIND, call)
    rest = (call.fs, call.recursive, call.unbindable, call.beneath, call.joins)
    assert (call.op, *rest) == (lib.ECI_OP_REMOUNT_BIND, lib.ECI_FS_OTHER, 0, 0, 0, 0)


@given(st.integers(0, 2**64 - 1))
def test_every_flag_word_has_one_form_and_the_magic_never_changes_it(flags: int) -> None:
    call = ffi.new("struct eci_call *")
    lib.eci_decode_mount(flags, call)
    assert lib.ECI_OP_NEW <= call.op <= lib.ECI_OP_MOVE
    plain = call.op
    lower = flags & 0xFFFF
    lib.eci_decode_mount(lower, call)
    without = call.op
    lib.eci_decode_mount(lower | MS_MGC_VAL, call)
    assert call.op == without
    assert plain


@pytest.mark.parametrize("op", [lib.ECI_OP_REMOUNT, lib.ECI_OP_REMOUNT_BIND])
@pytest.mark.parametrize("root", [b"/volumes/a", b"/volumes/a/sub", b"/volumes/a/sub/deep"])
def test_read_only_storage_stays_read_only_at_any_depth(
    policy: Policy, op: int, root: bytes
) -> None:
    place = storage(VOLUME_SB, root)
    assert policy.decide(op, 0, dst=place) == LOOSENING
    assert policy.decide(op, MS_NOSUID, dst=place) == LOOSENING
    assert policy.decide(op, MS_RDONLY, dst=place) == ALLOWED


def test_a_name_that_only_begins_alike_is_another_directory(policy: Policy) -> None:
    assert policy.decide(lib.ECI_OP_REMOUNT, 0, dst=storage(VOLUME_SB, b"/volumes/ab")) == ALLOWED


def test_writable_storage_may_go_to_read_only_and_back(policy: Policy) -> None:
    place = storage(VOLUME_SB, b"/volumes/b")
    assert policy.decide(lib.ECI_OP_REMOUNT_BIND, MS_RDONLY, dst=place) == ALLOWED
    assert policy.decide(lib.ECI_OP_REMOUNT_BIND, 0, dst=place) == ALLOWED


def test_a_super_block_of_the_containers_own_is_free(policy: Policy) -> None:
    assert policy.decide(lib.ECI_OP_REMOUNT, 0, dst=storage((0, 99), b"/")) == ALLOWED


@pytest.mark.parametrize(
    ("held", "flag"),
    [
        (table.RDONLY, MS_RDONLY),
        (table.NOSUID, MS_NOSUID),
        (table.NODEV, MS_NODEV),
        (table.NOEXEC, MS_NOEXEC),
    ],
)
def test_each_flag_is_held_by_itself(held: int, flag: int) -> None:
    every = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    policy = Policy([RO_VOLUME._replace(flags=held)])
    place = storage(VOLUME_SB, b"/volumes/a")
    assert policy.decide(lib.ECI_OP_REMOUNT, every & ~flag, dst=place) == LOOSENING
    assert policy.decide(lib.ECI_OP_REMOUNT, flag, dst=place) == ALLOWED


def test_what_one_grant_leaves_open_is_open() -> None:
    again = RO_VOLUME._replace(point=b"/again", flags=0)
    both = Policy([RO_VOLUME, again])
    assert both.decide(lib.ECI_OP_REMOUNT, 0, dst=storage(VOLUME_SB, b"/volumes/a")) == ALLOWED


def test_the_nearest_grant_counts() -> None:
    paths = table.GrantRow(
        b"/proc/sys", PROC_SB, b"/sys", table.RDONLY, table.READONLY_PATH, hides=True
    )
    inner = table.GrantRow(b"/proc/sys/x", PROC_SB, b"/sys/x", 0, table.MOUNT, hides=False)
    whole = PROC._replace(flags=0)
    for grants in ([whole, paths, inner], [inner, paths, whole]):
        policy = Policy(grants)
        for root in (b"/sys", b"/sys/kernel", b"/sys/xy"):
            assert policy.decide(lib.ECI_OP_REMOUNT, 0, dst=storage(PROC_SB, root)) == LOOSENING
        for root in (b"/", b"/bus", b"/sys/x", b"/sys/x/y"):
            assert policy.decide(lib.ECI_OP_REMOUNT, 0, dst=storage(PROC_SB, root)) == ALLOWED


@pytest.mark.parametrize("flags", [0, MNT_DETACH, MNT_FORCE, MNT_EXPIRE, UMOUNT_NOFOLLOW])
@pytest.mark.parametrize("point", [b"/proc/kcore", b"/ro"])
def test_what_hides_something_stays(policy: Policy, point: bytes, flags: int) -> None:
    assert policy.decide(lib.ECI_OP_UMOUNT, flags, dst=at(point)) == UNCOVERING
    # A copy in another mount namespace has another id and the same inodes.
    assert policy.decide(lib.ECI_OP_UMOUNT, flags, dst=at(point, mnt_id=9999)) == UNCOVERING
    assert policy.decide(lib.ECI_OP_MOVE, MS_MOVE, src=at(point), dst={}) == UNCOVERING


def test_what_hides_something_does_not_become_unbindable(policy: Policy) -> None:
    one = MS_UNBINDABLE
    assert policy.decide(lib.ECI_OP_PROPAGATION, one, dst=at(b"/proc/kcore")) == UNCOVERING
    assert policy.decide(lib.ECI_OP_PROPAGATION, one | MS_REC, dst={}) == UNCOVERING
    assert policy.decide(lib.ECI_OP_PROPAGATION, one, dst={"ino": 4, "is_root": 1}) == ALLOWED
    for flags in (MS_PRIVATE, MS_SHARED | MS_REC, MS_SLAVE | MS_REC):
        assert policy.decide(lib.ECI_OP_PROPAGATION, flags, dst=at(b"/proc/kcore")) == ALLOWED


def test_a_bind_of_the_same_storage_elsewhere_may_go(policy: Policy) -> None:
    bind = at(b"/ro", mnt_id=9999, covered=(0, 50, 12345))
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=bind) == ALLOWED
    assert policy.decide(lib.ECI_OP_MOVE, MS_MOVE, src=bind, dst={}) == ALLOWED


@pytest.mark.parametrize("other", [{"major": 9}, {"minor": 9}, {"ino": 9}])
def test_the_same_inode_of_another_file_system_is_another_mount(
    policy: Policy, other: dict[str, int]
) -> None:
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=at(b"/ro", mnt_id=9999)) == UNCOVERING
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=at(b"/ro", mnt_id=9999) | other) == ALLOWED
    one = at(b"/ro") | other
    assert policy.decide(lib.ECI_OP_PROPAGATION, MS_UNBINDABLE, dst=one) == ALLOWED
    assert policy.decide(lib.ECI_OP_PROPAGATION, MS_UNBINDABLE, dst=at(b"/ro")) == UNCOVERING


@pytest.mark.parametrize("covered", [(9, 50, 7), (0, 9, 7), (0, 50, 9)])
def test_the_same_storage_over_another_directory_may_go(
    policy: Policy, covered: tuple[int, int, int]
) -> None:
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=at(b"/ro", covered=covered)) == ALLOWED
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=at(b"/ro", covered=(0, 50, 7))) == UNCOVERING


def test_not_knowing_what_is_beneath_is_a_refusal(policy: Policy) -> None:
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=at(b"/ro", covered=None)) == UNCOVERING


LOCKED_NEIGHBOURS = (0, 50, 2)


def named(point: bytes, name: bytes, directory: tuple[int, int, int]) -> dict[str, Any]:
    """Facts of a copy of an initial mount, where the kernel shows nobody what is beneath."""
    facts = at(point, covered=None) | {"name": name}
    return facts | dict(zip(("dir_major", "dir_minor", "dir_ino"), directory, strict=True))


@pytest.mark.parametrize("point", [b"/ro", b"/proc"])
@pytest.mark.parametrize("by_name", [True, False])
def test_among_locked_mounts_directory_and_name_tell_the_place(
    policy: Policy, point: bytes, *, by_name: bool
) -> None:
    rows = ffi.cast("struct eci_grant *", lib.eci_policy_grants(policy.policy))
    row = rows[[grant.point for grant in GRANTS].index(point)]
    row.dir_major, row.dir_minor, row.dir_ino = LOCKED_NEIGHBOURS
    if by_name:
        row.by_name = 1
        row.cov_major = row.cov_minor = row.cov_ino = 0
    refusal = BUSY if point == b"/proc" else UNCOVERING
    name = point[1:]

    def umount(facts: dict[str, Any]) -> tuple[int, str]:
        return policy.decide(lib.ECI_OP_UMOUNT, dst=facts)

    assert umount(named(point, name, LOCKED_NEIGHBOURS)) == refusal
    assert umount(named(point, b"mnt", LOCKED_NEIGHBOURS)) == ALLOWED
    for other in ((0, 50, 3), (0, 51, 2), (1, 50, 2)):
        assert umount(named(point, name, other)) == ALLOWED
    assert umount(at(point, covered=None)) == refusal
    # What is beneath is known of one of the two only: the name decides as well.
    known = {"cov_known": 1, "cov_major": 0, "cov_minor": 50, "cov_ino": 4711}
    here = named(point, name, LOCKED_NEIGHBOURS) | known
    assert umount(here) == (refusal if by_name else ALLOWED)


def test_among_locked_mounts_the_entry_of_the_directory_tells_the_place(policy: Policy) -> None:
    row = ffi.cast("struct eci_grant *", lib.eci_policy_grants(policy.policy))[1]
    row.dir_major, row.dir_minor, row.dir_ino = LOCKED_NEIGHBOURS
    row.by_name, row.ent_ino = 1, 77
    elsewhere = (0, 50, 3)
    for directory, entry, verdict in (
        (LOCKED_NEIGHBOURS, 77, UNCOVERING),
        (elsewhere, 77, UNCOVERING),
        (elsewhere, 0, UNCOVERING),
        (elsewhere, 78, ALLOWED),
        ((0, 51, 2), 77, ALLOWED),
        ((1, 50, 2), 77, ALLOWED),
    ):
        facts = named(b"/ro", b"other", directory) | {"ent_ino": entry}
        assert policy.decide(lib.ECI_OP_UMOUNT, dst=facts) == verdict


def test_a_mount_point_without_a_directory_has_no_name() -> None:
    """No mount table has one; and if it had, its directory would not be looked up by name."""
    odd = RO_VOLUME._replace(point=b"ro")
    policy = Policy([odd])
    row = ffi.cast("struct eci_grant *", lib.eci_policy_grants(policy.policy))[0]
    (row.own_major, row.own_minor, row.own_ino), _, _ = FILLED[b"/ro"]
    row.dir_major, row.dir_minor, row.dir_ino = LOCKED_NEIGHBOURS
    row.by_name = 1
    facts = named(b"/ro", b"ro", LOCKED_NEIGHBOURS)
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=facts) == ALLOWED


def test_the_very_mount_stays_whatever_else_is_found(policy: Policy) -> None:
    ffi.cast("struct eci_grant *", lib.eci_policy_grants(policy.policy))[1].mnt_id = 101
    renamed = at(b"/ro", mnt_id=101, covered=(0, 50, 12345))
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=renamed) == UNCOVERING
    assert policy.decide(lib.ECI_OP_MOVE, src=renamed, dst={}) == UNCOVERING
    another = at(b"/ro", mnt_id=102, covered=(0, 50, 12345))
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=another) == ALLOWED


def test_nothing_comes_to_lie_under_what_hides_something(policy: Policy) -> None:
    for op in (lib.ECI_OP_ATTACH, lib.ECI_OP_MOVE):
        assert policy.decide(op, src={}, dst=at(b"/ro"), beneath=1) == UNCOVERING
        assert policy.decide(op, src={}, dst=at(b"/proc"), beneath=1) == BUSY
        assert policy.decide(op, src={}, dst=at(b"/ro")) == ALLOWED
        assert policy.decide(op, src={}, dst={"is_root": 1}, beneath=1) == ALLOWED
    assert policy.decide(lib.ECI_OP_MOVE, src=at(b"/ro"), dst={}, beneath=1) == UNCOVERING


def test_what_lies_above_a_mask_joins_no_peer_group(policy: Policy) -> None:
    above = {"self_hits": lib.ECI_INODE_RECURSE}
    assert policy.decide(lib.ECI_OP_ATTACH, src={}, dst=above, joins=1) == UNCOVERING
    assert policy.decide(lib.ECI_OP_ATTACH, src={}, dst=above) == ALLOWED
    assert policy.decide(lib.ECI_OP_ATTACH, src=above, dst={}, joins=1) == ALLOWED


def test_what_is_held_of_a_tree_is_not_cleared(policy: Policy) -> None:
    """The worker has looked up what the mounts of the tree have to keep."""
    held = {"held": table.RDONLY | table.NOSUID}
    for cleared in (table.RDONLY, table.NOSUID | table.NODEV):
        assert policy.decide(lib.ECI_OP_SETATTR, cleared, dst=held) == LOOSENING
    for cleared in (0, table.NODEV | table.NOEXEC):
        assert policy.decide(lib.ECI_OP_SETATTR, cleared, dst=held) == ALLOWED
    # What is to become unbindable, too, is refused for the first reason.
    assert policy.decide(lib.ECI_OP_SETATTR, 1, dst=held | {"detached": 1}, unbindable=1) == (
        LOOSENING
    )


def test_a_tree_with_what_hides_something_does_not_become_unbindable(policy: Policy) -> None:
    one = {"op": lib.ECI_OP_SETATTR, "unbindable": 1}
    assert policy.decide(**one, dst=at(b"/ro")) == UNCOVERING
    assert policy.decide(**one, recursive=1, dst={}) == UNCOVERING
    assert policy.decide(**one, dst={}) == ALLOWED


def test_what_is_detached_does_not_become_unbindable(policy: Policy) -> None:
    detached = {"detached": 1}
    assert policy.decide(lib.ECI_OP_SETATTR, dst=detached, unbindable=1) == UNCOVERING
    assert policy.decide(lib.ECI_OP_SETATTR, dst=detached) == ALLOWED
    assert policy.decide(lib.ECI_OP_SETATTR, dst={}, unbindable=1) == ALLOWED


def test_the_kernel_answers_for_what_is_no_mount(policy: Policy) -> None:
    inside = at(b"/ro") | {"is_root": 0}
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=inside) == ALLOWED


@pytest.mark.parametrize("point", [b"/proc", b"/sys"])
def test_proc_and_sys_themselves_are_busy(policy: Policy, point: bytes) -> None:
    for flags in (0, MNT_DETACH):
        assert policy.decide(lib.ECI_OP_UMOUNT, flags, dst=at(point)) == BUSY
        # In a copied mount namespace it has another id and lies on the same directory.
        assert policy.decide(lib.ECI_OP_UMOUNT, flags, dst=at(point, mnt_id=9999)) == BUSY
    assert policy.decide(lib.ECI_OP_MOVE, MS_MOVE, src=at(point), dst={}) == BUSY


@pytest.mark.parametrize("point", [b"/proc", b"/sys"])
@pytest.mark.parametrize("flags", [0, MNT_DETACH])
def test_a_copy_of_proc_or_sys_goes_with_its_masks(
    policy: Policy, point: bytes, flags: int
) -> None:
    copy = at(point, mnt_id=9999, covered=(0, 50, 4711))
    assert policy.decide(lib.ECI_OP_UMOUNT, flags, dst=copy) == ALLOWED


def test_proc_over_itself_is_busy_only_in_its_place(policy: Policy) -> None:
    """The worker tells of a copy under which nothing could be looked up that it lies elsewhere."""
    unknown = at(b"/proc", mnt_id=9999, covered=None)
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=unknown) == BUSY
    assert policy.decide(lib.ECI_OP_UMOUNT, dst=unknown | {"elsewhere": 1}) == ALLOWED


@pytest.mark.parametrize("fs", [lib.ECI_FS_PROC, lib.ECI_FS_SYSFS])
def test_no_new_proc_or_sysfs_where_the_own_one_has_masks(policy: Policy, fs: int) -> None:
    assert policy.decide(lib.ECI_OP_NEW, fs=fs) == NEW_KERNEL_FS
    assert Policy(GRANTS, masked=False).decide(lib.ECI_OP_NEW, fs=fs) == ALLOWED
    assert policy.decide(lib.ECI_OP_NEW, fs=lib.ECI_FS_OTHER) == ALLOWED


def test_what_lies_above_a_mask_is_bound_with_its_mounts_or_not(policy: Policy) -> None:
    above = {"self_hits": lib.ECI_INODE_RECURSE}
    assert policy.decide(lib.ECI_OP_BIND, MS_BIND, src=above, dst={}) == UNCOVERING
    assert policy.decide(lib.ECI_OP_BIND, MS_BIND | MS_REC, src=above, dst={}) == ALLOWED
    # Mounting on it, or under it, uncovers nothing.
    assert policy.decide(lib.ECI_OP_NEW, dst=above) == ALLOWED


PLACES_PROTECTED = [
    {"self_hits": lib.ECI_INODE_PROTECTED},
    {"self_hits": lib.ECI_INODE_ABOVE},
    {"up_hits": lib.ECI_INODE_PROTECTED},
    {"up_hits": lib.ECI_INODE_PROTECTED | lib.ECI_INODE_ABOVE},
]


@pytest.mark.parametrize("where", PLACES_PROTECTED)
@pytest.mark.parametrize("op", range(lib.ECI_OP_NEW, lib.ECI_OP_UMOUNT + 1))
def test_protected_paths_are_no_target_of_anything(
    policy: Policy, op: int, where: dict[str, Any]
) -> None:
    assert policy.decide(op, src={}, dst=where) == PROTECTED


@pytest.mark.parametrize("where", PLACES_PROTECTED)
@pytest.mark.parametrize("op", [lib.ECI_OP_BIND, lib.ECI_OP_MOVE])
def test_protected_paths_are_no_source_of_anything(
    policy: Policy, op: int, where: dict[str, Any]
) -> None:
    assert policy.decide(op, MS_REC, src=where, dst={}) == PROTECTED


def test_what_lies_beside_a_protected_path_is_free(policy: Policy) -> None:
    beside = {"up_hits": lib.ECI_INODE_ABOVE}
    assert policy.decide(lib.ECI_OP_BIND, MS_BIND, src=beside, dst=beside) == ALLOWED


@pytest.mark.parametrize("op", [lib.ECI_OP_BIND, lib.ECI_OP_MOVE, lib.ECI_OP_ATTACH, 0, 10])
def test_without_the_source_that_it_needs_a_call_is_denied(policy: Policy, op: int) -> None:
    assert policy.decide(op, MS_REC) == (errno.EPERM, "refused:internal")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 7))
def test_an_unknown_operation_is_denied(op: int, flags: int, fs: int) -> None:
    error, _ = Policy(GRANTS).decide(op, flags, fs=fs)
    if op not in range(lib.ECI_OP_NEW, lib.ECI_OP_SETATTR + 1):
        assert error == errno.EPERM
    # Without a source that it needs, a call is denied as well.
    if op in {lib.ECI_OP_BIND, lib.ECI_OP_MOVE, lib.ECI_OP_ATTACH}:
        assert error == errno.EPERM


def test_inode_rules_are_found_and_nothing_else() -> None:
    rules = [
        table.InodeRule(8, 1, ino, table.PROTECTED if ino % 2 else table.ABOVE)
        for ino in range(1, 3000)
    ]
    policy = Policy([ROOTFS], rules)
    for rule in rules:
        assert lib.eci_policy_inode(policy.policy, 8, 1, rule.ino) == rule.what
        assert lib.eci_policy_inode(policy.policy, 8, 2, rule.ino) == 0
    assert lib.eci_policy_inode(policy.policy, 8, 1, 3000) == 0
    assert lib.eci_policy_knows_device(policy.policy, 8, 1) == table.PROTECTED | table.ABOVE
    assert lib.eci_policy_knows_device(policy.policy, 8, 2) == 0


def test_marks_of_one_inode_add_up() -> None:
    policy = Policy(
        [ROOTFS],
        [table.InodeRule(8, 1, 2, table.PROTECTED), table.InodeRule(8, 1, 2, table.ABOVE)],
    )
    assert lib.eci_policy_inode(policy.policy, 8, 1, 2) == table.PROTECTED | table.ABOVE


@given(st.binary(max_size=400))
def test_a_table_that_is_not_ours_is_refused(blob: bytes) -> None:
    raw = ffi.new("char[]", max(len(blob), ffi.sizeof("struct eci_policy")))
    ffi.memmove(raw, blob, len(blob))
    assert lib.eci_policy_check(ffi.cast("struct eci_policy *", raw), len(blob)) == -errno.EINVAL


@given(st.integers(0, ffi.sizeof("struct eci_policy") - 1), st.integers(0, 255))
def test_a_damaged_head_is_refused_or_stays_inside(offset: int, byte: int) -> None:
    blob = bytearray(
        table.build(
            GRANTS,
            [],
            proc_masked=True,
            sysfs_masked=True,
            ids=(100000, 65536),
            trace=False,
            waits_killable=False,
        )
    )
    blob[offset] = byte
    raw = ffi.from_buffer("char[]", blob)
    policy = ffi.cast("struct eci_policy *", raw)
    if lib.eci_policy_check(policy, len(blob)) == 0:
        place = ffi.new("struct eci_place *", storage(VOLUME_SB, b"/volumes/a"))
        call = ffi.new("struct eci_call *", {"op": lib.ECI_OP_REMOUNT})
        verdict = ffi.new("struct eci_verdict *")
        lib.eci_decide(policy, call, ffi.NULL, place, verdict)
        assert verdict.error in {0, errno.EPERM}


@pytest.mark.parametrize(("part", "at"), [("grants_off", 0), ("slots_off", 0), ("slots_off", 56)])
def test_a_table_whose_parts_overlap_is_not_in_order(part: str, at: int) -> None:
    policy = Policy(GRANTS)
    size = policy.policy.size
    assert lib.eci_policy_check(policy.policy, size) == 0
    # What is written into the inode table later would change what has been checked.
    setattr(policy.policy, part, at)
    assert lib.eci_policy_check(policy.policy, size) == -errno.EINVAL


def test_a_string_that_can_be_written_over_is_none(policy: Policy) -> None:
    row = ffi.cast("struct eci_grant *", lib.eci_policy_grants(policy.policy))[0]
    row.root_off = policy.policy.slots_off
    assert lib.eci_policy_check(policy.policy, policy.policy.size) == -errno.EINVAL
