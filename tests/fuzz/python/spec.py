"""config.json: it is understood or refused, and what is rewritten is a protected container's."""

from __future__ import annotations

import copy
from typing import Any

from eci_supervisor.runtime import cover, nesting, rewrite
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import SpecError
from eci_supervisor.runtime.rewrite import Plan, Staged
from eci_supervisor.runtime.spec import Mapping, Spec

MAPS = (Mapping(0, 100000, 65536),)
HOOK = ("/bin/eci-hook", "create", "/run/x")
POSTSTOP = ("/bin/eci-cleanup", "/run/x")


def _read(spec: Spec) -> list[Any]:
    """Ask all that is asked before anything is prepared; SpecError."""
    linux = oci.part(spec, "linux", dict)
    oci.mappings(linux.get("uidMappings"), "linux.uidMappings")
    oci.mappings(linux.get("gidMappings"), "linux.gidMappings")
    oci.part(spec, "annotations", dict)
    oci.items(spec, "process.capabilities.bounding", str)
    for mount in oci.items(spec, "mounts", dict):
        oci.is_bind(mount)
        place = oci.inside(mount.get("destination"))
        assert place.startswith("/")
        assert not {"..", "."} & set(place.split("/"))
        nesting.resolve(place, [], lambda _: None)
    oci.devices(spec)
    return oci.items(spec, "mounts", dict)


def one(data: bytes) -> None:
    """Read it, and rewrite it with each bind staged."""
    try:
        spec = oci.loads(data)
        assert oci.loads(oci.dumps(spec)) == spec
        namespaces = oci.namespaces(spec)
        mounts = _read(spec)
        devices = rewrite.named_devices(spec, ["/dev/sda"])
    except SpecError:
        return
    before = copy.deepcopy(spec)
    binds = [index for index, mount in enumerate(mounts) if oci.is_bind(mount)]
    staged = {index: Staged(f"/stage/{index}", ("ro", "nosuid")) for index in binds}
    plan = Plan(
        uid_mappings=MAPS,
        gid_mappings=MAPS,
        rootfs="/stage/rootfs",
        hook=HOOK,
        poststop=POSTSTOP,
        joined={kind: f"/proc/self/fd/{kind}" for kind in namespaces},
        staged=staged,
        devices=tuple((device, "/stage/device") for device in devices),
        hard_limits={"RLIMIT_NOFILE": 1024},
        oom_floor=0,
    )
    new = rewrite.rewrite(spec, plan)
    assert spec == before
    _check(oci.loads(oci.dumps(new)), staged, len(devices))
    covered = cover.plan(spec, MAPS, lambda _: True, staged, loose=True)
    try:
        records = covered.records("/stage/rootfs")
    except SpecError:
        return  # it says that a path has a NUL in it
    assert all(b"\0" not in record for record in records)


def _check(new: Spec, staged: dict[int, Staged], devices: int) -> None:
    linux = new["linux"]
    found = oci.namespaces(new)
    assert found["user"] == ""
    assert found["cgroup"] == ""
    assert all(not path or path.startswith("/proc/self/fd/") for path in found.values())
    assert oci.mappings(linux["uidMappings"], "") == oci.mappings(linux["gidMappings"], "") == MAPS
    assert new["root"]["path"] == "/stage/rootfs"
    assert new["hooks"]["createRuntime"][0]["path"] == HOOK[0]
    assert new["hooks"]["poststop"][-1]["path"] == POSTSTOP[0]
    assert "devices" not in linux
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    allowed = [rule for rule in linux["resources"]["devices"][1:] if rule["access"] != "m"]
    assert len(allowed) <= len(rewrite.DEFAULT_NODES) + 1 + devices
    for index, one_staged in staged.items():
        mount = new["mounts"][index]
        assert mount["source"] == one_staged.path
        assert {"ro", "nosuid"} <= set(mount["options"])
        assert not {"rw", "suid"} & set(mount["options"])
        assert oci.is_bind(mount)
