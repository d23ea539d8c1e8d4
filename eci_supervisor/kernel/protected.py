"""Which inodes the host-protected paths are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eci_supervisor.kernel.table import ABOVE, PROTECTED, SHARED, InodeRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eci_supervisor.policy.paths import HostPaths

Chain = tuple[tuple[int, int], ...]
"""Device (`st_dev`) and inode of a file or directory, and of those that it lies in, up to `/`."""


def rules_of(protected: Iterable[Chain], carved: Iterable[Chain]) -> list[InodeRule]:
    """Return what each host-protected path and each directory above it mean, by identity.  Pure.

    `carved`: what is not protected, where it lies in one that is.
    """
    rules = []
    held = set()
    for own, *above in protected:
        held.add(own)
        rules.append(_rule(own, PROTECTED))
        rules += [_rule(one, ABOVE) for one in above]
    rules += [_rule(own, SHARED) for own, *above in carved if not held.isdisjoint(above)]
    return list(dict.fromkeys(rules))


def protected_rules(paths: HostPaths) -> list[InodeRule]:
    """Return the same of paths.

    They are resolved in this process's mount namespace, symlinks included; one that does not exist
    protects nothing (there is nothing to reach).
    """
    known: dict[str, tuple[int, int] | None] = {}
    protected, carved = (
        [tuple(_line(os.path.realpath(path), known)) for path in listed]
        for listed in (paths.protected, paths.carved)
    )
    return rules_of(filter(None, protected), filter(None, carved))


def _rule(identity: tuple[int, int], what: int) -> InodeRule:
    device, inode = identity
    return InodeRule(os.major(device), os.minor(device), inode, what)


def _line(path: str, known: dict[str, tuple[int, int] | None]) -> Iterator[tuple[int, int]]:
    """Yield the identity of a path without links, and of the directories that it lies in."""
    while True:
        if path not in known:
            known[path] = _look_at(path)
        identity = known[path]
        if identity is None:
            return
        yield identity
        if path == "/":
            return
        path = os.path.dirname(path)


def _look_at(path: str) -> tuple[int, int] | None:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return st.st_dev, st.st_ino
