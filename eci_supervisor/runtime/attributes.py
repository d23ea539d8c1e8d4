"""The words of mounts[].options as the kernel's attributes.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eci_supervisor.kernel.syscalls import lib

if TYPE_CHECKING:
    from collections.abc import Iterable

ATTRIBUTES = {
    "ro": lib.MOUNT_ATTR_RDONLY,
    "nosuid": lib.MOUNT_ATTR_NOSUID,
    "nodev": lib.MOUNT_ATTR_NODEV,
    "noexec": lib.MOUNT_ATTR_NOEXEC,
    "nosymfollow": lib.MOUNT_ATTR_NOSYMFOLLOW,
    "nodiratime": lib.MOUNT_ATTR_NODIRATIME,
}
"""Mount option → the MOUNT_ATTR_* bit that it sets."""
_CLEARED = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "symfollow": "nosymfollow",
}
_ATIME = {
    "noatime": lib.MOUNT_ATTR_NOATIME,
    "strictatime": lib.MOUNT_ATTR_STRICTATIME,
    "relatime": 0,
}
_PROPAGATION = {
    "private": (lib.MS_PRIVATE, False),
    "rprivate": (lib.MS_PRIVATE, True),
}


def attributes(options: Iterable[str]) -> tuple[int, int, int]:
    """Translate mount options into (set, clear, set recursively) of MOUNT_ATTR_*.  Pure.

    A later option overrides an earlier one, as mount(8) has it; `rro` and its like are for
    the mounts beneath as well.
    """
    flags: dict[str, bool] = {}
    recursive = 0
    atime: str | None = None
    for option in options:
        if option in ATTRIBUTES:
            flags[option] = True
        elif option in _CLEARED:
            flags[_CLEARED[option]] = False
        elif option in _ATIME:
            atime = option
        elif option.startswith("r") and option[1:] in ATTRIBUTES:
            recursive |= ATTRIBUTES[option[1:]]
    # A word such as "rw" only takes back what the list itself set; it never opens the source.
    to_set = recursive
    for name, on in flags.items():
        if on:
            to_set |= ATTRIBUTES[name]
    to_clear = 0
    if atime is not None:
        to_set |= _ATIME[atime]
        to_clear |= lib.MOUNT_ATTR__ATIME
    return to_set, to_clear, recursive


def propagation(options: Iterable[str]) -> tuple[int, bool]:
    """Return what a nested mount gets instead of the slave that it is, and whether recursively.

    (0, False): nothing; a mount that the runtime would have made shared is not nested.
    """
    return next((_PROPAGATION[word] for word in options if word in _PROPAGATION), (0, False))
