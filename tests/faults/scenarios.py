"""Calls of a container while system calls of its worker fail."""

from __future__ import annotations

from dataclasses import dataclass

MASKED = "masked"
"""Masks, read-only paths and volumes, CAP_SYS_ADMIN: every call is trapped."""
SPARED = "spared"
"""Privileged, nothing hidden: plain unmounts, binds and new file systems are not trapped."""
EXPOSED = "exposed"
"""Privileged, and a host-protected path can be seen."""
PLACE = "place"
"""Root in the container's mount namespace."""
AWAY = "away"
"""In a mount namespace of its own."""
USER = "user"
"""Not root, and has CAP_SYS_ADMIN alone."""

REBIND = "MS_REMOUNT|MS_BIND"
EMPTY_BOTH = "MOVE_MOUNT_F_EMPTY_PATH"
CLEAR = ("umount2 /mnt MNT_DETACH", "umount2 /mnt MNT_DETACH", "umount2 /tmp/d MNT_DETACH")
TMPFS = "mount none /mnt tmpfs - -"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One call that the worker gets, what must be before it, and what takes it back."""

    name: str
    call: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = CLEAR
    refused: bool = False
    """A rule refuses the call, whatever fails."""
    partly: bool = False
    """Of several mounts that it changes, an error may leave some changed."""
    kinds: tuple[str, ...] = (MASKED,)
    who: tuple[str, ...] = (PLACE,)
    quick: bool = False
    """One of those that `make test` runs."""


ALL = (MASKED, SPARED, EXPOSED)
TRAPPED = (MASKED, EXPOSED)
EVERYBODY = (PLACE, AWAY, USER)


def _scenarios() -> tuple[Scenario, ...]:
    proc = ("fsopen 1 proc", "fsconfig 1 FSCONFIG_CMD_CREATE - -")
    place_it = (f"move_mount 2 '' cwd /mnt {EMPTY_BOTH}", *CLEAR, "close 2", "close 1")
    tree = (TMPFS, "mkdir /mnt/a", "mount none /mnt/a tmpfs - -")
    return (
        Scenario("new_tmpfs", TMPFS, kinds=(MASKED,), who=EVERYBODY, quick=True),
        Scenario("bind", "mount /tmp /mnt - MS_BIND -", kinds=TRAPPED, who=EVERYBODY),
        Scenario("bind_relative", "mount tmp mnt - MS_BIND -"),
        Scenario("bind_recursive", "mount /w /mnt - MS_BIND|MS_REC -", quick=True),
        Scenario("bind_through_proc", "mount /proc/self/root/tmp /mnt - MS_BIND -"),
        Scenario("bind_without_what_hides", "mount /w /mnt - MS_BIND -", refused=True, quick=True),
        Scenario("bind_of_protected", "mount /w/secret /mnt - MS_BIND -", refused=True,
                 kinds=(EXPOSED,)),
        Scenario("bind_above_protected", "mount /w /mnt - MS_BIND|MS_REC -", refused=True,
                 kinds=(EXPOSED,)),
        Scenario("bind_in_protected", "mount /w/secret/sub /mnt - MS_BIND -", refused=True,
                 kinds=(EXPOSED,)),
        Scenario("remount", f"mount - /mnt - {REBIND}|MS_RDONLY -", (TMPFS,), kinds=ALL,
                 who=(PLACE, USER), quick=True),
        Scenario("remount_of_options", "mount - /mnt - MS_REMOUNT size=1m", (TMPFS,), kinds=ALL),
        Scenario("remount_volume", f"mount - /vol - {REBIND} -", refused=True,
                 who=EVERYBODY, quick=True),
        Scenario("remount_copy", f"mount - /mnt - {REBIND} -",
                 ("mount /vol /mnt - MS_BIND -",), refused=True),
        Scenario("remount_dev", f"mount - /dev - {REBIND} -", refused=True, kinds=ALL),
        Scenario("umount", "umount2 /mnt -", (TMPFS,), kinds=TRAPPED, who=EVERYBODY, quick=True),
        Scenario("umount_detach", "umount2 /mnt MNT_DETACH", (TMPFS,), kinds=ALL),
        Scenario("umount_by_link", "umount2 /tmp/l MNT_DETACH", (TMPFS,)),
        Scenario("umount_what_hides", "umount2 /t/in MNT_DETACH", refused=True, who=(PLACE, AWAY),
                 quick=True),
        Scenario("umount_what_hides_busy", "umount2 /t/in -", refused=True),
        Scenario("umount_from_inside", "umount2 . MNT_DETACH", ("chdir /t/in",), ("chdir /",),
                 refused=True, quick=True),
        Scenario("umount_mask", "umount2 /proc/keys MNT_DETACH", refused=True),
        Scenario("umount_proc", "umount2 /proc MNT_DETACH", refused=True, kinds=ALL),
        Scenario("move", "mount /mnt /tmp/d - MS_MOVE -", (TMPFS,), kinds=ALL, quick=True),
        Scenario("move_what_hides", "mount /t/in /mnt - MS_MOVE -", refused=True),
        Scenario("move_mount", "move_mount cwd /mnt cwd /tmp/d -", (TMPFS,), kinds=ALL, quick=True),
        Scenario("move_mount_what_hides", "move_mount cwd /t/in cwd /mnt -", refused=True,
                 quick=True),
        Scenario("move_mount_proc", "move_mount cwd /proc cwd /mnt -", refused=True, kinds=ALL,
                 quick=True),
        Scenario("move_proc", "mount /proc /mnt - MS_MOVE -", refused=True, kinds=ALL),
        Scenario("umount_proc_from_inside", "umount2 . MNT_DETACH", ("chdir /proc",), ("chdir /",),
                 refused=True, kinds=ALL, quick=True),
        Scenario("umount_proc_by_descriptor", "umount2 /proc/self/cwd MNT_DETACH",
                 ("chdir /proc",), ("chdir /",), refused=True, kinds=ALL),
        Scenario("move_mount_by_descriptor", f"move_mount 1 '' cwd /mnt {EMPTY_BOTH}",
                 ("open_at 1 cwd /t/in",), (*CLEAR, "close 1"), refused=True),
        Scenario("move_mount_detached", f"move_mount 1 '' cwd /mnt {EMPTY_BOTH}",
                 ("open_tree 1 cwd /vol OPEN_TREE_CLONE",), (*CLEAR, "close 1"), kinds=(MASKED,)),
        Scenario("setattr", "mount_setattr /mnt - MOUNT_ATTR_RDONLY - -", (TMPFS,), kinds=ALL,
                 quick=True),
        Scenario("setattr_volume", "mount_setattr /vol - - MOUNT_ATTR_RDONLY -", refused=True,
                 quick=True),
        Scenario("setattr_dev", "mount_setattr /dev - - MOUNT_ATTR_NOSUID -", refused=True,
                 kinds=ALL),
        Scenario("setattr_of_all", "mount_setattr / AT_RECURSIVE - MOUNT_ATTR_RDONLY -",
                 refused=True),
        Scenario("setattr_of_all_noexec", "mount_setattr / AT_RECURSIVE - MOUNT_ATTR_NOEXEC -",
                 refused=True, kinds=(SPARED,)),
        Scenario("setattr_of_tree", "mount_setattr /mnt AT_RECURSIVE MOUNT_ATTR_RDONLY - -", tree,
                 ("umount2 /mnt/a MNT_DETACH", *CLEAR), kinds=ALL),
        Scenario("setattr_of_tree_mount_by_mount",
                 "mount_setattr /mnt AT_RECURSIVE - MOUNT_ATTR_NOEXEC -",
                 ("mount none /mnt tmpfs MS_NOEXEC -", "mkdir /mnt/a",
                  "mount none /mnt/a tmpfs MS_NOEXEC -"),
                 ("umount2 /mnt/a MNT_DETACH", *CLEAR), kinds=(SPARED,), partly=True),
        Scenario("setattr_of_detached",
                 "setattr 1 '' AT_EMPTY_PATH|AT_RECURSIVE - MOUNT_ATTR_RDONLY -",
                 ("open_tree 1 cwd /vol OPEN_TREE_CLONE",), ("close 1",), refused=True),
        Scenario("setattr_of_own_detached",
                 "setattr 1 '' AT_EMPTY_PATH - MOUNT_ATTR_NOEXEC -",
                 (TMPFS, "open_tree 1 cwd /mnt OPEN_TREE_CLONE"), ("close 1", *CLEAR)),
        Scenario("unbindable", "mount - /t/in - MS_UNBINDABLE -", refused=True),
        Scenario("propagation", "mount - /mnt - MS_SHARED -", (TMPFS,), kinds=(MASKED, EXPOSED),
                 quick=True),
        Scenario("new_proc", "mount proc /mnt proc - -", who=(PLACE, AWAY), quick=True),
        Scenario("new_sysfs", "mount sysfs /mnt sysfs - -"),
        Scenario("new_mqueue", "mount mqueue /mnt mqueue - -"),
        Scenario("umount_own_proc", "umount2 /mnt -", ("mount proc /mnt proc - -",)),
        Scenario("fsmount_of_proc", "fsmount_at 2 1 -", proc, place_it, quick=True),
        Scenario("attach_of_proc", place_it[0], (*proc, "fsmount_at 2 1 -"),
                 place_it, quick=True),
        Scenario("overlay", "mount overlay /mnt/m overlay - lowerdir=l:m",
                 (TMPFS, "mkdir /mnt/l", "mkdir /mnt/m", "chdir /mnt"),
                 ("chdir /", "umount2 /mnt/m MNT_DETACH", *CLEAR), kinds=TRAPPED),
        Scenario("overlay_of_protected", "mount overlay /mnt/m overlay - lowerdir=/mnt/l:/w/secret",
                 (TMPFS, "mkdir /mnt/l", "mkdir /mnt/m"),
                 ("umount2 /mnt/m MNT_DETACH", *CLEAR), refused=True, kinds=(EXPOSED,)),
    )  # fmt: skip


SCENARIOS = _scenarios()
