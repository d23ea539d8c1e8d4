"""The supervisor is answered for, or kept from being asked.

A filter counts for nobody but who installed it and its children, and of several answers the
strictest is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, OPENS, SAME, Attack, attack, cases, rebind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Containers
    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

UNTOUCHED = ("write /vol/x", "EROFS", "EROFS")

ATTACKS = [
    # Without protection there is no first listener.  A second one would get the calls.
    attack("second_listener", ("listen", "0", "EBUSY"), (rebind("/vol"), "ENOSYS", "EPERM"),
           UNTOUCHED),
    attack("second_listener_in_a_child", ("fork", *SAME), ("listen", "0", "EBUSY"),
           (rebind("/vol"), "ENOSYS", "EPERM"), UNTOUCHED),
    attack("second_listener_in_a_nested_user_namespace",
           ("unshare CLONE_NEWUSER|CLONE_NEWNS", *SAME), ("map 0", *SAME),
           ("listen", "0", "EBUSY"), (rebind("/vol"), "ENOSYS", "EPERM"), UNTOUCHED),
    attack("filter_that_agrees", ("agree", *SAME), (rebind("/vol"), "0", "EPERM"), OPENS),
    # Whoever lies to itself believes it, and that is all.
    attack("filter_that_says_it_was_done", ("lie 0", *SAME), (rebind("/vol"), "0", "0"),
           UNTOUCHED),
    attack("filter_that_refuses", ("lie 5", *SAME), (rebind("/vol"), "EIO", "EIO"), UNTOUCHED),
]  # fmt: skip


def test_nobody_has_the_listener(protected: Protected) -> None:
    for kind in KINDS:
        listing = protected.run(kind, ["sh", "-c", "ls -l /proc/[0-9]*/fd /proc/self/fd"])
        assert "/dev/null" in listing
        assert "seccomp" not in listing


@cases(ATTACKS)
def test_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(bare(kind, one.words(program)), protected=False)


@cases(ATTACKS)
def test_fails(protected: Protected, one: Attack, kind: str, program: str) -> None:
    protected.attack(one, kind, program)


def test_a_stack_of_mounts_does_not_hold_up_the_others(containers: Containers) -> None:
    """What lies on what was asked anew for each of them, and 2000 took the worker 51 s."""
    script = """
        mkdir /mnt/a; touch /mnt/a/f; exec 7< /mnt/a/f
        mnt $(for i in $(seq 2000); do printf 'mount /mnt/a/f /mnt/a/f - MS_BIND - , '; done) \\
            mount none /mnt/a tmpfs - - > /dev/null
        mnt umount2 /proc/self/fd/7 MNT_DETACH
    """
    box = containers.start(privileged=False)
    assert box.run("sh", "-c", script) == ["0"]
