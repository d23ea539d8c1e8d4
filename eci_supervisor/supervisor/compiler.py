"""From the facts of one container to the table that its worker decides by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eci_supervisor.kernel import table
from eci_supervisor.policy.grants import Grant, Kind, compile_grants
from eci_supervisor.runtime.state import SPARED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from eci_supervisor.kernel.mountinfo import Mount
    from eci_supervisor.kernel.table import InodeRule
    from eci_supervisor.supervisor.charge import Charge

KINDS = {
    Kind.ROOTFS: table.ROOTFS,
    Kind.MOUNT: table.MOUNT,
    Kind.MASK: table.MASK,
    Kind.READONLY_PATH: table.READONLY_PATH,
    Kind.PROC: table.PROC,
    Kind.SYSFS: table.SYSFS,
}
FLAGS = {
    b"ro": table.RDONLY,
    b"nosuid": table.NOSUID,
    b"nodev": table.NODEV,
    b"noexec": table.NOEXEC,
}


def _row(grant: Grant) -> table.GrantRow:
    return table.GrantRow(
        point=grant.point,
        device=grant.device,
        root=grant.root,
        flags=sum(FLAGS[word] for word in grant.flags),
        kind=KINDS[grant.kind],
        hides=grant.hides,
    )


def _masked(grants: Sequence[Grant], fstype: bytes, covered: Collection[bytes]) -> bool:
    """Say whether a new file system of this type would lack a mask of the container's own."""
    kinds = {Kind.MASK, Kind.READONLY_PATH}
    return any(
        grant.kind in kinds and grant.under == fstype and grant.point not in covered
        for grant in grants
    )


def compile_policy(
    mounts: Sequence[Mount],
    charge: Charge,
    cover: Collection[bytes],
    protected: Sequence[InodeRule],
) -> bytes:
    """Return the table for a container whose first process sees `mounts`.

    `cover`: what its worker was given to cover.  `protected`: what `protected_rules` found before
    the container ran, which could have renamed something since.
    """
    covered = {record[1:] for record in cover if record[:1] in (b"m", b"r")}
    grants = compile_grants(mounts, charge.masked_paths, charge.readonly_paths)
    return table.build(
        [_row(grant) for grant in grants],
        protected,
        proc_masked=_masked(grants, b"proc", covered),
        sysfs_masked=_masked(grants, b"sysfs", covered),
        ids=(charge.base, charge.size),
        trace=charge.trace is not None,
        waits_killable=charge.waits_killable,
        spared=SPARED in cover,
        tells_of_parting=charge.tells_of_parting,
    )
