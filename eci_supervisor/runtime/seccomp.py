"""The seccomp profile of a supervised container.  Pure.

The calls that change what is mounted go to the supervisor.  A profile that lets none of them
through stays as it is, and its container needs no supervisor.  open_tree, fsopen, fsconfig and
fspick make nothing visible by themselves, and pivot_root uncovers nothing that the kernel has
locked: they stay as the profile has them.

What libseccomp cannot name, open_tree_attr above all, is held by the filter of csrc/guard.h.
"""

from __future__ import annotations

import errno
from typing import Any

from eci_supervisor.policy import refusals
from eci_supervisor.runtime.errors import RefusedError, SpecError
from eci_supervisor.runtime.spec import Spec, items, part

NOTIFY = "SCMP_ACT_NOTIFY"
ERRNO = "SCMP_ACT_ERRNO"
ALLOW = "SCMP_ACT_ALLOW"

TRAPPED = ("fsmount", "mount", "mount_setattr", "move_mount", "umount", "umount2")
"""`umount` is the i386 spelling of number 22."""
PARTING = ("setns", "unshare")
"""Trapped so that the worker need not ask in each call in which namespaces its caller is; what they
do is up to the kernel (csrc/caller.c, caller_parts)."""
WITHHELD = ("open_tree_attr",)
JUDGED_BY_FLAGS = ("mount_setattr", "move_mount")
"""Of TRAPPED, what is trapped in any case; and of mount(2) the calls with one of these flags."""
FLAGS = (32, 8192)
"""MS_REMOUNT, MS_MOVE: <linux/mount.h>.  With none of them mount(2) binds, makes a new file system
or changes propagation, whatever its other flags are."""
DETACH = 2
"""MNT_DETACH, without which umount2(2) takes nothing away that is busy, as /proc and /sys are."""
STRING_OPTION = "fsconfig"
"""Trapped where it sets a string, for the sake of the ids in it: mount(8) hands back what a tmpfs
shows, and that are ids of the host (csrc/calls.c).  Not for safety."""
_SETS_STRING = {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}
_DOES_NOT = {"index": 1, "value": 1, "op": "SCMP_CMP_NE"}
ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")
"""Never SCMP_ARCH_X32: a call of an architecture that is not listed kills its process."""
WAIT_KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"

