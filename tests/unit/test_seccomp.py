"""The profile of a supervised container, judged by what it does with a call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.runtime import seccomp
from eci_supervisor.runtime.errors import RefusedError, SpecError

LISTENER = "/s/notify.sock"
MOUNTS = (*seccomp.TRAPPED, *seccomp.WITHHELD)
ENOSYS = 38


def supervise(profile: dict[str, Any] | None) -> dict[str, Any] | None:
    spec = {"linux": {"seccomp": profile}} if profile is not None else {}
    return seccomp.supervise(spec, LISTENER, wait_killable=False)


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **more}


def outcome(profile: dict[str, Any], name: str) -> str:
    """What becomes of a call without arguments' rules: the first rule, else the default."""
    for entry in profile.get("syscalls") or []:
        if name in entry["names"]:
            return str(entry["action"]).removeprefix("SCMP_ACT_")
    return str(profile["defaultAction"]).removeprefix("SCMP_ACT_")


def test_without_a_profile_one_is_made() -> None:
    profile = supervise(None)
    assert profile is not None
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert profile["listenerPath"] == LISTENER
    assert {name for name in MOUNTS if outcome(profile, name) == "NOTIFY"} == {
        "fsmount",
        "mount",
        "mount_setattr",
        "move_mount",
        "umount",
        "umount2",
    }
    assert all(outcome(profile, name) == "ERRNO" for name in seccomp.WITHHELD)
    assert {entry.get("errnoRet") for entry in profile["syscalls"]} == {None, ENOSYS}
    assert "flags" not in profile


def test_a_profile_that_denies_mounts_stays_and_costs_nothing() -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "read", "clone")]}
    assert supervise(profile) is None


def test_the_group_of_sys_admin_is_taken_apart() -> None:
    group = rule("ALLOW", "bpf", "mount", "fsopen", "umount2", "setns")
    given_profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [rule("ALLOW", "read"), group],
    }
    profile = supervise(given_profile)
    assert profile is not None
    assert outcome(profile, "bpf") == outcome(profile, "read") == "ALLOW"
    assert outcome(profile, "mount") == outcome(profile, "umount2") == "NOTIFY"
    assert outcome(profile, "fsopen") == "ALLOW"
    assert outcome(profile, "move_mount") == "ERRNO"
    assert "SCMP_ARCH_X32" not in profile["architectures"]
    assert given_profile["syscalls"][1] is group
    assert group["names"] == ["bpf", "mount", "fsopen", "umount2", "setns"]


def test_what_the_profile_itself_denies_is_not_opened() -> None:
    profile = supervise(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule("ERRNO", "umount2", "fsopen", errnoRet=1)],
        }
    )
    assert profile is not None
    assert outcome(profile, "umount2") == outcome(profile, "fsopen") == "ERRNO"
    assert outcome(profile, "mount") == "NOTIFY"


def test_conditions_on_arguments_stay_with_the_call() -> None:
    args = [{"index": 3, "value": 1, "op": "SCMP_CMP_EQ"}]
    profile = supervise(
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "mount", args=args)]}
    )
    assert profile is not None
    assert profile["syscalls"][0] == {**rule("NOTIFY", "mount"), "args": args}


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("NOTIFY", "read")]},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x"},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule("ERRNO", "mount", args=[{"index": 0, "value": 1, "op": "X"}])],
        },
    ],
)
def test_what_cannot_be_supervised_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=r"take (it|those rules) out"):
        supervise(profile)


@pytest.mark.parametrize(
    "profile",
    [
        {"syscalls": []},
        {"defaultAction": "SCMP_ACT_NEW"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("OTHER", "read")]},
    ],
)
def test_an_unknown_form_is_an_error(profile: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"linux\.seccomp"):
        supervise(profile)


def test_crun_gets_its_flag_once() -> None:
    flags = [seccomp.WAIT_KILLABLE, "SECCOMP_FILTER_FLAG_LOG"]
    spec = {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}}}
    profile = seccomp.supervise(spec, LISTENER, wait_killable=True)
    assert profile is not None
    assert profile["flags"] == sorted(flags)
    assert seccomp.waits_killable(profile)


