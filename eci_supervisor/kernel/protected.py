"""Which inodes the host-protected paths are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eci_supervisor.kernel.table import ABOVE, PROTECTED, SHARED, InodeRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.policy.paths import HostPaths


def protected_rules(paths: HostPaths) -> list[InodeRule]:
    """Return what each host-protected path and each directory above it mean, by identity.

    And what in one of them is not protected.  Paths are resolved in this process's mount namespace,
    symlinks included; one that does not exist protects nothing (there is nothing to reach).
    """
    known: dict[str, InodeRule | None] = {}
    rules = []
    protected = []
    for path in paths.protected:
        what = PROTECTED
        protected.append(os.path.realpath(path).rstrip("/") + "/")
        for rule in _line(protected[-1][:-1] or "/", known):
            rules.append(rule._replace(what=what))
            what = ABOVE
    for path in paths.carved:
        real = os.path.realpath(path)
        if any(real.startswith(above) for above in protected):
            rules += [rule._replace(what=SHARED) for rule in list(_line(real, known))[:1]]
    return list(dict.fromkeys(rules))


def _line(path: str, known: dict[str, InodeRule | None]) -> Iterator[InodeRule]:
    """Yield the identity of a path without links, and of the directories that it lies in."""
    while True:
        if path not in known:
            known[path] = _look_at(path)
        rule = known[path]
        if rule is None:
            return
        yield rule
        if path == "/":
            return
        path = os.path.dirname(path)


def _look_at(path: str) -> InodeRule | None:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return InodeRule(os.major(st.st_dev), os.minor(st.st_dev), st.st_ino, 0)
