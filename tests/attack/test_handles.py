"""Files outside of what was mounted are opened by their handles.

Shown to succeed in a privileged container without a user namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, PRIVILEGED, Attack, attack, cases

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

# Inode 2 is the root directory of ext4, and 1 that of some others.
FORGED = ("0|ESTALE", "EPERM")
ATTACKS = [
    attack("of_a_volume", ("by_handle /vol /vol/file", "0", "EPERM"), kinds=(PRIVILEGED,)),
    attack("of_a_writable_volume", ("by_handle /w /w/secret/mark", "0", "EPERM"),
           kinds=(PRIVILEGED,)),
    attack("forged_root", ("forged_handle /w 2", *FORGED), ("forged_handle /vol 1", *FORGED),
           kinds=(PRIVILEGED,)),
]  # fmt: skip

# The supervisor has mount namespaces of its own, in which nothing is masked.  The container's root
# has all power over them, could it but name them.
NAMESPACES = ("next_namespace", "namespace_by_handle")


def test_namespaces_are_found_without_protection(
    plain: Callable[[str, list[str]], str],
) -> None:
    words = "mnt leave_one CLONE_NEWNS , next_namespace /".split()
    assert plain(PRIVILEGED, words).split() == ["0", "0"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", NAMESPACES)
def test_namespaces_of_ours_are_not_found(protected: Protected, kind: str, way: str) -> None:
    left, answer = protected.run(
        kind, ["mnt", "leave_one", "CLONE_NEWNS", ",", way, "/build"]
    ).split()
    assert left == "0"
    # Answered by csrc/guard.h, wherever the kernel would do it.
    assert answer == "EPERM"


@cases(ATTACKS)
def test_succeeds_without_protection(
    plain: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(plain(kind, one.words(program)), protected=False)


@cases(ATTACKS)
def test_fails(protected: Protected, one: Attack, kind: str, program: str) -> None:
    protected.attack(one, kind, program)
