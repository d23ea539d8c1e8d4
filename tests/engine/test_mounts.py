"""What root in a container may mount, and what it cannot undo.

Each attack is a list of raw system calls (`tests/support/mnt.c`), each with the answer it gets in
a bare user namespace, under plain runc, and the answer it must get under eci-runtime.  Both runs
are tests: an attack that does not succeed without protection would prove nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec
from tests.support.docker import IMAGE, SLEEP
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.conftest import Bundles
    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

PRIVILEGED = "privileged"
SYS_ADMIN = "sys_admin"
KINDS = {PRIVILEGED: ["--privileged"], SYS_ADMIN: ["--cap-add=SYS_ADMIN"]}

REBIND = "MS_REMOUNT|MS_BIND"


@dataclass(frozen=True, slots=True)
class Attack:
    """Calls, each with a pattern for its answer without protection and one with it."""

    name: str
    steps: tuple[tuple[str, str, str], ...]
    kinds: tuple[str, ...] = (PRIVILEGED, SYS_ADMIN)

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


def attack(name: str, *steps: tuple[str, str, str], kinds: tuple[str, ...] = ()) -> Attack:
    """Return an attack, on both kinds of container unless told."""
    return Attack(name, steps, kinds or (PRIVILEGED, SYS_ADMIN))


def rebind(target: str, more: str = "", source: str = "-", fstype: str = "-") -> str:
    """Return the remount that would make the mount at `target` read-write."""
    return f"mount {source} {target} {fstype} {REBIND}{more} -"


OPENS = ("write /vol/x", "0", "EROFS")
OPENS_COPY = ("write /mnt/x", "0", "EROFS")
SAME = ("0", "0")
DENIED = ("0", "EPERM")

# /vol is a read-only volume, /mnt an empty directory of the root file system.
READ_ONLY_VOLUME = [
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

LOWER = ("write /w/in/x", "0", "EROFS")
IN_PRIVATE = ("unshare CLONE_NEWNS", *SAME)


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
READ_ONLY_OVER_WRITABLE = [
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

MASKS = [
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
MASKS = [attack(one.name, *one.steps, kinds=(SYS_ADMIN,)) for one in MASKS]

LOOSER_FLAGS = [
    attack("proc_flags", (rebind("/proc"), *DENIED),
           ("flags /proc", "rw", "rw,nosuid,nodev,noexec")),
    attack("pts_flags", (rebind("/dev/pts"), *DENIED),
           ("flags /dev/pts", "rw", "rw,nosuid,noexec")),
    attack("dev_flags", (rebind("/dev"), *DENIED), ("flags /dev", "rw", "rw,nosuid")),
    attack("one_flag_of_three", (rebind("/proc", "|MS_NOSUID|MS_NODEV"), *DENIED),
           ("flags /proc", "rw,nosuid,nodev", "rw,nosuid,nodev,noexec")),
]  # fmt: skip

ATTACKS = {
    f"{group}-{one.name}": one
    for group, attacks in (
        ("volume", READ_ONLY_VOLUME),
        ("over", READ_ONLY_OVER_WRITABLE),
        ("mask", MASKS),
        ("flags", LOOSER_FLAGS),
    )
    for one in attacks
}
CASES = [
    pytest.param(one, kind, program, id=f"{name}-{kind}-{program}")
    for name, one in ATTACKS.items()
    for kind in one.kinds
    for program in ("mnt", "mnt32")
    # The 32-bit spellings once each: where the mask is, or else in the more powerful container.
    if program == "mnt" or kind == one.kinds[0]
]


# -- the two sides ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Volumes:
    """The directories on the host that the containers of one test module see."""

    read_only: Path
    writable: Path
    inner: Path

    @classmethod
    def make(cls, place: Place) -> Volumes:
        """Make them new."""
        read_only, writable, inner = (place.directory("v") for _ in range(3))
        (read_only / "sub").mkdir()
        (read_only / "file").touch()
        (inner / "sub").mkdir()
        (writable / "in").mkdir()
        (writable / "d/in").mkdir(parents=True)
        return cls(read_only, writable, inner)

    def mend(self) -> None:
        """Take away what a successful attack has written, for the sake of the next test."""
        for name in self.written():
            path = Path(name)
            if path.name == "x":
                path.unlink()
            else:
                os.truncate(path, 0)

    def written(self) -> list[str]:
        """Return what has been written where nothing may be."""
        under = (self.writable / "in", self.writable / "d/in")
        sealed = (self.read_only, self.read_only / "sub", self.inner, *under)
        found = [str(path) for top in sealed for path in top.glob("x")]
        file = self.read_only / "file"
        return found + ([str(file)] if file.stat().st_size else [])


@pytest.fixture(scope="module")
def volumes(place: Place) -> Volumes:
    """The volumes of the protected containers."""
    return Volumes.make(place)


# Runs its arguments, then takes away what they have left on /mnt.
AND_CLEAN = """
"$@"
for i in 1 2 3 4 5; do
    [ "$(mnt umount2 /mnt MNT_DETACH)" = 0 ] || break
