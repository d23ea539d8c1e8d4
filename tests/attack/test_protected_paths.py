"""Rule 3: a host-protected path in a volume is bound, buried, moved or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import (
    DENIED,
    EMPTY_PATHS,
    IN_PRIVATE,
    PRIVILEGED,
    PROGRAMS,
    SAME,
    Attack,
    attack,
    new_tmpfs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.attack.conftest import Guarded

pytestmark = [pytest.mark.root, pytest.mark.engine]

SHOWN = ("kind /mnt/mark", "reg", "ENOENT")


def bound(name: str, path: str, *before: tuple[str, str, str], shows: str = "mark") -> Attack:
    """Return the attack that binds `path` after other calls."""
    kind = "reg" if shows == "mark" else "dir"
    return attack(
        f"bind_{name}",
        *before,
        (f"mount {path} /mnt - MS_BIND -", *DENIED),
        (f"kind /mnt/{shows}", kind, "ENOENT"),
    )


MADE = ("0|EEXIST", "0|EEXIST")


def layers(name: str, data: str, *before: tuple[str, str, str], shows: str = "mark") -> Attack:
    """Return the attack that has an overlay with such layers made."""
    kind = "reg" if shows == "mark" else "dir"
    return attack(
        f"overlay_of_{name}",
        ("mount none /mnt tmpfs - -", *SAME), ("mkdir /mnt/l", *SAME), ("mkdir /mnt/m", *SAME),
        *before,
        (f"mount overlay /mnt/m overlay - {data}", *DENIED),
        (f"kind /mnt/m/{shows}", kind, "dir" if shows == "." else "ENOENT"),
    )  # fmt: skip


# /w is a writable volume, and /w/secret the protected path.
ATTACKS = [
    bound("it", "/w/secret"),
    attack("bind_it_recursively", ("mount /w/secret /mnt - MS_BIND|MS_REC -", *DENIED), SHOWN),
    attack("bind_what_is_in_it", ("mount /w/secret/mark /tmp/file - MS_BIND -", *DENIED),
           ("umount2 /tmp/file -", "0", "EINVAL")),
    bound("what_is_above_it", "/w", shows="secret"),
    bound("it_through_dots", "/w/aaaaaa/../secret/sub/.."),
    bound("it_through_a_symlink", "/tmp/link", ("symlink /w/secret /tmp/link", *MADE)),
    bound("it_through_proc", "/proc/self/root/w/secret"),
    bound("the_working_directory", ".", ("chdir /w/secret", *SAME)),
    bound("it_in_a_private_namespace", "/w/secret", IN_PRIVATE),
    attack("bind_it_in_a_chroot", ("chroot /w", *SAME), ("chdir /", *SAME),
           ("mount /secret /aaaaaa - MS_BIND -", *DENIED), ("kind /aaaaaa/mark", "reg", "ENOENT"),
           ("umount2 /aaaaaa -", "0", "EINVAL")),
    attack("bind_what_is_in_it_in_a_chroot", ("chroot /w/secret", *SAME), ("chdir /", *SAME),
           ("mount /mark /mark - MS_BIND -", *DENIED), ("umount2 /mark -", "0", "EPERM")),
    attack("bind_it_under_another_name", ("rename /w/secret /w/moved", *SAME),
           ("mount /w/moved /mnt - MS_BIND -", *DENIED), SHOWN,
           ("umount2 /mnt -", "0", "EINVAL"),
           ("mount /w/moved/sub /mnt - MS_BIND -", *DENIED),
           ("rename /w/moved /w/secret", *SAME)),
    # A mount that has shown no protected path before, until one was renamed into it.
    attack("bind_it_after_a_rename_into_another_mount", ("mkdir /tmp/other", *MADE),
           ("mount /w/aaaaaa /tmp/other - MS_BIND -", *SAME),
           ("mount /tmp/other/sub /mnt - MS_BIND -", *SAME), ("umount2 /mnt -", *SAME),
           ("rename /w/secret /w/aaaaaa/secret", *SAME),
           ("mount /tmp/other/secret/sub /mnt - MS_BIND -", *DENIED),
           ("mount /tmp/other/secret/mark /tmp/file - MS_BIND -", *DENIED),
           ("rename /w/aaaaaa/secret /w/secret", *SAME), ("umount2 /tmp/other -", *SAME)),
    attack("bury_it", ("mount none /w/secret tmpfs - -", *DENIED),
           ("kind /w/secret/mark", "ENOENT", "reg"), ("umount2 /w/secret -", "0", "EPERM")),
    attack("bury_what_is_in_it", ("mount /bin /w/secret/sub - MS_BIND -", *DENIED),
           ("kind /w/secret/sub/busybox", "reg", "ENOENT"),
           ("umount2 /w/secret/sub -", "0", "EPERM")),
    attack("attach_on_it", *new_tmpfs(3), ("open_at 4 cwd /w/secret/sub", *SAME),
           (f"move_mount 3 '' 4 '' {EMPTY_PATHS}", *DENIED),
           ("umount2 /w/secret/sub MNT_DETACH", "0", "EPERM")),
    attack("attach_a_copy_of_it", ("open_tree 1 cwd /w/secret OPEN_TREE_CLONE", *SAME),
           ("move_mount 1 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *DENIED), SHOWN),
    attack("change_a_copy_of_it", ("open_tree 1 cwd /w/secret OPEN_TREE_CLONE", *SAME),
           ("setattr 1 '' AT_EMPTY_PATH MOUNT_ATTR_RDONLY - -", *DENIED)),
    attack("change_what_is_above_it", ("mount - /w - MS_REMOUNT|MS_BIND|MS_RDONLY -", *DENIED),
           ("write /w/own", "EROFS", "0")),
    attack("change_what_is_above_it_by_the_new_call",
           ("setattr cwd /w - MOUNT_ATTR_RDONLY - -", *DENIED), ("write /w/own", "EROFS", "0")),
    # The root of the copy is neither protected nor above anything, and from there no way leads up.
    attack("attach_a_copy_of_what_is_in_it",
           ("open_tree 1 cwd /w/secret/sub OPEN_TREE_CLONE", *SAME),
           ("move_mount 1 '' cwd /mnt MOVE_MOUNT_F_EMPTY_PATH", *DENIED)),
    # What is shared in it is the container's own again, and what is in that.
    attack("bind_what_is_shared_in_it", ("mount /w/secret/sub/free /mnt - MS_BIND -", *SAME),
           ("mount /w/secret/sub/free/inner /mnt - MS_BIND -", *SAME),
           ("mount /mnt/.. /tmp/file - MS_BIND -", "ENOTDIR", "ENOTDIR"),
           ("umount2 /mnt -", *SAME), ("umount2 /mnt -", *SAME),
           ("mount /w/secret/sub /mnt - MS_BIND -", *DENIED), ("umount2 /mnt -", "0", "EINVAL")),
    layers("it", "lowerdir=/w/secret:/mnt/l"),
    layers("what_is_above_it", "lowerdir=/w:/mnt/l", shows="secret"),
    layers("it_by_a_relative_path", "lowerdir=/mnt/l:secret", ("chdir /w", *SAME)),
    layers("what_is_in_it_for_writing",
           "lowerdir=/mnt/l,upperdir=/w/secret/sub,workdir=/w/secret/work",
           ("mkdir /w/secret/work", *MADE), shows="."),
]  # fmt: skip
ATTACKS_BY_NAME = {one.name: one for one in ATTACKS}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ATTACKS_BY_NAME)
def test_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], name: str, program: str
) -> None:
    one = ATTACKS_BY_NAME[name]
    one.check(bare(PRIVILEGED, one.words(program)), protected=False)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ATTACKS_BY_NAME)
def test_fails(guarded: Guarded, name: str, program: str) -> None:
    guarded.attack(ATTACKS_BY_NAME[name], program)