def test_where_no_filter_waits_killable() -> None:
    assert not seccomp.waits_killable(supervise({"defaultAction": "SCMP_ACT_ALLOW"}))
    assert not seccomp.waits_killable(None)


@pytest.mark.parametrize("name", seccomp.PARTING)
def test_changes_of_namespace_are_told_of(name: str) -> None:
    """And what is known of callers is kept where all are, and in no other container."""
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    for profile, action, told in (
        (None, "NOTIFY", True),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "mount")]}, "ERRNO", True),
        (
            {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "mount", name)]},
            "NOTIFY",
            True,
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [rule("ALLOW", "mount"), rule("LOG", name, args=args)],
            },
            "NOTIFY",
            True,
        ),
        ({"defaultAction": "SCMP_ACT_LOG", "syscalls": [rule("ERRNO", name)]}, "ERRNO", True),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("ERRNO", name, args=args)]},
            "ERRNO",
            False,
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("LOG", name, args=args)]},
            "NOTIFY",
            False,
        ),
    ):
        result = supervise(profile)
        assert result is not None
        assert outcome(result, name) == action
        assert seccomp.tells_of_parting(result) is told, profile
    assert not seccomp.tells_of_parting(None)


def test_changes_of_namespace_are_told_of_in_a_spared_container() -> None:
    profile = supervise(None)
    assert profile is not None
    spared = seccomp.spare(profile)
    assert {outcome(spared, name) for name in seccomp.PARTING} == {"NOTIFY"}
    assert seccomp.tells_of_parting(spared)


ACTIONS = st.sampled_from(["ALLOW", "LOG", "TRACE", "ERRNO", "KILL", "KILL_PROCESS", "TRAP"])
NAMES = st.lists(
    st.sampled_from(["read", "clone", *MOUNTS, *seccomp.PARTING]), min_size=1, unique=True
)


@given(ACTIONS, st.lists(st.tuples(ACTIONS, NAMES), max_size=5))
def test_no_mount_is_ever_let_through(default: str, rules: list[tuple[str, list[str]]]) -> None:
    """For any profile without arguments: every one of the calls is denied or supervised.

    And no other call becomes more allowed than it was.
    """
    profile: dict[str, Any] = {
        "defaultAction": f"SCMP_ACT_{default}",
        "syscalls": [rule(action, *names) for action, names in rules],
    }
    result = supervise(profile) or profile
    for entry in result["syscalls"]:
        if set(entry["names"]) & set(MOUNTS):
            assert entry["action"] not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    for name in MOUNTS:
        assert outcome(result, name) not in ("ALLOW", "LOG", "TRACE")
    for name in ("read", "clone"):
        assert outcome(result, name) == outcome(profile, name)
    if result is not profile:
        assert seccomp.tells_of_parting(result)
        for name in seccomp.PARTING:
            assert outcome(result, name) not in ("ALLOW", "LOG", "TRACE")


@pytest.mark.parametrize("default", ["ALLOW", "ERRNO"])
def test_fsconfig_is_trapped_where_it_sets_a_string(default: str) -> None:
    rules = [] if default == "ALLOW" else [rule("ALLOW", "fsconfig", "mount", "read")]
    profile = supervise({"defaultAction": f"SCMP_ACT_{default}", "syscalls": rules})
    assert profile is not None
    found = [entry for entry in profile["syscalls"] if "fsconfig" in entry["names"]]
    sets = {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}
    notify = {"names": ["fsconfig"], "action": "SCMP_ACT_NOTIFY", "args": [sets]}
    allow = {
        "names": ["fsconfig"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{**sets, "op": "SCMP_CMP_NE"}],
    }
    assert found == ([notify] if default == "ALLOW" else [allow, notify])


def test_a_rule_on_arguments_of_fsconfig_stays() -> None:
    args = [{"index": 1, "value": 6, "op": "SCMP_CMP_EQ"}]
    given_rule = rule("ALLOW", "fsconfig", args=args)
    profile = supervise(
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [given_rule, rule("ALLOW", "mount")]}
    )
    assert profile is not None
    assert given_rule in profile["syscalls"]