done
rm -f /mnt/x /mnt/file
"""


class Protected:
    """One container under eci-runtime for each kind; each attack is an exec in one of them."""

    def __init__(self, dockerd: Dockerd, runtime: str, volumes: Volumes) -> None:
        self.dockerd = dockerd
        self._runtime = runtime
        self._volumes = volumes
        self._containers: dict[str, str] = {}

    def container(self, kind: str) -> str:
        """Return the id of the running container of that kind."""
        if kind not in self._containers:
            volumes = self._volumes
            self._containers[kind] = self.dockerd.out(
                "run", "-d", f"--runtime={self._runtime}", *KINDS[kind],
                "-v", f"{volumes.read_only}:/vol:ro", "-v", f"{volumes.writable}:/w",
                "-v", f"{volumes.inner}:/w/in:ro", "-v", f"{volumes.inner}:/w/d/in:ro",
                "-v", f"{volumes.inner}:/srv/d/in:ro", IMAGE,
                "sh", "-c", f"touch /tmp/file; {SLEEP}",
            )  # fmt: skip
        return self._containers[kind]

    def run(self, kind: str, words: list[str], *, user: int = 0) -> str:
        """Run the words in the container of that kind and return what they print."""
        shell = ["sh", "-c", AND_CLEAN, "sh"]
        return self.dockerd.out("exec", f"-u{user}", self.container(kind), *shell, *words)

    def renew(self, kind: str) -> None:
        """Remove the container of that kind: an attack that went wrong may have spoilt it."""
        container = self._containers.pop(kind, None)
        if container:
            self.dockerd.docker("rm", "-fv", container)

    def close(self) -> None:
        """Remove all."""
        for kind in KINDS:
            self.renew(kind)


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def protected(
    request: pytest.FixtureRequest, dockerd: Dockerd, volumes: Volumes
) -> Iterator[Protected]:
    """The protected side, on each runtime."""
    side = Protected(dockerd, request.param, volumes)
    yield side
    side.close()


@pytest.fixture
def bare(bundles: Bundles, place: Place, own_root: Path) -> Callable[[str, list[str]], str]:
    """Run words under plain runc in a user namespace, in a container like the protected ones."""

    def run(kind: str, words: list[str]) -> str:
        mine = Volumes.make(place)
        name = bundles.name()
        spec = make_spec(
            words,
            cgroup=bundles.cgroup(name),
            privileged=kind == PRIVILEGED,
            cap_add=["CAP_SYS_ADMIN"],
            mounts=[
                bind(mine.read_only, "/vol", "ro"),
                bind(mine.writable, "/w"),
                bind(mine.inner, "/w/in", "ro"),
                bind(mine.inner, "/w/d/in", "ro"),
                bind(mine.inner, "/srv/d/in", "ro"),
            ],
            identity_userns=True,
        )
        bundle = bundles.write(spec, own_root)
        runc = bundles.runtime("runc")
        bundles.expect(runc, name)
        return runc.call("run", "--bundle", str(bundle), name).stdout

    return run


@pytest.fixture(scope="module")
def own_root(place: Place, programs: dict[str, Path]) -> Path:
    """A root file system that the containers without protection may spoil."""
    root = build_root(place.directory("b") / "root", programs.values())
    (root / "tmp/file").touch()
    return root


@pytest.mark.parametrize(("one", "kind", "program"), CASES)
def test_attack_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(bare(kind, one.words(program)), protected=False)


@pytest.mark.parametrize(("one", "kind", "program"), CASES)
def test_attack_fails(
    protected: Protected, volumes: Volumes, one: Attack, kind: str, program: str
) -> None:
    try:
        one.check(protected.run(kind, one.words(program)), protected=True)
        assert volumes.written() == []
    except BaseException:
        protected.renew(kind)
        volumes.mend()
        raise


# -- everything else is the container's own business --------------------------------------

# Answers are not written down here: they are what the kernel says to the same calls under runc.
OWN_BUSINESS = {
    # Only overlayfs lets a backslash protect a comma: what stands behind is an option.  A number is
    # a relative path of the caller's, and none of the supervisor's fds.
    "options_behind_a_backslash": (
        r"mount - /mnt proc - source=\,pidns=2",
        r"mount - /mnt proc - source=\,pidns=../2",
        "mount - /mnt proc - pidns=3",
        "mount - /mnt proc - pidns=/etc/passwd",
        "mount - /mnt proc - pidns=/nothing",
        "umount2 /mnt -",
    ),
    "tmpfs_ro_and_rw_again": (
        "mount none /mnt tmpfs - -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT|MS_RDONLY -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "write /mnt/x",
        "umount2 /mnt -",
        "umount2 /mnt -",
    ),
    "tmpfs_with_data": (
        "mount none /mnt tmpfs MS_NOSUID|MS_NODEV|MS_NOEXEC size=64k,mode=700,uid=1000",
        "flags /mnt",
        "mount none /mnt tmpfs MS_REMOUNT size=128k",
        "mount none /mnt tmpfs MS_REMOUNT size=nonsense",
        "umount2 /mnt -",
        "mount none /mnt tmpfs - nonsense=1",
    ),
    "bind_made_and_removed": (
        "mount /bin /mnt - MS_BIND -",
        "kind /mnt/busybox",
        "umount2 /mnt -",
        "kind /mnt/busybox",
    ),
    "bind_of_a_file": (
        "mount /etc/passwd /tmp/file - MS_BIND -",
        "umount2 /tmp/file UMOUNT_NOFOLLOW",
    ),
    "bind_of_a_volume_that_is_writable": (
        "mount /w /mnt - MS_BIND|MS_REC -",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "write /mnt/own",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "write /mnt/own",
        "umount2 /mnt MNT_DETACH",
    ),
    "writable_volume_ro_and_rw_again": (
        "mount - /w - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "write /w/own",
        "mount - /w - MS_REMOUNT|MS_BIND -",
        "write /w/own",
    ),
    "read_only_volume_made_stricter": (
        "mount /vol /mnt - MS_BIND -",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY|MS_NOSUID|MS_NOEXEC -",
        "flags /mnt",
        "umount2 /mnt -",
    ),
    "over_a_read_only_volume": (
        "mount none /vol tmpfs - -",
        "write /vol/own",
        "umount2 /vol -",
        "write /vol/own",
    ),
    "recursive_copy_of_the_tree": (
        "mount / /mnt - MS_BIND|MS_REC -",
        "umount2 /mnt -",
        "umount2 /mnt MNT_DETACH",
        "umount2 /mnt MNT_DETACH",
    ),
    "recursive_copy_of_proc": (
        "mount /proc /mnt - MS_BIND|MS_REC -",
        "umount2 /mnt MNT_DETACH",
        "kind /mnt/self",
    ),
    "move_and_propagation": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/a",
        "mkdir /mnt/b",
        "mount - /mnt - MS_SHARED -",
        "mount none /mnt/a tmpfs - -",
        "mount /mnt/a /mnt/b - MS_MOVE -",
        "mount - /mnt - MS_PRIVATE|MS_REC -",
        "mount /mnt/a /mnt/b - MS_MOVE -",
        "mount none /mnt/a tmpfs - -",
        "mount /mnt/a /mnt/b - MS_MOVE -",
        "write /mnt/b/x",
        "mount - /mnt - MS_UNBINDABLE|MS_SHARED -",
        "mount - /mnt - MS_UNBINDABLE -",
        "mount /mnt /tmp - MS_BIND -",
        "umount2 /mnt -",
        "umount2 /mnt MNT_DETACH",
    ),
    "overlay": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/l",
        "mkdir /mnt/u",
        "mkdir /mnt/k",
        "mkdir /mnt/m",
        "write /mnt/l/x",
        "mount overlay /mnt/m overlay - lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/k",
        "write /mnt/m/x",
        "kind /mnt/u/x",
        "umount2 /mnt/m -",
    ),
    "own_mount_namespace": (
        "unshare CLONE_NEWNS",
        "mount none /mnt tmpfs - -",
        "mount - /mnt - MS_REMOUNT|MS_RDONLY -",
        "write /mnt/x",
        "umount2 /mnt -",
        "mount - / - MS_PRIVATE|MS_REC -",
    ),
    "own_user_namespace": (
        "unshare CLONE_NEWUSER|CLONE_NEWNS",
        "map 0",
        "mount none /mnt tmpfs - -",
        "write /mnt/x",
        "umount2 /mnt -",
        "umount2 /w -",
        "umount2 /w/in -",
    ),
    "in_a_chroot": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/d",
        "chroot /mnt",
        "mount none /d tmpfs - -",
        "mount none d tmpfs - -",
        "mount none /mnt tmpfs - -",
        "umount2 /d -",
        "chdir /d",
        "umount2 /d -",
    ),
    "errors_of_paths": (
        "mount none /none tmpfs - -",
        "mount none /etc/passwd tmpfs - -",
        "mount none /etc/passwd/x tmpfs - -",
        "mount none - tmpfs - -",
        "mount /bin /etc/passwd - MS_BIND -",
        "mount /etc/passwd /mnt - MS_BIND -",
        "mount /none /mnt - MS_BIND -",
        "mount - /mnt - MS_BIND -",
        "mount /mnt /bin - MS_MOVE -",
        "umount2 /none -",
        "umount2 - -",
        "umount2 /mnt MNT_FORCE|MNT_EXPIRE",
        "umount2 /mnt 0x100",
        f"umount2 /{'n' * 300} -",
        f"umount2 /{'n/' * 2100} -",
        f"mount none /{'n' * 300} tmpfs - -",
    ),
    "errors_of_types": (
        "mount none /mnt nonsense - -",
        "mount none /mnt - - -",
        f"mount none /mnt {'t' * 5000} - -",
        "mount /dev/null /mnt ext4 - -",
        "mount - /mnt tmpfs MS_REMOUNT -",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "mount - /mnt - MS_SHARED|MS_PRIVATE -",
        "mount - /mnt - MS_SHARED -",
    ),
    "loops_of_symlinks": (
        "mount none /mnt tmpfs - -",
        "symlink loop /mnt/loop",
        "mount none /mnt/loop tmpfs - -",
        "symlink /mnt /mnt/here",
        "umount2 /mnt/here UMOUNT_NOFOLLOW",
        "mount none /mnt/here tmpfs - -",
        "umount2 /mnt/here -",
        "umount2 /mnt -",
    ),
    "expire": (
        "mount none /mnt tmpfs - -",
        "umount2 /mnt MNT_EXPIRE",
        "umount2 /mnt MNT_EXPIRE",
    ),
}


@pytest.mark.parametrize("program", ["mnt", "mnt32"])
@pytest.mark.parametrize("name", OWN_BUSINESS)
def test_own_business_is_as_under_runc(
    protected: Protected, bare: Callable[[str, list[str]], str], name: str, program: str
) -> None:
    calls = OWN_BUSINESS[name]
    words = [program, *" , ".join(calls).split()]
    try:
        answers = [
            answer.splitlines()
            for answer in (protected.run(PRIVILEGED, words), bare(PRIVILEGED, words))
        ]
    except BaseException:
        protected.renew(PRIVILEGED)
        raise
    ours, kernels = (list(zip(calls, answer, strict=True)) for answer in answers)
    if ours != kernels:
        protected.renew(PRIVILEGED)
    assert ours == kernels


def test_own_business_is_worth_comparing(bare: Callable[[str, list[str]], str]) -> None:
    """Were everything refused on both sides, the comparison above would show nothing."""
    words = [f"mnt {' , '.join(OWN_BUSINESS[name])}".split() for name in ("overlay", "expire")]
    assert [bare(PRIVILEGED, one).split() for one in words] == [
        [*["0"] * 8, "reg", "0"],
        ["0", "EAGAIN", "0"],
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", ["mnt", "mnt32"])
def test_unprivileged_user_cannot_mount(protected: Protected, kind: str, program: str) -> None:
    calls = [
        "mount none /mnt tmpfs - -",
        "mount /bin /mnt - MS_BIND -",
        "mount - /w - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "mount - / - MS_PRIVATE|MS_REC -",
        "umount2 /w/in -",
        "umount2 /vol MNT_DETACH",
    ]
    words = [program, *" , ".join(calls).split()]
    assert protected.run(kind, words, user=1000).split() == ["EPERM"] * len(calls)
    dropped = [program, "setuid", "1000", ",", *words[1:]]
    assert protected.run(kind, dropped).split() == ["0", *["EPERM"] * len(calls)]


def test_copies_of_masked_file_systems_can_be_removed(protected: Protected) -> None:
    """With the whole copy its masks go, and nothing is uncovered: chroots are left this way."""
    calls = []
    for target in ("/proc", "/sys"):
        calls += [f"mount {target} /mnt - MS_BIND|MS_REC -", "umount2 /mnt -"]
        calls += ["umount2 /mnt MNT_DETACH", "umount2 /mnt -"]
    words = ["mnt", *" , ".join(calls).split()]
    assert protected.run(SYS_ADMIN, words).split() == ["0", "EBUSY", "0", "EINVAL"] * 2


WORKER = Path(__file__).parents[2] / "eci_supervisor/bin/eci-worker"
IN_OWN_NAMESPACE = """\
unshare {flag} sh -c 'mount -t {fstype} x /mnt && umount /mnt && readlink /proc/self/ns/{kind}'
"""


@pytest.mark.parametrize(
    ("flag", "fstype", "kind"), [("-n", "sysfs", "net"), ("-i", "mqueue", "ipc")]
)
def test_caller_namespaces_end_with_their_last_process(
    protected: Protected, flag: str, fstype: str, kind: str
) -> None:
    """The worker is in them for as long as it takes to make what shows them."""
    script = IN_OWN_NAMESPACE.format(flag=flag, fstype=fstype, kind=kind)
    gone = protected.run(SYS_ADMIN, ["sh", "-c", script])
    assert gone.startswith(f"{kind}:[")
    held = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "exe") == str(WORKER):
                held |= {os.readlink(path) for path in process.glob(f"task/*/ns/{kind}")}
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    assert held
    assert gone not in held


def test_interrupted_fsmount_answers_with_its_descriptor(protected: Protected) -> None:
    """Under runc 1.1 signals interrupt a caller, whose call then comes again by itself."""
    assert protected.run(SYS_ADMIN, ["mnt", "interrupted", "8000"]).split() == ["8000", "0"]


def test_file_systems_made_inside_belong_to_the_container(protected: Protected) -> None:
    script = "mnt mount none /mnt tmpfs - - >&2; touch /mnt/x; stat -c %u:%g /mnt /mnt/x"
    assert protected.run(PRIVILEGED, ["sh", "-c", script]).split() == ["0:0", "0:0"]


@pytest.mark.parametrize("runtime", ["eci", "eci-crun"])
def test_read_only_root_cannot_be_opened(dockerd: Dockerd, runtime: str) -> None:
    calls = [
        (rebind("/"), "EPERM"),
        ("mount - / - MS_REMOUNT -", "EPERM"),
        ("mount / /mnt - MS_BIND -", "0"),
        (rebind("/mnt"), "EPERM"),
        ("write /mnt/lifted", "EROFS"),
        ("umount2 /mnt -", "0"),
        ("mount /bin /mnt - MS_BIND -", "0"),
        (rebind("/mnt"), "EPERM"),
        ("write /mnt/lifted", "EROFS"),
        ("write /lifted", "EROFS"),
    ]
    words = ["mnt", *" , ".join(call for call, _ in calls).split()]
    run = ["run", "--rm", f"--runtime={runtime}", "--privileged", "--read-only", IMAGE]
    seen = dockerd.out(*run, *words).splitlines()
    assert list(zip((call for call, _ in calls), seen, strict=True)) == calls


def test_read_only_root_is_opened_without_protection(bundles: Bundles, own_root: Path) -> None:
    name = bundles.name()
    words = ["mnt", *rebind("/").split(), ",", "write", "/lifted"]
    spec = make_spec(
        words, cgroup=bundles.cgroup(name), privileged=True, readonly=True, identity_userns=True
    )
    runc = bundles.runtime("runc")
    bundles.expect(runc, name)
    done = runc.call("run", "--bundle", str(bundles.write(spec, own_root)), name)
    assert done.stdout.split() == ["0", "0"]


def test_mount_calls_stay_denied_where_the_container_cannot_mount(
    dockerd: Dockerd, place: Place
) -> None:
    """Such a container keeps its profile, and no process of ours lives for it."""
    before = len(place.left_processes())
    with dockerd.container("--runtime=eci") as container:
        words = "mnt mount none /mnt tmpfs - - , umount2 /proc - , unshare CLONE_NEWNS".split()
        assert dockerd.out("exec", container, *words).split() == ["EPERM"] * 3
        ours = [line for line in place.left_processes() if "eci-worker" in line]
        assert len(ours) <= before
        assert not any("eci-worker" in line and container in line for line in ours)


# -- races --------------------------------------------------------------------------------

ROUNDS = 4000


def counts(line: str) -> dict[str, int]:
    """Decode what the race program prints."""
    return {name: int(count) for name, _, count in (word.partition("=") for word in line.split())}


@pytest.mark.parametrize("program", ["race", "race32"])
def test_rewritten_path_of_a_remount_gets_no_other_verdict(
    protected: Protected, volumes: Volumes, program: str
) -> None:
    script = (
        f"mnt mount none /mnt tmpfs - - >&2; {program} remount {ROUNDS} /mnt /vol; mnt flags /vol"
    )
    line, flags = protected.run(PRIVILEGED, ["sh", "-c", script]).splitlines()
    seen = counts(line)
    flips = seen.pop("flips")
    # Both verdicts were given, to paths that were whole or torn (/mol), and to no other effect.
    assert flips > 100
    assert seen["0"] > 0
    assert seen["EPERM"] > 0
    assert set(seen) <= {"0", "EPERM", "ENOENT", "EINVAL"}
    assert sum(seen.values()) >= ROUNDS
    assert flags.startswith("ro")
    assert volumes.written() == []


@pytest.mark.parametrize("program", ["race", "race32"])
def test_rewritten_path_of_an_umount_gets_no_other_verdict(
    protected: Protected, volumes: Volumes, program: str
) -> None:
    script = f"""
        mkdir -p /t/in; {program} umount {ROUNDS} /t/in /w/in; echo "$?"
        while mnt umount2 /t/in MNT_DETACH | grep -qx 0; do :; done
        mnt write /w/in/x
    """
    line, status, write = protected.run(PRIVILEGED, ["sh", "-c", script]).splitlines()
    seen = counts(line)
    flips = seen.pop("flips")
    assert status == "0"
    assert flips > 100
    assert seen["0"] > 0
    assert seen["EPERM"] > 0
    assert set(seen) <= {"0", "EPERM"}
    assert write == "EROFS"
    assert volumes.written() == []


@pytest.mark.parametrize(
    ("calls", "opened"),
    [
        (f"race remount {ROUNDS} /mnt /vol; mnt write /vol/x", "0"),
        (f"mkdir -p /t/in; race umount {ROUNDS} /t/in /w/in; mnt write /w/in/x", "0"),
    ],
)
def test_race_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], calls: str, opened: str
) -> None:
    script = f"mnt mount none /mnt tmpfs - - >&2; {calls}"
    line, write = bare(PRIVILEGED, ["sh", "-c", script]).splitlines()
    assert counts(line)["0"] > 0
    assert write == opened
