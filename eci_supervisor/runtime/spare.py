"""Which containers are spared the calls that no rule of the policy asks about.

A call that is trapped costs a switch to the worker and back, whatever it is.  Where nothing that
the container was given hides anything, where /proc and /sys have no masks and no host-protected
path can be seen, the rules ask about nothing but the flags of what was given, and about /proc and
/sys: about remounts, mount_setattr(2) and moves.  There unmounts, binds and new file systems are
not trapped: the kernel makes them, as it does for every user namespace.  (Unmounts with MNT_DETACH
are, for the sake of /proc and /sys, which the worker keeps busy for the others.  A host-protected
path that the host mounts into a volume later on is no reason to trap them: it is to be seen there
in any case.)

This is a forecast from config.json and from the stage, made before the runtime mounts anything, and
careful: when in doubt a container is not spared.  The worker sees whether it came true
(csrc/facts.c, facts_prepare); if not, the container is stopped.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eci_supervisor.kernel import mountinfo
from eci_supervisor.kernel.table import ABOVE, PROTECTED
from eci_supervisor.policy.grants import Kind, compile_grants
from eci_supervisor.runtime import nesting
from eci_supervisor.runtime import spec as oci

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eci_supervisor.kernel.table import InodeRule
    from eci_supervisor.runtime.nesting import Entry
    from eci_supervisor.runtime.spec import Spec

_MAY_MOUNT = ("prestart", "createRuntime", "createContainer", "startContainer")
_DOCKERS_NETWORK = "libnetwork-setkey"
"""First word of the hook that dockerd gives to every container; it mounts nothing."""


def asks_little(spec: Spec) -> bool:
    """Say whether `spec` has neither masks nor a seccomp profile, as a privileged container's.

    With a profile it would take more to say what becomes of a call that is not trapped, and a hook
    may mount whatever it likes.  Pure.
    """
    linux = oci.part(spec, "linux", dict)
    given = any(linux.get(key) for key in ("maskedPaths", "readonlyPaths", "seccomp"))
    return not given and not hooks_meddle(spec)


def hooks_meddle(spec: Spec) -> bool:
    """Say whether a hook may mount something: whatever is not known to mount nothing.  Pure."""
    return any(
        _DOCKERS_NETWORK not in (hook.get("args") or [])[:1]
        for kind in _MAY_MOUNT
        for hook in oci.items(spec, f"hooks.{kind}", dict)
    )


def hides_nothing(entries: Sequence[Entry], link: Callable[[str], str | None]) -> bool:
    """Say whether no mount can hide anything.  Pure.

    `link`: as `nesting.resolve`.
    """
    places: list[nesting.Steps] = []
    for entry in entries:
        place = nesting.resolve(entry.destination, places, link)
        if not place or entry.readonly or "ro" in entry.options:
            return False
        above = nesting.over(place, places)
        # Links in a volume were not followed, and its content may be somebody else's.
        if above is not None and entries[above].staged:
            return False
        if any(other[: len(place)] == place for other in places):
            return False
        places.append(place)
    return True


def has_more(directory: str) -> bool:
    """Say whether a mount beneath `directory` hides something, or is one more procfs or sysfs.

    So it is with what comes along with a volume.  In this process's mount namespace, which is the
    stage's.
    """
    grants = compile_grants(mountinfo.beneath(os.fsencode(directory)), (), ())
    return any(grant.hides or grant.kind in {Kind.PROC, Kind.SYSFS} for grant in grants)


def shows_protected(directory: str, rules: Iterable[InodeRule]) -> bool:
    """Say whether the root of a mount beneath `directory` is a host-protected path or above one.

    `rules`: what these are (kernel/protected.py).
    In this process's mount namespace, which is the stage's; what cannot be looked at counts as one.
    """
    known = {
        (rule.major, rule.minor, rule.ino) for rule in rules if rule.what & (PROTECTED | ABOVE)
    }
    for mount in mountinfo.beneath(os.fsencode(directory)):
        try:
            st = os.stat(mount.target, follow_symlinks=False)
        except OSError:
            return True
        if (os.major(st.st_dev), os.minor(st.st_dev), st.st_ino) in known:
            return True
    return False
