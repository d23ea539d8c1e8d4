"""Rule 1: flags that the engine asked for are taken off a mount, or off a copy of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import (
    DENIED,
    EMPTY_PATHS,
    OPENS,
    OPENS_COPY,
    REBIND,
    SAME,
    Attack,
    attack,
    cases,
    new_tmpfs,
    rebind,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

VOLUME = [
    attack("remount_bind", (rebind("/vol"), *DENIED), OPENS),
    *(
        attack(f"remount_bind_{name.lower()}", (rebind("/vol", f"|MS_{name}"), *DENIED), OPENS)
        for name in ("MOVE", "PRIVATE", "SHARED", "SLAVE", "UNBINDABLE", "REC", "MGC_VAL", "SILENT")
    ),
    attack(
        "remount_bind_everything",
        (rebind("/vol", "|MS_MOVE|MS_PRIVATE|MS_REC"), *DENIED),
        OPENS,
    ),
    *(
        attack(
            f"remount_bind_as_{fstype}",
            (rebind("/vol", source=fstype, fstype=fstype), *DENIED),
            OPENS,
        )
        for fstype in ("proc", "sysfs", "tmpfs", "overlay", "nonsense")
    ),
    attack(
        "remount_of_a_bind",
        ("mount /vol /mnt - MS_BIND -", *SAME),
        (rebind("/mnt"), *DENIED),
        OPENS_COPY,
    ),
    attack(
        "remount_of_a_bound_subdirectory",
        ("mount /vol/sub /mnt - MS_BIND -", *SAME),
        (rebind("/mnt"), *DENIED),
        OPENS_COPY,
    ),
    attack(
        "remount_of_a_bound_file",
        ("mount /vol/file /tmp/file - MS_BIND -", *SAME),
        (rebind("/tmp/file"), *DENIED),
        ("write /tmp/file", "0", "EROFS"),
        ("umount2 /tmp/file -", *SAME),
    ),
    attack(
        "remount_in_a_recursive_copy_of_the_tree",
        ("mount / /mnt - MS_BIND|MS_REC -", *SAME),
        (rebind("/mnt/vol"), *DENIED),
        ("write /mnt/vol/x", "0", "EROFS"),
    ),
    attack(
        "remount_of_a_bind_of_a_bind_moved",
        ("mount none /mnt tmpfs - -", *SAME),
        ("mount - /mnt - MS_PRIVATE -", *SAME),
        ("mkdir /mnt/a", *SAME),
        ("mkdir /mnt/b", *SAME),
        ("mount /vol /mnt/a - MS_BIND -", *SAME),
        ("mount /mnt/a /mnt/b - MS_MOVE -", *SAME),
        (rebind("/mnt/b"), *DENIED),
        ("write /mnt/b/x", "0", "EROFS"),
    ),
    attack(
        "remount_through_a_symlink",
        ("mount none /mnt tmpfs - -", *SAME),
        ("symlink ../vol/. /mnt/link", *SAME),
        (rebind("/mnt/link"), *DENIED),
        OPENS,
    ),
    attack(
        "remount_of_the_working_directory", ("chdir /vol", *SAME), (rebind("."), *DENIED), OPENS
    ),
    attack("remount_through_dots", (rebind("/tmp/../vol/sub/.."), *DENIED), OPENS),
    attack("remount_through_proc_self", (rebind("/proc/self/root/vol"), *DENIED), OPENS),
    attack("remount_through_proc_1", (rebind("/proc/1/root/vol"), *DENIED), OPENS),
    attack(
        "remount_after_unshare",
        ("unshare CLONE_NEWNS", *SAME),
        (rebind("/vol"), *DENIED),
        OPENS,
    ),
    attack(
        "remount_of_a_bind_after_unshare_twice",
        ("unshare CLONE_NEWNS", *SAME),
        ("unshare CLONE_NEWNS", *SAME),
        ("mount /vol/sub /mnt - MS_BIND -", *SAME),
        (rebind("/mnt"), *DENIED),
        OPENS_COPY,
    ),
    attack(
        "remount_in_a_chroot",
        ("mount none /mnt tmpfs - -", *SAME),
        ("mkdir /mnt/v", *SAME),
        ("mount /vol /mnt/v - MS_BIND -", *SAME),
        ("chroot /mnt", *SAME),
        ("chdir /", *SAME),
        (rebind("/v"), *DENIED),
        ("write /v/x", "0", "EROFS"),
    ),
    attack(
        "remount_in_a_chroot_into_the_volume",
        ("chroot /vol", *SAME),
        ("chdir /", *SAME),
        (rebind("/"), *DENIED),
        ("write /x", "0", "EROFS"),
    ),
    attack(
        "move_and_remount",
        # Whether it may be moved at all is rule 2's business; writable it is in neither place.
        ("mount /vol /mnt - MS_MOVE -", "0", "0|EPERM"),
        (rebind("/mnt"), "0", "EPERM|EINVAL"),
        ("write /mnt/x", "0", "EROFS|0"),
        ("write /vol/file", "0", "EROFS|0"),
        ("mount /mnt /vol - MS_MOVE -", "0", "0|EINVAL"),
        ("write /vol/file", "0", "EROFS"),
    ),
    attack("mount_setattr", ("mount_setattr /vol - - MOUNT_ATTR_RDONLY -", *DENIED), OPENS),
    attack(
        "mount_setattr_recursive",
        ("mount_setattr / AT_RECURSIVE - MOUNT_ATTR_RDONLY -", *DENIED),
        OPENS,
    ),
    attack(
        "open_tree_and_mount_setattr",
        ("clone /vol /mnt -", *SAME),
        ("mount_setattr /mnt - - MOUNT_ATTR_RDONLY -", *DENIED),
        ("write /mnt/file", "0", "EROFS"),
        ("write /vol/file", "EROFS", "EROFS"),
    ),
    attack(
        "mount_setattr_on_a_detached_copy",
        ("open_tree 1 cwd /vol OPEN_TREE_CLONE", *SAME),
        ("setattr 1 '' AT_EMPTY_PATH - MOUNT_ATTR_RDONLY -", *DENIED),
        ("move_mount 1 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *SAME),
        OPENS_COPY,
    ),
    attack(
        "mount_setattr_on_a_detached_tree",
        ("open_tree 1 cwd / OPEN_TREE_CLONE|AT_RECURSIVE", *SAME),
        ("setattr 1 '' AT_EMPTY_PATH|AT_RECURSIVE - MOUNT_ATTR_RDONLY -", *DENIED),
        ("move_mount 1 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *SAME),
        ("write /mnt/vol/x", "0", "EROFS"),
    ),
    attack(
        "mount_setattr_below_a_descriptor",
        ("open_at 1 cwd /", *SAME),
        ("setattr 1 vol AT_SYMLINK_NOFOLLOW - MOUNT_ATTR_RDONLY -", *DENIED),
        OPENS,
    ),
    attack(
        "mount_setattr_on_a_detached_copy_in_a_detached_tree",
        *new_tmpfs(2),
        ("open_tree 1 cwd /vol OPEN_TREE_CLONE", *SAME),
        ("fchdir 2", *SAME),
        ("mkdir d", *SAME),
        ("move_mount 1 '' cwd d MOVE_MOUNT_F_EMPTY_PATH", "0|EINVAL", "0|EINVAL"),
        ("setattr 2 '' AT_EMPTY_PATH|AT_RECURSIVE - MOUNT_ATTR_RDONLY -", *DENIED),
        ("write d/x", "0", "EROFS"),
    ),
    attack(
        "open_tree_attr_in_place",
        ("attr_here /vol MOUNT_ATTR_RDONLY", "0|ENOSYS", "ENOSYS|EPERM"),
        ("write /vol/x", "0|EROFS", "EROFS"),
    ),
    attack(
        "open_tree_attr",
        ("tree_attr /vol /mnt MOUNT_ATTR_RDONLY", "0|ENOSYS", "ENOSYS|EPERM"),
        ("write /vol/file", "EROFS", "EROFS"),
    ),
    # Here the kernel refuses without us, or the call does not exist: nothing to show unprotected.
    attack(
        "remount",
        ("mount - /vol - MS_REMOUNT -", "EPERM", "EPERM"),
        ("write /vol/x", "EROFS", "EROFS"),
    ),
    attack(
        "reconfigure",
        ("fspick 1 /vol", "0|EPERM", "0|EPERM"),
        ("fsconfig 1 FSCONFIG_SET_FLAG rw -", "0|EINVAL|EBADF", "0|EINVAL|EBADF"),
        ("fsconfig 1 FSCONFIG_CMD_RECONFIGURE - -", "EPERM|EINVAL|EBADF", "EPERM|EINVAL|EBADF"),
        ("write /vol/x", "EROFS", "EROFS"),
    ),
    attack(
        "mount_setattr_in_a_nested_user_namespace",
        ("unshare CLONE_NEWUSER|CLONE_NEWNS", *SAME),
        ("map 0", *SAME),
        ("setattr cwd /vol - - MOUNT_ATTR_RDONLY -", "EPERM", "EPERM"),
        ("open_tree 1 cwd /vol OPEN_TREE_CLONE", *SAME),
        ("setattr 1 '' AT_EMPTY_PATH - MOUNT_ATTR_RDONLY -", "EPERM", "EPERM"),
        ("write /vol/x", "EROFS", "EROFS"),
    ),
    attack(
        "remount_in_a_nested_user_namespace",
        ("unshare CLONE_NEWUSER|CLONE_NEWNS", *SAME),
        ("map 0", *SAME),
        (rebind("/vol"), "EPERM", "EPERM"),
        ("write /vol/x", "EROFS", "EROFS"),
    ),
    attack(
        "x32",
        (f"x32 - /vol - {REBIND}", "0|ENOSYS", "SIGSYS|ENOSYS|EPERM"),
        ("write /vol/x", "0|EROFS", "EROFS"),
    ),
]

LOOSER_FLAGS = [
    attack("proc_flags", (rebind("/proc"), *DENIED),
           ("flags /proc", "rw", "rw,nosuid,nodev,noexec")),
    attack("pts_flags", (rebind("/dev/pts"), *DENIED),
           ("flags /dev/pts", "rw", "rw,nosuid,noexec")),
    attack("dev_flags", (rebind("/dev"), *DENIED), ("flags /dev", "rw", "rw,nosuid")),
    # What is unbindable would be missing in the copy by which the supervisor judges the tree.
    attack("unbindable_in_a_detached_tree", *new_tmpfs(3),
           ("open_tree 1 cwd /dev/pts OPEN_TREE_CLONE", *SAME),
           ("setattr 1 '' AT_EMPTY_PATH - - MS_UNBINDABLE", *DENIED),
           ("fchdir 3", *SAME), ("mkdir d", *SAME), ("open_at 4 cwd d", *SAME),
           (f"move_mount 1 '' 4 '' {EMPTY_PATHS}", *SAME),
           ("setattr 3 '' AT_EMPTY_PATH|AT_RECURSIVE - MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC -",
            *DENIED),
           ("flags d", "rw", "rw,nosuid,noexec")),
    attack("unbindable_detached", ("open_tree 1 cwd /dev/pts OPEN_TREE_CLONE", *SAME),
           ("setattr 1 '' AT_EMPTY_PATH - - MS_UNBINDABLE", *DENIED),
           ("setattr 1 '' AT_EMPTY_PATH - MOUNT_ATTR_NOSUID -", *DENIED)),
    attack("one_flag_of_three", (rebind("/proc", "|MS_NOSUID|MS_NODEV"), *DENIED),
           ("flags /proc", "rw,nosuid,nodev", "rw,nosuid,nodev,noexec")),
]  # fmt: skip

ATTACKS = [*VOLUME, *LOOSER_FLAGS]


@cases(ATTACKS)
def test_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(bare(kind, one.words(program)), protected=False)


@cases(ATTACKS)
def test_fails(protected: Protected, one: Attack, kind: str, program: str) -> None:
    protected.attack(one, kind, program)
