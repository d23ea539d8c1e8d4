"""What this kernel must offer, and for what: below the floor nothing is started.

Each row is one feature.  There is no fallback for a required one: `require` says which is
missing and what it is for.
"""

from __future__ import annotations

import os
import re

import msgspec

FLOOR = (6, 8)
_RELEASE = re.compile(r"(\d+)\.(\d+)")


class MissingFeatureError(RuntimeError):
    """The kernel lacks something without which no container can be protected."""


class Feature(msgspec.Struct, frozen=True):
    """One thing that we need of the kernel."""

    name: str
    since: str
    used_for: str


REQUIRED = (
    Feature("clone(CLONE_NEWUSER) as root", "3.8", "the container's user namespace"),
    Feature(
        "open_tree, move_mount, fsopen, fsconfig, fsmount", "5.2", "staging mounts by descriptor"
    ),
    Feature("openat2(RESOLVE_IN_ROOT)", "5.6", "making mount points inside a container's root"),
    Feature("mount_setattr(MOUNT_ATTR_IDMAP)", "5.12", "right ownership on disk without chown"),
    Feature("overlay on ID-mapped layers", "5.19", "images"),
    Feature(
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "5.19", "calls that a signal does not repeat"
    ),
    Feature("SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP", "6.6", "the supervisor's speed"),
    Feature("overlay lowerdir+", "6.8", "images of many layers"),
    Feature("STATX_MNT_ID_UNIQUE", "6.8", "mounts that are never mistaken for one another"),
)


def release(text: str) -> tuple[int, int]:
    """Return major and minor of a kernel release such as `6.12.3-1-amd64`."""
    match = _RELEASE.match(text)
    if match is None:
        msg = f"kernel release {text!r} is not of the form MAJOR.MINOR"
        raise MissingFeatureError(msg)
    return int(match[1]), int(match[2])


def _read(path: str) -> str | None:
    """Return a small file's text without white space around, or None if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def require(proc: str = "/proc") -> None:
    """Raise MissingFeatureError, with what to do about it, unless all of REQUIRED is there."""
    have = os.uname().release
    if release(have) < FLOOR:
        newest = max(REQUIRED, key=lambda feature: release(feature.since))
        msg = (
            f"kernel {have} is too old: eci-runtime needs {FLOOR[0]}.{FLOOR[1]} or newer "
            f"({newest.name}: {newest.used_for}); boot a newer kernel"
        )
        raise MissingFeatureError(msg)
    limit = _read(f"{proc}/sys/user/max_user_namespaces")
    if limit is None:
        msg = (
            "this kernel has no user namespaces (CONFIG_USER_NS), so no container can be "
            "isolated: boot one that has"
        )
        raise MissingFeatureError(msg)
    if limit == "0":
        msg = (
            "user namespaces are switched off: set sysctl user.max_user_namespaces to 15000 or more"
        )
        raise MissingFeatureError(msg)
    actions = _read(f"{proc}/sys/kernel/seccomp/actions_avail")
    if actions is None or "user_notif" not in actions.split():
        msg = (
            "this kernel has no seccomp user notification (CONFIG_SECCOMP_FILTER), so mounts "
            "cannot be supervised: boot one that has"
        )
        raise MissingFeatureError(msg)
