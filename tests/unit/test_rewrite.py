"""The rewriting of config.json: what it changes, and that it changes nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from eci_supervisor.runtime import rewrite
from eci_supervisor.runtime.rewrite import Plan, Staged
from eci_supervisor.runtime.spec import Device, Mapping

RANGE = (Mapping(0, 165536, 65536),)
FUSE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660, "gid": 5}
ALL_DEVICES = [{"allow": True, "access": "rwm"}]


def plan(**more: Any) -> Plan:
    return Plan(
        uid_mappings=RANGE,
        gid_mappings=RANGE,
        rootfs="/s/rootfs",
        hook=("/b/eci-hook", "create", "/s/hook.sock"),
        poststop=("/py", "-I", "-m", "x", "/s"),
        **more,
    )


def spec(**linux: Any) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "r", "readonly": True},
        "process": {"args": ["sh"], "new": 1},
        "mounts": [
            {"destination": "/v", "source": "/src", "options": ["rbind", "rw", "rprivate"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "unknown": {}, **linux},
    }


def test_the_original_is_left_alone_and_unknown_keys_are_kept() -> None:
    original = spec()
    before = copy.deepcopy(original)
    new = rewrite.rewrite(original, plan(staged={0: Staged("/s/m/0", ("ro",))}))
    assert original == before
    assert (new["ociVersion"], new["process"], new["linux"]["unknown"]) == (
        *("1.0.2", original["process"]),
        {},
    )
    assert new["root"] == {"path": "/s/rootfs", "readonly": True}
    assert new["mounts"][1] == original["mounts"][1]


def test_user_and_cgroup_namespaces_are_its_own() -> None:
    given = [
        {"type": "pid"},
        {"type": "user", "path": "/proc/1/ns/user"},
        {"type": "cgroup", "path": "/c"},
    ]
    new = rewrite.rewrite(spec(namespaces=given), plan())
    assert new["linux"]["namespaces"] == [{"type": "pid"}, {"type": "user"}, {"type": "cgroup"}]
    assert new["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 165536, "size": 65536}]
    joined = rewrite.rewrite(spec(namespaces=given), plan(userns_path="/s/m/u"))
    assert {"type": "user", "path": "/s/m/u"} in joined["linux"]["namespaces"]


def test_joined_namespaces_are_those_that_were_judged() -> None:
    given = [{"type": "pid", "path": "/srv/link"}, {"type": "ipc"}]
    new = rewrite.rewrite(spec(namespaces=given), plan(joined={"pid": "/s/m/pid-namespace"}))
    assert new["linux"]["namespaces"][:2] == [
        {"type": "pid", "path": "/s/m/pid-namespace"},
        {"type": "ipc"},
    ]
    with pytest.raises(KeyError):
        rewrite.rewrite(spec(namespaces=given), plan())


def test_a_network_that_was_entered_already_is_inherited() -> None:
    given = [{"type": "network", "path": "/n"}, {"type": "pid"}]
    new = rewrite.rewrite(spec(namespaces=given), plan(network_joined=True))
    assert "network" not in {entry["type"] for entry in new["linux"]["namespaces"]}


def test_a_staged_bind_keeps_its_options_but_those_that_the_kernel_refuses() -> None:
    new = rewrite.rewrite(spec(), plan(staged={0: Staged("/s/m/0", ("ro", "nosuid"))}))
    assert new["mounts"][0] == {
        "destination": "/v",
        "type": "bind",
        "source": "/s/m/0",
        "options": ["rbind", "rprivate", "ro", "nosuid"],
    }


def test_mappings_of_a_mount_are_not_applied_twice() -> None:
    original = spec()
    original["mounts"][0] |= {"uidMappings": [1], "options": ["rbind", "idmap"]}
    new = rewrite.rewrite(original, plan(staged={0: Staged("/s/m/0")}))
    assert "uidMappings" not in new["mounts"][0]
    assert new["mounts"][0]["options"] == ["rbind"]


def test_no_device_but_the_default_ones_and_the_named_ones() -> None:
    kvm = {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}
    original = spec(devices=[FUSE, kvm], resources={"devices": ALL_DEVICES, "pids": {"limit": 5}})
    device = Device("/dev/fuse", "c", 10, 229, 0o660, 0, 5)
    assert rewrite.named_devices(original, ["/dev/fuse"]) == [device]
    assert rewrite.named_devices(original, None) == []
    new = rewrite.rewrite(original, plan(devices=((device, "/s/m/device-0"),)))
    assert "devices" not in new["linux"]
    rules = new["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "access": "rwm", "major": 10, "minor": 229} in rules
    assert 232 not in {entry.get("minor") for entry in rules}
    assert new["linux"]["resources"]["pids"] == {"limit": 5}
    assert new["mounts"][-1]["destination"] == "/dev/fuse"
    assert new["mounts"][-1]["source"] == "/s/m/device-0"


def test_without_privilege_the_listed_devices_are_the_named_ones() -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"},
    ]
    null = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}
    original = spec(devices=[FUSE, null], resources={"devices": rules})
    found = rewrite.named_devices(original, None)
    assert [device.path for device in found] == ["/dev/fuse"]
    new = rewrite.rewrite(original, plan(devices=((found[0], "/n"),)))
    assert new["linux"]["resources"]["devices"][-1]["access"] == "r"


def test_the_last_rule_for_all_devices_decides() -> None:
    deny = {"allow": False, "access": "rwm"}
    assert not rewrite.allows_all(spec())
    assert rewrite.allows_all(spec(resources={"devices": [deny, *ALL_DEVICES]}))
    assert not rewrite.allows_all(
        spec(resources={"devices": [*ALL_DEVICES, {**deny, "type": "a"}]})
    )


def test_hooks_of_others_stay_in_between() -> None:
    original = spec()
    other = {"path": "/other"}
    original["hooks"] = {"createRuntime": [other], "poststop": [other], "prestart": [other]}
    hooks = rewrite.rewrite(original, plan())["hooks"]
    assert hooks["createRuntime"] == [
        {"path": "/b/eci-hook", "args": ["eci-hook", "create", "/s/hook.sock"]},
        other,
    ]
    assert hooks["poststop"] == [other, {"path": "/py", "args": ["/py", "-I", "-m", "x", "/s"]}]
    assert hooks["prestart"] == [other]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0 2147483647", "0 65535"),
        ("0\t2147483647", "0 65535"),
        ("0 0", "0 0"),
        ("1 0", "1 0"),
        ("70000 80000", "70000 80000"),
        ("nonsense", "nonsense"),
    ],
)
def test_ping_group_range_is_clamped_to_the_map(value: str, expected: str) -> None:
    new = rewrite.rewrite(spec(sysctl={"net.ipv4.ping_group_range": value}), plan())
    assert new["linux"]["sysctl"] == {"net.ipv4.ping_group_range": expected}


def test_limits_and_score_are_clamped_where_they_cannot_be_set() -> None:
    original = spec()
    original["process"] |= {
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "hard": 2**64 - 1, "soft": 2**64 - 1},
            {"type": "RLIMIT_CORE", "hard": 5, "soft": 5},
        ],
        "oomScoreAdj": -500,
    }
    new = rewrite.rewrite(original, plan(hard_limits={"RLIMIT_NOFILE": 1000}, oom_floor=0))
    assert new["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "hard": 1000, "soft": 1000},
        {"type": "RLIMIT_CORE", "hard": 5, "soft": 5},
    ]
    assert new["process"]["oomScoreAdj"] == 0
    assert rewrite.rewrite(original, plan())["process"] == original["process"]
