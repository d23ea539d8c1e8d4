"""The kernel's own file systems: a second one without masks, files that reach the whole host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, PRIVILEGED, SAME, Attack, attack, cases, masked

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

# A new sysfs may not be looser than the first one, says the kernel.
SAFE = "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC"
SHOWN = ("kind timer_list", "reg", "chr 1:3")


def by_fsmount(fs: str, slot: int) -> tuple[tuple[str, str, str], ...]:
    """Return the calls that make a detached file system, and keep it in a slot."""
    return (
        (f"fsopen 15 {fs}", *SAME),
        ("fsconfig 15 FSCONFIG_CMD_CREATE - -", *SAME),
        (f"fsmount_at {slot} 15 {SAFE}", *SAME),
    )


def in_namespaces(flags: str) -> tuple[tuple[str, str, str], ...]:
    """Return the calls that lead to a child in new namespaces."""
    return ((f"unshare {flags}", *SAME), ("fork", *SAME))


SPACES = {"pid": "CLONE_NEWPID", "net": "CLONE_NEWNET", "cgroup": "CLONE_NEWCGROUP",
          "all": "CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWCGROUP|CLONE_NEWIPC|CLONE_NEWNS"}  # fmt: skip
DIRECTORY = ("count firmware", r"[1-9]\d*", "0")

# "subset=pid" shows none of the paths that are to be covered, and can be taken back.
WHOLE = (
    ("fsconfig 1 FSCONFIG_SET_STRING subset ,,", *SAME),
    ("fsconfig 1 FSCONFIG_CMD_RECONFIGURE - -", *SAME),
    SHOWN,
)

SECOND = masked([
    attack("proc_with_a_subset_taken_back", ("mount proc /mnt proc - subset=pid", *SAME),
           ("chdir /mnt", *SAME), ("kind timer_list", "ENOENT", "ENOENT|chr 1:3"),
           ("fspick 1 /mnt", *SAME), *WHOLE),
    attack("proc_by_fsmount_with_a_subset_taken_back", ("fsopen 15 proc", *SAME),
           ("fsconfig 15 FSCONFIG_SET_STRING subset pid", *SAME),
           ("fsconfig 15 FSCONFIG_CMD_CREATE - -", *SAME), (f"fsmount_at 3 15 {SAFE}", *SAME),
           ("move_mount 3 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *SAME), ("chdir /mnt", *SAME),
           ("fspick 1 /mnt", *SAME), *WHOLE),
    attack("proc_by_mount", ("mount proc /mnt proc - -", *SAME), ("chdir /mnt", *SAME), SHOWN),
    attack("proc_by_mount_with_options", ("mount proc /mnt proc MS_RDONLY|MS_NOEXEC hidepid=0",
           *SAME), ("chdir /mnt", *SAME), SHOWN),
    attack("proc_on_proc", ("mount proc /proc proc - -", *SAME), ("chdir /proc", *SAME), SHOWN,
           ("chdir /", *SAME), ("umount2 /proc MNT_DETACH", *SAME)),
    attack("proc_by_fsmount", *by_fsmount("proc", 3), ("fchdir 3", *SAME), SHOWN),
    attack("sys_by_fsmount", *by_fsmount("sysfs", 3), ("fchdir 3", *SAME), DIRECTORY),
    attack("proc_by_fsmount_attached", *by_fsmount("proc", 3),
           ("move_mount 3 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *SAME), ("chdir /mnt", *SAME),
           SHOWN),
    attack("proc_by_fsmount_copied", *by_fsmount("proc", 3),
           ("open_tree 4 3 '' AT_EMPTY_PATH|OPEN_TREE_CLONE", "0", "0|EINVAL"),
           ("fchdir 4", "0", "0|EBADF|ENOTDIR"), ("kind timer_list", "reg", "chr 1:3|ENOENT")),
    # The supervisor keeps the last 64 alive.
    attack("proc_that_is_let_go", *by_fsmount("proc", 3), ("fchdir 3", *SAME),
           *(call for _ in range(70) for call in by_fsmount("tmpfs", 4)), SHOWN),
    attack("proc_reconfigured", ("mount proc /mnt proc - -", *SAME), ("fspick 1 /mnt", *SAME),
           ("fsconfig 1 FSCONFIG_SET_STRING subset pid", "0|EINVAL", "0|EINVAL"),
           ("fsconfig 1 FSCONFIG_CMD_RECONFIGURE - -", "0|EINVAL", "0|EINVAL"),
           ("chdir /mnt", *SAME), ("kind timer_list", "reg|ENOENT", "chr 1:3|ENOENT")),
    *(attack(f"proc_in_new_{name}", *in_namespaces(flags), ("mount proc /mnt proc - -", *SAME),
             ("chdir /mnt", *SAME), SHOWN) for name, flags in SPACES.items()),
    *(attack(f"proc_by_fsmount_in_new_{name}", *in_namespaces(flags), *by_fsmount("proc", 3),
             ("fchdir 3", *SAME), SHOWN) for name, flags in SPACES.items()),
    *(attack(f"sys_in_new_{name}", *in_namespaces(flags),
             ("mount sysfs /mnt sysfs MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC -", *SAME),
             ("chdir /mnt", *SAME), DIRECTORY) for name, flags in SPACES.items()),
    # What the container's root has made, a nested user namespace mounts: the kernel judges there.
    attack("proc_context_for_a_nested_user_namespace", ("fsopen 15 proc", *SAME),
           ("fsconfig 15 FSCONFIG_CMD_CREATE - -", *SAME),
           ("unshare CLONE_NEWUSER|CLONE_NEWNS", *SAME), ("fsmount_at 3 15 -", "EPERM", "EPERM")),
    attack("proc_mask_of_a_new_one", ("mount proc /mnt proc - -", *SAME),
           ("umount2 /mnt/timer_list -", "EINVAL", "EPERM|EINVAL"), ("chdir /mnt", *SAME), SHOWN),
])  # fmt: skip

ATTACKS = SECOND

# Opened for writing, and not written.
HOST_FILES = [
    attack(name, (f"open {path} w", "0", "EACCES|EPERM|EROFS|ENOENT"))
    for name, path in {
        "core_pattern": "/proc/sys/kernel/core_pattern",
        "panic": "/proc/sys/kernel/panic",
        "drop_caches": "/proc/sys/vm/drop_caches",
        "overcommit": "/proc/sys/vm/overcommit_memory",
        "file_max": "/proc/sys/fs/file-max",
        "randomize": "/proc/sys/kernel/randomize_va_space",
    }.items()
]


@pytest.mark.parametrize("one", HOST_FILES, ids=lambda one: str(one.name))
def test_file_of_the_host_opens_without_protection(
    plain: Callable[[str, list[str]], str], one: Attack
) -> None:
    one.check(plain(PRIVILEGED, one.words("mnt")), protected=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one", HOST_FILES, ids=lambda one: str(one.name))
def test_file_of_the_host_does_not_open(protected: Protected, one: Attack, kind: str) -> None:
    protected.attack(one, kind, "mnt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fs", ["cgroup", "cgroup2"])
@pytest.mark.parametrize("new", [False, True])
def test_cgroup_file_of_the_host_does_not_open(
    protected: Protected, fs: str, kind: str, *, new: bool
) -> None:
    """release_agent runs a program on the host, devices.allow gives every device."""
    spaces = ["unshare", "CLONE_NEWCGROUP", ",", "fork", ","] if new else []
    options = "devices" if fs == "cgroup" else "-"
    files = ["release_agent", "devices.allow", "cgroup.procs"]
    words = ["mnt", *spaces, "mount", "none", "/mnt", fs, "-", options]
    for file in files:
        words += [",", "open", f"/mnt/{file}", "w"]
    answers = protected.run(kind, words).split()[-3:]
    assert set(answers[:2]) <= {"EACCES", "EPERM", "ENOENT", "EROFS"}


@cases(ATTACKS)
def test_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(bare(kind, one.words(program)), protected=False)


@cases(ATTACKS)
def test_fails(protected: Protected, one: Attack, kind: str, program: str) -> None:
    protected.attack(one, kind, program)