# TRACE lets the call through once a tracer agrees, and the container can be that tracer.
_LETS_THROUGH = (ALLOW, "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_DENIES = (ERRNO, "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP")

Profile = dict[str, Any]


def _action(node: dict[str, Any], key: str, where: str) -> str:
    """Return the action at `key`; SpecError if it is none that we know."""
    action = node.get(key)
    if action == NOTIFY:
        raise RefusedError(
            "the container's seccomp profile uses SCMP_ACT_NOTIFY, and a process can have one "
            "listener only, which eci-runtime needs: take it out of the profile",
            refusals.SECCOMP_PROFILE,
        )
    if not isinstance(action, str) or action not in _LETS_THROUGH + _DENIES:
        raise SpecError(f"config.json: {where}.{key}: unknown action {action!r}")
    return action


def check(profile: Profile) -> None:
    """Refuse what cannot be supervised; SpecError for a form that is not OCI's."""
    _action(profile, "defaultAction", "linux.seccomp")
    if profile.get("listenerPath"):
        raise RefusedError(
            "the container's seccomp profile has a listenerPath, and a process can have one "
            "listener only, which eci-runtime needs: take it out of the profile",
            refusals.SECCOMP_PROFILE,
        )
    for index, rule in enumerate(
        items({"linux": {"seccomp": profile}}, "linux.seccomp.syscalls", dict)
    ):
        where = f"linux.seccomp.syscalls[{index}]"
        _action(rule, "action", where)
        names = rule.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SpecError(f"config.json: {where}.names: expected an array of strings")


def let_through(profile: Profile) -> set[str]:
    """Return the names of TRAPPED and WITHHELD that a checked `profile` may let through."""
    rules = profile.get("syscalls") or []
    mentioned = {name for rule in rules for name in rule["names"]}
    # A rule with arguments covers some calls only; the default has the others.
    whole = {name for rule in rules if not rule.get("args") for name in rule["names"]}
    found = {name for rule in rules if rule["action"] in _LETS_THROUGH for name in rule["names"]}
    if profile["defaultAction"] in _LETS_THROUGH:
        found |= set(TRAPPED + WITHHELD) - mentioned
        found |= mentioned - whole
    return found & set(TRAPPED + WITHHELD)


def supervise(spec: Spec, listener_path: str, *, wait_killable: bool) -> Profile | None:
    """Return the profile for a supervised container, or None if the container never mounts.

    `wait_killable`: whether the runtime takes that flag (see killable.py).
    """
    given: Profile = part(spec, "linux.seccomp", dict)
    if not given:
        profile: Profile = {"defaultAction": ALLOW}
    else:
        check(given)
        profile = dict(given)
    passing = let_through(profile)
    if not passing:
        return None
    rules: list[dict[str, Any]] = []
    for rule in profile.get("syscalls") or []:
        rules += _take_apart(rule) if rule["action"] in _LETS_THROUGH else [rule]
    if profile["defaultAction"] in _LETS_THROUGH:
        rules += _over_default(profile, passing)
    withheld = sorted(passing & set(WITHHELD))
    if withheld:
        rules.append({"names": withheld, "action": ERRNO, "errnoRet": errno.ENOSYS})
    profile.update(architectures=list(ARCHITECTURES), listenerPath=listener_path, syscalls=rules)
    profile.pop("listenerMetadata", None)
    if wait_killable:
        profile["flags"] = sorted({*(profile.get("flags") or []), WAIT_KILLABLE})
    return profile


def spare(profile: Profile) -> Profile:
    """Return `profile` without what no rule of the policy asks about in a container like that.

    See spare.py for which containers these are.  `profile` is one of `supervise` for a spec that
    has none, so that what is not trapped is allowed.
    """
    judged = [("mount", 3, flag) for flag in FLAGS] + [("umount2", 1, DETACH)]
    rules: list[dict[str, Any]] = [{"names": list(JUDGED_BY_FLAGS), "action": NOTIFY}]
    for name, index, flag in judged:
        has = {"index": index, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append({"names": [name], "action": NOTIFY, "args": [has]})
    rules += [rule for rule in profile["syscalls"] if not set(TRAPPED) & set(rule["names"])]
    return {**profile, "syscalls": rules}


def waits_killable(profile: Profile | None) -> bool:
    """Say whether nothing but a fatal signal interrupts the calls that `profile` sends to us."""
    return profile is not None and WAIT_KILLABLE in (profile.get("flags") or [])


def tells_of_parting(profile: Profile | None) -> bool:
    """Say whether no call of PARTING gets past us in a container with the filter `profile`."""
    if profile is None:
        return False
    passed: set[str] = set()
    trapped: set[str] = set()
    for rule in profile["syscalls"]:
        if rule["action"] in _LETS_THROUGH:
            passed.update(rule["names"])
        elif not rule.get("args"):
            trapped.update(rule["names"])
    if profile["defaultAction"] in _LETS_THROUGH and not trapped.issuperset(PARTING):
        return False
    return passed.isdisjoint(PARTING)


def _over_default(profile: Profile, passing: set[str]) -> list[dict[str, Any]]:
    """Return the rules that take the trapped calls out of a default that allows."""
    rules = profile.get("syscalls") or []
    mentioned = {name for rule in rules for name in rule["names"]}
    whole = {name for rule in rules if not rule.get("args") for name in rule["names"]}
    mixed = sorted((passing & mentioned) - whole)
    if mixed:
        raise RefusedError(
            "the container's seccomp profile allows by default and has rules on the arguments "
            f"of {', '.join(mixed)}, which cannot be supervised: take those rules out of it",
            refusals.SECCOMP_PROFILE,
        )
    trapped = sorted((passing & set(TRAPPED)) - whole)
    parting = sorted(set(PARTING) - mentioned)
    found: list[dict[str, Any]] = [
        {"names": names, "action": NOTIFY} for names in (trapped, parting) if names
    ]
    if STRING_OPTION not in mentioned:
        found.append({"names": [STRING_OPTION], "action": NOTIFY, "args": [_SETS_STRING]})
    return found


def _take_apart(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a rule that lets calls through comes to."""
    notify = {key: value for key, value in rule.items() if key != "errnoRet"}
    notify["action"] = NOTIFY
    found = []
    others = [name for name in rule["names"] if name not in TRAPPED + PARTING + WITHHELD]
    if STRING_OPTION in others and not rule.get("args"):
        others.remove(STRING_OPTION)
        found.append({**rule, "names": [STRING_OPTION], "args": [_DOES_NOT]})
        found.append({**notify, "names": [STRING_OPTION], "args": [_SETS_STRING]})
    if others:
        found.append({**rule, "names": others})
    for names in (TRAPPED, PARTING):
        trapped = [name for name in rule["names"] if name in names]
        if trapped:
            found.append({**notify, "names": trapped})
    return found
