"""What `eci run` makes of its words: config.json and the seccomp profile."""

from __future__ import annotations

from typing import Any

import pytest

from eci_supervisor.cli.bundle import (
    ALL_CAPABILITIES,
    DEFAULT_CAPABILITIES,
    OptionError,
    Request,
    Volume,
    capability,
    configuration,
)
from eci_supervisor.cli.profile import default_profile

LAST = len(ALL_CAPABILITIES) - 1
MOUNT_FAMILY = {
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "umount",
    "umount2",
}


def config(last: int = LAST, **words: Any) -> Any:
    """Return the configuration of `eci run … true`."""
    request = Request(command=("true",), rootfs="/r", hostname="h", **words)
    return configuration(request, last)


def denied(profile: Any) -> set[str]:
    """Return the calls that the profile denies without looking at their arguments."""
    return {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}


@pytest.mark.parametrize(
    ("word", "volume"),
    [
        ("/a:/b", Volume("/a", "/b", readonly=False)),
        ("/a:/b:rw", Volume("/a", "/b", readonly=False)),
        ("/a:/b:ro", Volume("/a", "/b", readonly=True)),
        ("/a b:/c d:ro", Volume("/a b", "/c d", readonly=True)),
    ],
)
def test_volume_is_read_as_docker_spells_it(word: str, volume: Volume) -> None:
    assert Volume.parse(word) == volume


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("/a", "SRC:DST"),
        ("/a:", "SRC:DST"),
        ("data:/b", "named volumes"),
        (":/b", "absolute"),
        ("/a:b", "absolute"),
        ("/a:/", "below the root"),
        ("/a:/./", "below the root"),
        ("/a:/b/..", "below the root"),
        ("/a:/b:RO", "neither"),
        ("/a:/b:ro:ro", "neither"),
        ("/a:/b:ro,z", "neither"),
    ],
)
def test_volume_that_means_nothing_is_an_error(word: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Volume.parse(word)


@pytest.mark.parametrize("word", ["SYS_ADMIN", "sys_admin", "CAP_SYS_ADMIN", "cap_Sys_admin"])
def test_capability_has_many_spellings(word: str) -> None:
    assert capability(word) == ("CAP_SYS_ADMIN",)


def test_capability_all_is_every_one_and_another_is_an_error() -> None:
    assert capability("all") == ALL_CAPABILITIES
    with pytest.raises(OptionError, match="SYS_AMDIN"):
        capability("SYS_AMDIN")


def test_capabilities_stand_at_the_numbers_of_the_kernel() -> None:
    # linux/capability.h
    numbers = {"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_CHECKPOINT_RESTORE": 40}
    assert {name: ALL_CAPABILITIES.index(name) for name in numbers} == numbers
    assert len(ALL_CAPABILITIES) == 41


def test_container_has_dockers_capabilities() -> None:
    for kind, names in config()["process"]["capabilities"].items():
        assert kind in {"bounding", "effective", "permitted"}
        assert set(names) == set(DEFAULT_CAPABILITIES)


def test_added_capability_comes_on_top() -> None:
    names = config(capabilities=("CAP_SYS_ADMIN",))["process"]["capabilities"]["bounding"]
    assert set(names) == {*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"}


def test_privileged_has_what_the_kernel_knows_and_nothing_newer() -> None:
    names = config(last=37, privileged=True)["process"]["capabilities"]["effective"]
    assert set(names) == set(ALL_CAPABILITIES[:38])


def test_added_capability_that_the_kernel_does_not_know_is_left_out() -> None:
    names = config(last=37, capabilities=("CAP_BPF",))["process"]["capabilities"]["effective"]
    assert set(names) == set(DEFAULT_CAPABILITIES)


def test_every_namespace_is_private() -> None:
    kinds = {entry["type"] for entry in config()["linux"]["namespaces"]}
    assert kinds == {"mount", "pid", "network", "ipc", "uts", "cgroup"}
    assert all("path" not in entry for entry in config()["linux"]["namespaces"])


def test_volume_becomes_a_private_recursive_bind() -> None:
    (volume,) = [
        m
        for m in config(volumes=(Volume("/a", "/b", readonly=True),))["mounts"]
        if m["type"] == "bind"
    ]
    assert volume == {
        "destination": "/b",
        "type": "bind",
        "source": "/a",
        "options": ["rbind", "rprivate", "ro"],
    }


def test_masks_profile_and_read_only_sys_are_gone_with_privileged_only() -> None:
    linux = config()["linux"]
    assert {"maskedPaths", "readonlyPaths", "seccomp"} <= set(linux)
    assert "/proc/kcore" in linux["maskedPaths"]
    assert not {"maskedPaths", "readonlyPaths", "seccomp"} & set(config(privileged=True)["linux"])
    for privileged, mode in ((False, "ro"), (True, "rw")):
        mounts = {m["destination"]: m for m in config(privileged=privileged)["mounts"]}
        assert mode in mounts["/sys"]["options"]
        assert mode in mounts["/sys/fs/cgroup"]["options"]


def test_term_is_told_to_a_terminal_only() -> None:
    assert "TERM=vt100" in config(terminal=True, term="vt100")["process"]["env"]
    assert not [word for word in config(term="vt100")["process"]["env"] if "TERM" in word]


def test_profile_denies_the_mount_family_and_new_namespaces() -> None:
    profile: Any = default_profile(DEFAULT_CAPABILITIES)
    assert denied(profile) >= MOUNT_FAMILY | {"unshare", "setns", "clone3"}
    flags = 0
    for rule in profile["syscalls"]:
        if rule["names"] == ["clone"]:
            (argument,) = rule["args"]
            assert argument["op"] == "SCMP_CMP_MASKED_EQ"
            assert argument["value"] == argument["valueTwo"]
            flags |= argument["value"]
    assert flags == 0x7E020000


def test_profile_of_sys_admin_lets_mounts_through_but_not_pivot_root() -> None:
    profile: Any = default_profile({*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"})
    assert denied(profile) & MOUNT_FAMILY == {"pivot_root"}
    assert not any("args" in rule for rule in profile["syscalls"])
    assert "clone3" not in denied(profile)


def test_profile_opens_a_call_for_any_of_its_capabilities() -> None:
    base = set(DEFAULT_CAPABILITIES)
    assert "bpf" in denied(default_profile(base))
    for key in ("CAP_BPF", "CAP_SYS_ADMIN"):
        assert "bpf" not in denied(default_profile({*base, key}))


def test_profile_never_lists_x32() -> None:
    assert default_profile(())["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


def test_keyrings_and_swap_stay_closed_for_every_capability() -> None:
    assert denied(default_profile(ALL_CAPABILITIES)) >= {"keyctl", "add_key", "swapon"}
