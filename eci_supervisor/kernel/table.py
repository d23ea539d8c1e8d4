"""The policy table: grants and inode rules in the form that the worker reads (csrc/api.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eci_supervisor._eci import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOTFS = lib.ECI_KIND_ROOTFS
MOUNT = lib.ECI_KIND_MOUNT
MASK = lib.ECI_KIND_MASK
READONLY_PATH = lib.ECI_KIND_READONLY_PATH
PROC = lib.ECI_KIND_PROC
SYSFS = lib.ECI_KIND_SYSFS

RDONLY = lib.ECI_RDONLY
NOSUID = lib.ECI_NOSUID
NODEV = lib.ECI_NODEV
NOEXEC = lib.ECI_NOEXEC

PROTECTED = lib.ECI_INODE_PROTECTED
ABOVE = lib.ECI_INODE_ABOVE
SHARED = lib.ECI_INODE_SHARED

SPARE_SLOTS = 1024
"""Room in the inode table for what the worker adds: the directories above masks."""


class InodeRule(NamedTuple):
    """What an inode means; device numbers and inode as statx(2) reports them."""

    major: int
    minor: int
    ino: int
    what: int
    """`PROTECTED`, `ABOVE` and `SHARED`, or several of them."""


class GrantRow(NamedTuple):
    """One initial mount, in numbers; `eci_supervisor.policy.grants.Grant` says what they mean."""

    point: bytes
    device: tuple[int, int]
    root: bytes
    flags: int
    """`RDONLY` and so on."""
    kind: int
    """`ROOTFS` and so on."""
    hides: bool


def _slots(rules: int) -> int:
    slots = SPARE_SLOTS
    # Each rule may bring a mark for its device; half empty keeps the probing short.
    while slots < 4 * rules + SPARE_SLOTS:
        slots *= 2
    return slots


def build(
    grants: Sequence[GrantRow],
    rules: Sequence[InodeRule],
    *,
    proc_masked: bool,
    sysfs_masked: bool,
    ids: tuple[int, int],
    trace: bool,
    waits_killable: bool,
    spared: bool = False,
    tells_of_parting: bool = False,
) -> bytes:
    """Return the blob; ValueError when it cannot hold what it was given.

    `proc_masked` and `sysfs_masked` say that masks or read-only paths lie on the container's
    own procfs and sysfs; `ids` is the host id of the container's id 0 and how many there are; with
    `trace` every call becomes an event, not refusals alone; `waits_killable`: the container's
    filters have SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV; `spared`: they do not trap what no rule
    asks about, and the worker has to see that this is so; `tells_of_parting`: they trap each
    setns(2) and unshare(2), from the container's first process on.
    """
    strings = bytearray()
    offsets: dict[bytes, int] = {}
    head = ffi.sizeof("struct eci_policy")
    grants_size = ffi.sizeof("struct eci_grant") * len(grants)
    n_slots = _slots(len(rules))
    slots_off = head + grants_size
    strings_off = slots_off + ffi.sizeof("struct eci_inode_rule") * n_slots
    for grant in grants:
        for text in (grant.root, grant.point):
            if text not in offsets:
                offsets[text] = strings_off + len(strings)
                strings += text + b"\0"
    size = strings_off + len(strings)

    blob = ffi.new("char[]", size)
    policy = ffi.cast("struct eci_policy *", blob)
    policy.magic = lib.ECI_POLICY_MAGIC
    policy.version = lib.ECI_POLICY_VERSION
    policy.size = size
    policy.n_grants = len(grants)
    policy.grants_off = head
    policy.n_slots = n_slots
    policy.slots_off = slots_off
    policy.proc_masked = proc_masked
    policy.sysfs_masked = sysfs_masked
    policy.trace = trace
    policy.waits_killable = waits_killable
    policy.spared = spared
    policy.tells_of_parting = tells_of_parting
    policy.id_base, policy.id_size = ids
    table = ffi.cast("struct eci_grant *", blob + head)
    for i, grant in enumerate(grants):
        entry = table[i]
        entry.sb_major, entry.sb_minor = grant.device
        entry.root_off = offsets[grant.root]
        entry.point_off = offsets[grant.point]
        entry.flags = grant.flags
        entry.kind = grant.kind
        entry.hides = grant.hides
    ffi.memmove(blob + strings_off, bytes(strings), len(strings))
    for rule in rules:
        if lib.eci_policy_add_inode(policy, rule.major, rule.minor, rule.ino, rule.what) < 0:
            msg = f"{len(rules)} inode rules do not fit into the policy table"
            raise ValueError(msg)
    if lib.eci_policy_check(policy, size) < 0:
        msg = "the policy table that was built is not well formed"
        raise ValueError(msg)
    return bytes(ffi.buffer(blob, size))
