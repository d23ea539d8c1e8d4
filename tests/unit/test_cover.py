"""What the worker covers instead of the runtime."""

from __future__ import annotations

from typing import Any

import pytest

from eci_supervisor.runtime import cover
from eci_supervisor.runtime.cover import Cover
from eci_supervisor.runtime.errors import SpecError
from eci_supervisor.runtime.rewrite import Staged
from eci_supervisor.runtime.spec import Mapping
from tests.support.bundle import MASKED, READONLY, make_spec

GIDS = (Mapping(0, 100000, 65536),)


def plan(spec: dict[str, Any], **loose: Any) -> Cover:
    staged = loose.get("staged", {})
    crun = loose.get("crun", False)
    return cover.plan(spec, GIDS, lambda path: "link" not in path, staged, loose=crun)


def spec_of(**changes: Any) -> dict[str, Any]:
    spec = make_spec(["sh"], cgroup="/x", cap_add=["CAP_SYS_ADMIN"])
    spec["linux"] |= changes
    return spec


def test_all_masks_of_docker_are_covered() -> None:
    found = plan(spec_of())
    assert found == Cover(masked=tuple(MASKED), readonly=tuple(READONLY), sealed=("/sys",))
    records = found.records("/run/rootfs")
    assert records[0] == b"R/run/rootfs"
    assert set(records[1:]) == {
        b"o/sys",
        *(b"m" + path.encode() for path in MASKED),
        *(b"r" + path.encode() for path in READONLY),
    }


def test_nothing_of_a_privileged_container() -> None:
    found = plan(make_spec(["sh"], cgroup="/x", privileged=True))
    assert found.records("/run/rootfs") == ()


@pytest.mark.parametrize(
    "path",
    [
        "/proc/link/x",
        "/proc",
        "/proc/../etc",
        "/proc//keys",
        "/procx/a",
        "proc/keys",
        "/etc/passwd",
    ],
)
def test_what_is_no_plain_path_there_is_left_to_the_runtime(path: str) -> None:
    assert plan(spec_of(maskedPaths=[path], readonlyPaths=[path])).masked == ()
    assert plan(spec_of(maskedPaths=[path], readonlyPaths=[path])).readonly == ()


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]},
        {"destination": "//proc/", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/", "type": "tmpfs", "source": "tmpfs"},
    ],
)
def test_another_mount_on_proc_is_left_to_the_runtime(mount: dict[str, Any]) -> None:
    spec = spec_of()
    spec["mounts"].append(mount)
    found = plan(spec)
    assert not [path for path in found.masked + found.readonly if path.startswith("/proc/")]


def test_sysctls_go_with_the_read_only_path() -> None:
    names = {
        "net.ipv4.ping_group_range": "0 2147483647",
        "net.ipv4.conf.eth0/1.forwarding": "1",
        "kernel.shmmax": "1",
        "kernel.panic": "1",
        "fs.mqueue.msg_max": "9",
        "net..x": "1",
    }
    found = plan(spec_of(sysctl=names))
    assert found.sysctl == {
        "net.ipv4.ping_group_range": "0 65535",
        "net.ipv4.conf.eth0/1.forwarding": "1",
        "kernel.shmmax": "1",
        "fs.mqueue.msg_max": "9",
    }
    assert b"snet/ipv4/conf/eth0.1/forwarding=1" in found.records("/r")
    assert plan(spec_of(sysctl=names, readonlyPaths=["/proc/bus"])).sysctl == {}


def test_flags_of_what_a_runtime_leaves_loose() -> None:
    spec = spec_of(maskedPaths=[], readonlyPaths=[])
    n = len(spec["mounts"])
    for destination in ("/tmp/a", "b/"):
        spec["mounts"].append({"destination": destination, "type": "bind", "source": "/x"})
    staged = {n: Staged("/s/1"), n + 1: Staged("/s/2", ("ro",))}
    found = plan(spec, staged=staged, crun=True)
    assert found.exchanged == ("/b",)
    assert found.records("/r") == (b"R/r", b"o/sys", b"b/b")
    assert plan(spec, staged=staged).exchanged == ()


def test_read_only_cgroups_but_not_under_a_volume_in_their_place() -> None:
    spec = spec_of(maskedPaths=[], readonlyPaths=[])
    cgroups = {"destination": "/sys/fs/cgroup/", "type": "cgroup", "options": ["nosuid", "ro"]}
    spec["mounts"].append(cgroups)
    assert plan(spec).cgroups == ("/sys/fs/cgroup",)
    assert plan(spec).records("/r")[-1] == b"c/sys/fs/cgroup"
    cgroups["options"] = ["rw"]
    assert plan(spec).cgroups == ()
    cgroups["options"] = ["ro"]
    spec["mounts"].append({"destination": "/sys/fs/cgroup", "type": "bind", "source": "/x"})
    assert plan(spec).cgroups == ()


def test_what_the_runtime_mounts_under_a_read_only_volume() -> None:
    spec = spec_of(maskedPaths=[])
    n = len(spec["mounts"])
    staged = {}
    for offset, (destination, fstype, options) in enumerate(
        [
            ("/t", "tmpfs", []),
            ("/sealed", "tmpfs", ["ro"]),
            ("/t/a", "bind", ["ro"]),
            ("/t/b", "bind", ["ro"]),
            ("/t/c", "bind", ["nosuid"]),
            ("/sealed/a", "bind", ["ro"]),
            ("/dev/a", "bind", ["ro"]),
            ("/proc/cpuinfo", "bind", ["ro"]),
        ]
    ):
        spec["mounts"].append({"destination": destination, "type": fstype, "options": options})
        if fstype == "bind":
            staged[n + offset] = Staged("/s", tuple(options))
    assert plan(spec, staged=staged).exchanged == ("/t",)
    both = plan(spec, staged=staged, crun=True).exchanged
    assert both == ("/t", "/t/c", "/sealed/a", "/dev/a")
    spec["linux"]["readonlyPaths"] = []
    both = plan(spec, staged=staged, crun=True).exchanged
    assert both == ("/t", "/t/c", "/sealed/a", "/dev/a", "/proc/cpuinfo")


def test_no_path_is_two_records() -> None:
    # JSON can have a NUL in a string; what follows it would be a record of its own.
    with pytest.raises(SpecError, match="NUL"):
        plan(spec_of(maskedPaths=["/proc/x\0R/etc"])).records("/run/rootfs")
