"""Rule 2: what an initial mount hides is shown, by taking the mount away or by going around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import (
    DENIED,
    IN_PRIVATE,
    OPENS,
    PRIVILEGED,
    SAME,
    Attack,
    attack,
    cases,
    masked,
    new_tmpfs,
    rebind,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

LOWER = ("write /w/in/x", "0", "EROFS")


def gone_around(above: str, below: str, name: str) -> list[Attack]:
    """Return what takes no mount away, and yet comes to what lies under one.

    `above` is a writable directory and the root of its mount, `below` a path in it at which a
    read-only volume lies, whose root has a directory `sub`.
    """
    inside = above.rstrip("/") + "/" + below
    write = (f"write {below}/x", "0", "EROFS")
    copy = (f"mount {above} /mnt - MS_BIND|MS_REC -", *SAME)
    return [
        attack(f"{name}_in_a_detached_copy", copy, ("chdir /mnt", *SAME),
               ("umount2 /mnt MNT_DETACH", *SAME), write),
        attack(f"{name}_in_a_detached_copy_of_a_copy", copy,
               ("mount /mnt /mnt - MS_BIND|MS_REC -", *SAME), ("hold /mnt", *SAME),
               ("umount2 /mnt MNT_DETACH", *SAME), ("umount2 /mnt MNT_DETACH", *SAME),
               ("back", *SAME), write),
        attack(f"{name}_in_a_dead_namespace", IN_PRIVATE, (f"hold {above}", *SAME),
               IN_PRIVATE, ("back", *SAME), write),
        attack(f"{name}_in_an_overlay", ("mount none /mnt tmpfs - -", *SAME),
               ("mkdir /mnt/m", *SAME), ("mkdir /mnt/l", *SAME),
               (f"mount overlay /mnt/m overlay - lowerdir=/mnt/l:{above}", "0", "EINVAL"),
               (f"count /mnt/m/{below}", r"\d+", "ENOENT")),
        attack(f"{name}_from_a_new_root", IN_PRIVATE, (f"hold {above}", *SAME),
               (f"pivot_root {inside} {inside}/sub", "0", "EINVAL"), ("back", *SAME), write,
               kinds=(PRIVILEGED,)),
        attack(f"{name}_from_a_new_root_after_a_copy", IN_PRIVATE, copy, ("hold /mnt", *SAME),
               (f"pivot_root /mnt/{below} /mnt/{below}/sub", "0", "EINVAL"), ("back", *SAME), write,
               kinds=(PRIVILEGED,)),
    ]  # fmt: skip


def renamed(directory: str, other: str, *, rest: str) -> Attack:
    """Return the attack that moves a directory above a read-only volume, and binds there."""
    name = directory.rsplit("/", 1)[1]
    return attack(
        f"rename_{directory.strip('/').replace('/', '_')}",
        (f"mkdir {other}", *SAME),
        (f"rename {directory} {other}/{name}", *SAME),
        (f"mount {other} /mnt - MS_BIND -", "0", "EINVAL"),
        (f"write /mnt/{name}/{rest}/x", "0", "ENOENT"),
        (f"write {other}/{name}/{rest}/x", "EROFS", "EROFS"),
        (f"rename {other}/{name} {directory}", *SAME),
        (f"rmdir {other}", "0|EBUSY", "0"),
    )


# /w is a writable volume, /w/in and /w/d/in are read-only ones in it, over directories of /w.
# /vol and /srv/d/in are read-only over the root file system.
VOLUMES = [
    attack("umount", ("umount2 /w/in -", *DENIED), LOWER),
    attack("umount_detach", ("umount2 /w/in MNT_DETACH", *DENIED), LOWER),
    attack("umount_nofollow", ("umount2 /w/in UMOUNT_NOFOLLOW", *DENIED), LOWER),
    attack("move", ("mount /w/in /mnt - MS_MOVE -", *DENIED), LOWER),
    attack(
        "umount_after_unshare", ("unshare CLONE_NEWNS", *SAME), ("umount2 /w/in -", *DENIED), LOWER
    ),
    attack(
        "umount_in_a_recursive_copy",
        ("mount /w /mnt - MS_BIND|MS_REC -", *SAME),
        ("umount2 /mnt/in -", *DENIED),
        ("write /mnt/in/x", "0", "EROFS"),
    ),
    attack(
        "bind_around",
        ("mount /w /mnt - MS_BIND -", "0", "EPERM|EINVAL"),
        ("write /mnt/in/x", "0", "ENOENT|EROFS"),
    ),
    attack(
        "bind_all_but_the_unbindable",
        ("mount - /w/in - MS_UNBINDABLE -", *DENIED),
        ("mount /w /mnt - MS_BIND|MS_REC -", *SAME),
        ("write /mnt/in/x", "0", "EROFS"),
    ),
    # What carries it is locked as well: crun would leave it behind (runtime/nesting.py).
    attack("move_the_parent", ("mount /w /mnt - MS_MOVE -", "0", "EINVAL"),
           ("write /w/in/x", "EROFS|ENOENT", "EROFS")),
    attack(
        "remount_after_moving_a_copy_of_the_parent",
        ("mount none /mnt tmpfs - -", *SAME),
        ("mount - /mnt - MS_PRIVATE -", *SAME),
        ("mkdir /mnt/a", *SAME),
        ("mkdir /mnt/b", *SAME),
        ("mount /w /mnt/a - MS_BIND|MS_REC -", *SAME),
        ("mount /mnt/a /mnt/b - MS_MOVE -", *SAME),
        (rebind("/mnt/b/in"), *DENIED),
        ("umount2 /mnt/b/in -", *DENIED),
        ("write /mnt/b/in/x", "0", "EROFS"),
    ),
    attack(
        "umount_from_a_chroot",
        ("chroot /w", *SAME),
        ("chdir /", *SAME),
        ("umount2 /in -", *DENIED),
        ("write /in/x", "0", "EROFS"),
    ),
    attack("umount_expire", ("umount2 /w/in MNT_EXPIRE", "EAGAIN", "EPERM"),
           ("umount2 /w/in MNT_EXPIRE", *DENIED), LOWER),
    attack("umount_of_two", ("umount2 /w/d/in -", *DENIED), ("umount2 /w/in -", *DENIED), LOWER),
    attack("umount_over_the_root", ("umount2 /srv/d/in -", *DENIED),
           ("write /srv/d/in/x", "0", "EROFS")),
    attack("umount_volume", ("umount2 /vol MNT_DETACH", *DENIED), OPENS),
    attack("move_volume", ("mount /vol /mnt - MS_MOVE -", *DENIED), ("write /vol/x", "0", "EROFS")),
    attack("bind_around_the_root", ("mount / /mnt - MS_BIND -", "0", "EPERM|EINVAL"),
           ("write /mnt/vol/x", "0", "ENOENT")),
    *gone_around("/w", "in", "volume"),
    *gone_around("/w", "d/in", "deep_volume"),
    *gone_around("/", "vol", "root"),
    *gone_around("/", "srv/d/in", "deep_root"),
    attack("over_in_an_upper_layer", ("mkdir /w/work", *SAME),
           ("mount none /mnt tmpfs - -", *SAME), ("mkdir /mnt/l", *SAME), ("mkdir /mnt/m", *SAME),
           ("mount overlay /mnt/m overlay - lowerdir=/mnt/l,upperdir=/w/d,workdir=/w/work",
            "0", "EINVAL"),
           ("write /mnt/m/in/x", "0", "ENOENT"), ("umount2 /mnt/m -", "0", "EINVAL"),
           ("rmdir /w/work/work", "0", "ENOENT"), ("rmdir /w/work", *SAME)),
    renamed("/w/d", "/w/other", rest="in"),
    renamed("/srv/d", "/srv/other", rest="in"),
]  # fmt: skip

MASKED_FILE = ("kind /proc/timer_list", "reg", "chr 1:3")
MASKED_DIRECTORY = ("count /sys/firmware", r"[1-9]\d*", "0")

IN = ("write /t/in/x", "0", "EROFS")
UNDER_IN = (
    *new_tmpfs(3),
    ("move_mount 3 '' cwd /t/in MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_BENEATH", *DENIED),
)

# /t is a tmpfs of the runtime's, and /t/in a read-only volume in it that no kernel has locked.
IN_TMPFS = [
    *(attack(f"tmpfs_{name}", (call, "EAGAIN" if "EXPIRE" in call else "0", "EPERM"),
             *((call, *DENIED) for _ in range("EXPIRE" in call)), IN)
      for name, call in {
          "umount": "umount2 /t/in -",
          "umount_detach": "umount2 /t/in MNT_DETACH",
          "umount_expire": "umount2 /t/in MNT_EXPIRE",
          "umount_nofollow": "umount2 /t/in/. MNT_DETACH|UMOUNT_NOFOLLOW",
          "move": "mount /t/in /mnt - MS_MOVE -",
          "move_mount": "move_mount cwd /t/in cwd /mnt -",
      }.items()),
    attack("tmpfs_umount_i386", ("umount /t/in", *DENIED), IN, programs=("mnt32",)),
    attack("tmpfs_umount_from_inside", ("chdir /t/in", *SAME), ("umount2 . MNT_DETACH", *DENIED),
           ("chdir /", *SAME), IN),
    attack("tmpfs_umount_from_below", ("chdir /t/in/sub", *SAME),
           ("umount2 .. MNT_DETACH", *DENIED), ("chdir /", *SAME), IN),
    attack("tmpfs_umount_by_descriptor", ("open_at 1 cwd /t/in", *SAME),
           ("umount_fd 1 MNT_DETACH", *DENIED), IN),
    attack("tmpfs_move_mount_by_descriptor", ("open_at 1 cwd /t/in", *SAME),
           ("move_mount 1 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *DENIED), IN),
    attack("tmpfs_move_mount_of_what_open_tree_gave", ("open_tree 1 cwd /t/in -", *SAME),
           ("move_mount 1 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *DENIED), IN),
    attack("tmpfs_unbindable", ("mount - /t/in - MS_UNBINDABLE -", *DENIED),
           ("mount /t /mnt - MS_BIND|MS_REC -", *SAME), ("write /mnt/in/x", "0", "EROFS")),
    attack("tmpfs_bind_around", ("mount /t /mnt - MS_BIND -", *DENIED),
           ("write /mnt/in/x", "0", "ENOENT")),
    # Something beneath it: unmounting or moving that is no business of the volume above it.
    attack("tmpfs_umount_of_what_lies_beneath", *UNDER_IN,
           ("umount_fd 3 MNT_DETACH", "0", "EINVAL|EBUSY"),
           ("umount2 /t/in MNT_DETACH", *DENIED), IN),
    attack("tmpfs_umount_of_what_lies_beneath_from_a_chroot", *UNDER_IN, ("fchdir 3", *SAME),
           ("keep_ns 4", *SAME), ("chroot /mnt", *SAME),
           ("umount2 . MNT_DETACH", "0", "0|EBUSY|EINVAL"), ("enter_ns 4", *SAME), IN),
    attack("tmpfs_move_of_what_lies_beneath", *UNDER_IN,
           ("move_mount 3 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *SAME), IN),
    # Peers: an unmount goes to the same place on each.
    attack("tmpfs_joined_peer_group", ("mount - /t - MS_PRIVATE -", *SAME),
           # What is locked on it the kernel leaves on every copy.
           ("clone /t /mnt -", "0", "EINVAL"), ("mount none /mnt/in tmpfs - -", "0", "ENOENT"),
           ("mount - /t - MS_SHARED -", *SAME),
           ("move_mount cwd /t cwd /mnt MOVE_MOUNT_SET_GROUP", "0", "EINVAL|EPERM"),
           ("umount2 /mnt/in -", "0", "ENOENT"), IN, ("mount - /t - MS_PRIVATE -", *SAME)),
    attack("tmpfs_umount_of_a_peer", ("mount - /t - MS_SHARED -", *SAME),
           ("mount /t /mnt - MS_BIND|MS_REC -", *SAME),
           ("umount2 /mnt/in MNT_DETACH", *DENIED), IN, ("mount - /t - MS_PRIVATE -", *SAME)),
    attack("tmpfs_umount_in_a_peer_namespace", ("mount - /t - MS_SHARED -", *SAME),
           ("keep_ns 1", *SAME), IN_PRIVATE, ("umount2 /t/in MNT_DETACH", *DENIED),
           ("enter_ns 1", *SAME), IN, ("mount - /t - MS_PRIVATE -", *SAME)),
    # A mount namespace without the mount lets its mount point be renamed.
    attack("renamed_from_another_namespace", ("open_dir 1 /", *SAME), ("keep_ns 2", *SAME),
           IN_PRIVATE, ("keep_ns 3", *SAME), ("mount none /mnt tmpfs - -", *SAME),
           ("mkdir /mnt/old", *SAME), ("pivot_root /mnt /mnt/old", *SAME),
           ("umount2 /old MNT_DETACH", *SAME), ("rename_at 1 s 1 s2", *SAME), ("enter_ns 2", *SAME),
           ("umount2 /s2 MNT_DETACH", *DENIED), ("write /s2/x", "0", "EROFS"),
           ("enter_ns 3", *SAME), ("rename_at 1 s2 1 s", *SAME),
           kinds=(PRIVILEGED,)),
    attack("tmpfs_renamed_from_another_namespace", ("open_dir 1 /t", *SAME), ("keep_ns 2", *SAME),
           IN_PRIVATE, ("keep_ns 3", *SAME), ("mount none /mnt tmpfs - -", *SAME),
           ("mkdir /mnt/old", *SAME), ("pivot_root /mnt /mnt/old", *SAME),
           ("umount2 /old MNT_DETACH", *SAME), ("rename_at 1 in 1 other", *SAME),
           ("enter_ns 2", *SAME),
           ("umount2 /t/other MNT_DETACH", *DENIED), ("write /t/other/x", "0", "EROFS"),
           ("enter_ns 3", *SAME), ("rename_at 1 other 1 in", *SAME),
           kinds=(PRIVILEGED,)),
]  # fmt: skip

ON_KERNEL_FS = [
    *(
        attack(f"umount_file{name}", (f"umount2 /proc/timer_list {flag}", *DENIED), MASKED_FILE)
        for name, flag in (("", "-"), ("_detach", "MNT_DETACH"), ("_nofollow", "UMOUNT_NOFOLLOW"))
    ),
    attack("move_file", ("write /tmp/file", *SAME),
           ("mount /proc/timer_list /tmp/file - MS_MOVE -", *DENIED), MASKED_FILE),
    attack("umount_file_after_unshare", ("unshare CLONE_NEWNS", *SAME),
           ("umount2 /proc/timer_list -", *DENIED), MASKED_FILE),
    attack("umount_directory", ("umount2 /sys/firmware -", *DENIED), MASKED_DIRECTORY),
    attack("umount_directory_detach",
           ("umount2 /sys/firmware MNT_DETACH", *DENIED), MASKED_DIRECTORY),
    attack("move_directory", ("mount /sys/firmware /mnt - MS_MOVE -", *DENIED), MASKED_DIRECTORY),
    attack("bind_around_in_proc", ("mount /proc /mnt - MS_BIND -", "0", "0|EPERM|EINVAL"),
           ("kind /mnt/timer_list", "reg", "chr 1:3|ENOENT")),
    attack("bind_around_in_sys", ("mount /sys /mnt - MS_BIND -", "0", "0|EPERM|EINVAL"),
           ("count /mnt/firmware", r"[1-9]\d*", "0|ENOENT")),
    attack("umount_in_a_recursive_copy_of_proc", ("mount /proc /mnt - MS_BIND|MS_REC -", *SAME),
           ("umount2 /mnt/timer_list -", *DENIED), ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("a_new_proc", ("mount proc /mnt proc - -", *SAME),
           ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("a_new_sys",
           ("mount sysfs /mnt sysfs MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC -", *SAME),
           ("count /mnt/firmware", r"[1-9]\d*", "0")),
    attack("a_new_proc_by_fsmount", ("fsmount proc /mnt", *SAME),
           ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("open_tree_around_in_proc", ("clone /proc /mnt -", "0", "EINVAL"),
           ("kind /mnt/timer_list", "reg", "ENOENT")),
    attack("detach_proc", ("unshare CLONE_NEWNS", *SAME),
           ("umount2 /proc MNT_DETACH", "0", "EBUSY")),
    attack("detach_sys", ("unshare CLONE_NEWNS", *SAME),
           ("umount2 /sys MNT_DETACH", "0", "EBUSY")),
    attack("move_proc", ("mount /proc /mnt - MS_MOVE -", "0", "EBUSY")),
    # The read-only paths, /proc/sys among them, are masks on writing.
    attack("remount_read_only_path", (rebind("/proc/sys"), *DENIED),
           ("flags /proc/sys", "rw.*", "ro.*")),
    attack("umount_read_only_path", ("umount2 /proc/sys -", *DENIED),
           ("flags /proc/sys", "rw.*", "ro.*")),
    attack("move_read_only_path", ("mount /proc/sys /mnt - MS_MOVE -", *DENIED),
           ("flags /proc/sys", "rw.*", "ro.*")),
    attack("remount_sys", (rebind("/sys"), *DENIED)),
    # The kernel takes mounts that it has not locked off their parents, and tells nobody.
    attack("in_a_detached_copy", ("mount /proc /mnt - MS_BIND|MS_REC -", *SAME),
           ("chdir /mnt", *SAME), ("umount2 /mnt MNT_DETACH", *SAME),
           ("kind timer_list", "reg", "chr 1:3"), ("flags sys", "rw.*", "ro.*")),
    attack("in_a_detached_copy_of_sys", ("mount /sys /mnt - MS_BIND|MS_REC -", *SAME),
           ("chdir /mnt", *SAME), ("umount2 /mnt MNT_DETACH", *SAME),
           ("count firmware", r"[1-9]\d*", "0")),
    attack("in_a_dead_namespace", IN_PRIVATE, ("hold /proc", *SAME), IN_PRIVATE, ("back", *SAME),
           ("kind timer_list", "reg", "chr 1:3"), ("flags sys", "rw.*", "ro.*")),
    attack("in_a_dead_namespace_of_sys", IN_PRIVATE, ("hold /sys", *SAME), IN_PRIVATE,
           ("back", *SAME), ("count firmware", r"[1-9]\d*", "0")),
    attack("in_a_dead_namespace_of_a_new_proc", IN_PRIVATE, ("mount proc /mnt proc - -", *SAME),
           ("hold /mnt", *SAME), IN_PRIVATE, ("back", *SAME),
           ("kind timer_list", "reg", "chr 1:3")),
    attack("in_a_detached_new_sys", ("mount sysfs /mnt sysfs MS_RDONLY -", *SAME),
           ("chdir /mnt", *SAME), ("umount2 /mnt MNT_DETACH", *SAME),
           ("count firmware", r"[1-9]\d*", "0")),
    attack("from_a_new_root", IN_PRIVATE, ("hold /sys", *SAME),
           ("pivot_root /sys/firmware /sys/firmware", "0", "EINVAL|EPERM"), ("back", *SAME),
           ("count firmware", r"[1-9]\d*", "0")),
    attack("by_the_unbindable", ("mount - /proc/timer_list - MS_UNBINDABLE -", *DENIED),
           ("mount /proc /mnt - MS_BIND|MS_REC -", *SAME),
           ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("by_the_unbindable_of_the_new_api",
           ("mount_setattr /proc/timer_list - - - MS_UNBINDABLE", *DENIED),
           ("clone /proc /mnt AT_RECURSIVE", *SAME),
           ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("umount_on_a_new_proc", ("mount proc /mnt proc - -", *SAME),
           ("mount none /mnt/fs tmpfs - -", *SAME),
           ("umount2 /mnt/timer_list -", "EINVAL", "EINVAL|EPERM"),
           ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("new_proc_read_only_path", ("mount proc /mnt proc - -", *SAME),
           ("mount - /mnt/sys - MS_REMOUNT|MS_BIND -", "EINVAL", "EPERM"),
           ("flags /mnt/sys", "rw.*", "ro.*")),
]  # fmt: skip

ATTACKS = [*VOLUMES, *IN_TMPFS, *masked(ON_KERNEL_FS)]


@cases(ATTACKS)
def test_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(bare(kind, one.words(program)), protected=False)


@cases(ATTACKS)
def test_fails(protected: Protected, one: Attack, kind: str, program: str) -> None:
    protected.attack(one, kind, program)
