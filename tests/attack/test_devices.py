"""Devices of the host: nodes are made, or found in a volume, and opened.

Shown to succeed in a privileged container without a user namespace: with one, the kernel makes
no nodes for anybody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, PRIVILEGED, SAME, Attack, attack, cases, new_tmpfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

MADE = ("0", "EPERM")
OPENED = ("0", "ENOENT")
# /w/node is the node of a block device of the host.  1:1 is /dev/mem, of which nothing is read.
ATTACKS = [
    attack("in_dev", ("mknod /dev/x c 1 7", *MADE), ("open /dev/x r", *OPENED)),
    attack("in_the_root", ("mknod /x c 1 7", *MADE), ("open /x r", *OPENED),
           ("unlink /x", *OPENED)),
    attack("block", ("mknod /x b 7 0", *MADE), ("unlink /x", *OPENED)),
    attack("memory", ("mknod /x c 1 1", *MADE), ("open /x r", "0|EPERM|ENXIO", "ENOENT"),
           ("unlink /x", *OPENED)),
    attack("in_a_volume", ("mknod /w/x c 1 7", *MADE), ("open /w/x r", *OPENED)),
    attack("in_a_new_tmpfs", ("mount none /mnt tmpfs - -", *SAME), ("mknod /mnt/x c 1 7", *MADE),
           ("open /mnt/x r", *OPENED)),
    attack("in_a_detached_tmpfs", *new_tmpfs(3), ("fchdir 3", *SAME), ("mknod x c 1 7", *MADE),
           ("open x r", *OPENED)),
    attack("found_in_a_volume", ("open /w/node r", "0", "EPERM|EACCES"),
           ("open /w/node w", "0", "EPERM|EACCES")),
    attack("found_and_bound", ("write /tmp/file", *SAME),
           ("mount /w/node /tmp/file - MS_BIND -", *SAME),
           ("open /tmp/file r", "0", "EPERM|EACCES"),
           ("umount2 /tmp/file -", *SAME)),
]  # fmt: skip
ATTACKS = [replace(one, kinds=(PRIVILEGED,)) for one in ATTACKS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["kvm", "fuse", "loop0", "loop-control", "mapper/control", "mem"])
def test_no_device_of_the_host_is_there(protected: Protected, kind: str, name: str) -> None:
    assert protected.run(kind, ["mnt", "open", f"/dev/{name}", "r"]) == "ENOENT"


@cases(ATTACKS)
def test_succeeds_without_protection(
    plain: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(plain(kind, one.words(program)), protected=False)


@cases(ATTACKS)
def test_fails(protected: Protected, one: Attack, kind: str, program: str) -> None:
    protected.attack(one, kind, program)
