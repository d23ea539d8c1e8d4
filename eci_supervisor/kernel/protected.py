"""Which inodes the host-protected paths are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eci_supervisor.kernel.table import ABOVE, PROTECTED, InodeRule

if TYPE_CHECKING:
    from collections.abc import Iterable


def protected_rules(paths: Iterable[str]) -> list[InodeRule]:
    """Return what each host-protected path and each directory above it mean, by identity.

    Paths are resolved in this process's mount namespace, symlinks included; one that does not
    exist protects nothing (there is nothing to reach).
    """
    rules = []
    for path in paths:
        real = os.path.realpath(path)
        what = PROTECTED
        while True:
            try:
                st = os.stat(real)
            except OSError:
                break
            rules.append(InodeRule(os.major(st.st_dev), os.minor(st.st_dev), st.st_ino, what))
            if real == "/":
                break
            real = os.path.dirname(real)
            what = ABOVE
    return rules
