"""From the first process's mount table to grants."""

from __future__ import annotations

from eci_supervisor.kernel import mountinfo
from eci_supervisor.policy.grants import Grant, Kind, compile_grants

TABLE = rb"""
100 1 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a
101 100 0:51 / /proc rw,nosuid,nodev,noexec - proc proc rw
102 100 0:52 / /dev rw,nosuid - tmpfs tmpfs rw,mode=755
103 100 0:53 / /sys ro,nosuid,nodev,noexec - sysfs sysfs ro
104 101 0:6 /null /proc/kcore rw - devtmpfs devtmpfs rw
105 101 0:51 /sys /proc/sys ro,nosuid,nodev,noexec - proc proc rw
106 103 0:54 / /sys/firmware ro - tmpfs tmpfs ro
107 100 8:1 /volumes/a /data rw - ext4 /dev/sda1 rw
108 107 8:1 /volumes/b /data/fixed ro - ext4 /dev/sda1 rw
109 108 8:1 /volumes/c /data/fixed/below ro - ext4 /dev/sda1 rw
110 100 8:1 /volumes/d /a\040b ro - ext4 /dev/sda1 rw
111 110 8:1 /volumes/e /a\040b rw - ext4 /dev/sda1 rw
112 100 8:1 /hosts /etc/hosts rw - ext4 /dev/sda1 rw
113 100 0:60 / /scratch rw,noexec - tmpfs tmpfs ro
""".strip()


def grants_of(table: bytes = TABLE) -> dict[tuple[bytes, bytes], Grant]:
    """Compile; the key is mount point and root."""
    grants = compile_grants(
        mountinfo.parse(table), ["/proc/kcore", "/sys/firmware", "/proc/none"], ["/proc/sys/"]
    )
    return {(grant.point, grant.root): grant for grant in grants}


def test_every_initial_mount_becomes_a_grant() -> None:
    assert len(grants_of()) == len(TABLE.splitlines())


def test_kinds() -> None:
    kinds = {point: grant.kind for (point, _), grant in grants_of().items()}
    assert kinds[b"/"] is Kind.ROOTFS
    assert kinds[b"/proc"] is Kind.PROC
    assert kinds[b"/sys"] is Kind.SYSFS
    assert kinds[b"/proc/kcore"] is Kind.MASK
    assert kinds[b"/sys/firmware"] is Kind.MASK
    assert kinds[b"/proc/sys"] is Kind.READONLY_PATH
    assert kinds[b"/data"] is Kind.MOUNT


def test_flags_come_from_the_mount_and_from_its_super_block() -> None:
    grants = grants_of()
    assert grants[b"/proc", b"/"].flags == {b"nosuid", b"nodev", b"noexec"}
    assert grants[b"/data", b"/volumes/a"].flags == set()
    assert grants[b"/scratch", b"/"].flags == {b"ro", b"noexec"}


def test_what_hides_something() -> None:
    hiding = {key for key, grant in grants_of().items() if grant.hides}
    assert hiding == {
        (b"/proc/kcore", b"/null"),
        (b"/proc/sys", b"/sys"),
        (b"/sys/firmware", b"/"),
        # Read-only over writable: the root file system, or a volume.
        (b"/sys", b"/"),
        (b"/data/fixed", b"/volumes/b"),
        (b"/a b", b"/volumes/d"),
        (b"/scratch", b"/"),
        # Lies on another initial mount and buries it.
        (b"/a b", b"/volumes/e"),
    }


def test_read_only_over_read_only_hides_nothing() -> None:
    assert not grants_of()[b"/data/fixed/below", b"/volumes/c"].hides


def test_a_mount_over_the_parent_directory_buries_what_was_there() -> None:
    table = rb"""
1 0 0:50 / / rw - overlay overlay rw
2 1 8:1 /a /data/a rw - ext4 /dev/sda1 rw
3 1 8:1 /b /data rw - ext4 /dev/sda1 rw
4 3 8:1 /c /data/c rw - ext4 /dev/sda1 rw
""".strip()
    grants = grants_of(table)
    assert grants[b"/data", b"/b"].hides
    assert not grants[b"/data/a", b"/a"].hides
    assert not grants[b"/data/c", b"/c"].hides


def test_escapes_are_decoded() -> None:
    assert (b"/a b", b"/volumes/d") in grants_of()
