"""From the engine's config.json to the one that the runtime gets.  Pure.

Everything that must be looked up or made has been before: it comes in as a `Plan`.  Keys that
are not named here are passed on as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from eci_supervisor.runtime import spec as oci

if TYPE_CHECKING:
    from eci_supervisor.runtime.spec import Device, Mapping, Spec

DEFAULT_NODES = (
    ("c", 1, 3),  # null
    ("c", 1, 5),  # zero
    ("c", 1, 7),  # full
    ("c", 1, 8),  # random
    ("c", 1, 9),  # urandom
    ("c", 5, 0),  # tty
    ("c", 5, 1),  # console
    ("c", 5, 2),  # ptmx
)
"""What a runtime gives every container, as (type, major, minor)."""
PTS_MAJOR = 136
PING_GROUP_RANGE = "net.ipv4.ping_group_range"


class Staged(msgspec.Struct, frozen=True):
    """A source that was prepared for one entry of mounts[]."""

    path: str
    flags: tuple[str, ...] = ()
    """Of ro, nosuid, nodev, noexec: what the prepared mount has, and the kernel holds."""


class Plan(msgspec.Struct, frozen=True):
    """What has been prepared for one container."""

    uid_mappings: tuple[Mapping, ...]
    gid_mappings: tuple[Mapping, ...]
    rootfs: str
    hook: tuple[str, ...]
    """argv of the createRuntime hook."""
    poststop: tuple[str, ...]
    """argv of the poststop hook."""
    userns_path: str = ""
    """A user namespace to join; "" for a new one."""
    joined: dict[str, str] = msgspec.field(default_factory=dict)
    """Kind → path of the other namespaces to join, in the place of each that the spec names."""
    staged: dict[int, Staged] = msgspec.field(default_factory=dict)
    """Index in mounts[] → its new source."""
    nested: frozenset[int] = frozenset()
    """Indices in mounts[] of what lies in another one's tree, or the root's: nothing is left to
    do for the runtime."""
    devices: tuple[tuple[Device, str], ...] = ()
    """The named devices, and where each node was made."""
    seccomp: dict[str, Any] | None = None
    """None: the profile stays."""
    hard_limits: dict[str, int] = msgspec.field(default_factory=dict)
    """RLIMIT_* → the highest value that can be set; others are not clamped."""
    oom_floor: int | None = None
    """Lowest oom_score_adj that can be set; None: any."""
    sysctl_dropped: frozenset[str] = frozenset()
    """Sysctls that somebody else sets."""
    paths_dropped: frozenset[str] = frozenset()
    """Masked and read-only paths that somebody else covers."""
    network_joined: bool = False
    """The wrapper has entered the network namespace itself: the runtime is to inherit it."""


def rewrite(spec: Spec, plan: Plan) -> Spec:
    """Return a new document; `spec` is left as it is."""
    new: Spec = msgspec.json.decode(msgspec.json.encode(spec))  # a quick copy
    linux = new["linux"] = new.get("linux") or {}
    new["root"]["path"] = plan.rootfs
    linux["namespaces"] = _namespaces(new, plan)
    linux["uidMappings"] = [_mapping(entry) for entry in plan.uid_mappings]
    linux["gidMappings"] = [_mapping(entry) for entry in plan.gid_mappings]
    _mounts(new, plan)
    _devices(linux, plan)
    for key in ("maskedPaths", "readonlyPaths"):
        if linux.get(key):
            linux[key] = [path for path in linux[key] if path not in plan.paths_dropped]
    _hooks(new, plan)
    _clamp(new, plan)
    if plan.seccomp is not None:
        linux["seccomp"] = plan.seccomp
    return new


def _mapping(entry: Mapping) -> dict[str, int]:
    return {"containerID": entry.inside, "hostID": entry.outside, "size": entry.size}


def _namespaces(spec: Spec, plan: Plan) -> list[dict[str, Any]]:
    """The listed namespaces, with a user and a cgroup namespace that are the container's own."""
    kept = []
    for entry in oci.items(spec, "linux.namespaces", dict):
        kind = entry["type"]
        if kind in ("user", "cgroup") or (kind == "network" and plan.network_joined):
            continue
        if entry.get("path"):
            entry["path"] = plan.joined[kind]  # what was judged, and nothing that was not
        kept.append(entry)
    user = {"type": "user"}
    if plan.userns_path:
        user["path"] = plan.userns_path
    return [*kept, user, {"type": "cgroup"}]


_OPPOSITES = {"ro": "rw", "nosuid": "suid", "nodev": "dev", "noexec": "exec"}


def _mounts(spec: Spec, plan: Plan) -> None:
    """Point mounts[] at what was staged, and add the devices."""
    mounts = oci.items(spec, "mounts", dict)
    for index, staged in plan.staged.items():
        mount = mounts[index]
        mount["source"] = staged.path
        # The runtime remounts a bind that has such options; where the list lacks a flag that
        # the kernel holds, it would ask for its removal and fail.
        kept = [word for word in oci.options(mount) if word not in _dropped(staged.flags)]
        if not {"bind", "rbind"} & set(kept):
            kept.insert(0, "bind")
        mount["type"] = "bind"
        mount["options"] = kept + [flag for flag in staged.flags if flag not in kept]
        # Done by the staging; crun would map a second time.
        for key in ("uidMappings", "gidMappings"):
            mount.pop(key, None)
    mounts = [mount for index, mount in enumerate(mounts) if index not in plan.nested]
    for device, path in plan.devices:
        mounts.append(
            {
                "destination": device.path,
                "type": "bind",
                "source": path,
                "options": ["bind", "nosuid", "noexec"],
            }
        )
    spec["mounts"] = mounts


def _dropped(flags: tuple[str, ...]) -> set[str]:
    """Options that contradict `flags`, or that the staging has fulfilled."""
    return {_OPPOSITES[flag] for flag in flags} | {"idmap", "ridmap"}


def allows_all(spec: Spec) -> bool:
    """Whether the device rules allow every device, as those of a privileged container do."""
    allowed = False
    for rule in oci.items(spec, "linux.resources.devices", dict):
        if rule.get("type") in (None, "", "a") and "major" not in rule and "minor" not in rule:
            allowed = rule.get("allow") is True
    return allowed


def named_devices(spec: Spec, listed: list[str] | None) -> list[Device]:
    """Return the devices that the user named.

    In a privileged container linux.devices has all of the host's; then `listed`, the paths
    that the engine's own record of the container names, decides.  The default nodes are the
    runtime's business.
    """
    devices = [
        device
        for device in oci.devices(spec)
        if (device.kind, device.major, device.minor) not in DEFAULT_NODES
    ]
    if not allows_all(spec):
        return devices
    return [device for device in devices if listed is not None and device.path in listed]


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def _access(given: list[dict[str, Any]], device: Device) -> str:
    """The access that the engine's rules give to `device`; rwm if none names it."""
    for rule in reversed(given):
        if rule.get("allow") and (rule.get("type"), rule.get("major"), rule.get("minor")) == (
            device.kind,
            device.major,
            device.minor,
        ):
            return str(rule.get("access") or "rwm")
    return "rwm"


def _devices(linux: dict[str, Any], plan: Plan) -> None:
    """No node but the default ones and the named ones, and the device rules alike."""
    linux.pop("devices", None)
    resources = linux["resources"] = linux.get("resources") or {}
    given = resources.get("devices") or []
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    # mknod is what a container in a user namespace cannot do anyway; both runtimes add these.
    rules += [_rule("c", None, None, "m"), _rule("b", None, None, "m")]
    rules += [_rule(*node, "rwm") for node in DEFAULT_NODES]
    rules.append(_rule("c", PTS_MAJOR, None, "rwm"))
    for device, _ in plan.devices:
        kind = "c" if device.kind == "u" else device.kind
        if kind != "p":
            rules.append(_rule(kind, device.major, device.minor, _access(given, device)))
    resources["devices"] = rules


def _hooks(spec: Spec, plan: Plan) -> None:
    """Our hooks: the keeper goes first, and the clearing up comes last."""
    hooks = spec["hooks"] = spec.get("hooks") or {}
    create = {"path": plan.hook[0], "args": ["eci-hook", *plan.hook[1:]]}
    hooks["createRuntime"] = [create, *(hooks.get("createRuntime") or [])]
    clean = {"path": plan.poststop[0], "args": list(plan.poststop)}
    hooks["poststop"] = [*(hooks.get("poststop") or []), clean]


def ping_group_range(value: str, mappings: tuple[Mapping, ...]) -> str:
    """Clamp a range of group ids to those that are mapped, lowest mapping first."""
    try:
        low, high = (int(word) for word in value.split())
    except ValueError:
        return value  # the kernel's to refuse
    top = min(mappings, key=lambda entry: entry.inside)
    highest = top.inside + top.size - 1
    return f"{low} {highest}" if low <= highest < high else value


def _clamp(spec: Spec, plan: Plan) -> None:
    """Lower what root of a user namespace, or this host's root, cannot set."""
    sysctl = oci.part(spec, "linux.sysctl", dict)
    for name in plan.sysctl_dropped & sysctl.keys():
        del sysctl[name]
    if PING_GROUP_RANGE in sysctl:
        sysctl[PING_GROUP_RANGE] = ping_group_range(
            str(sysctl[PING_GROUP_RANGE]), plan.gid_mappings
        )
    for limit in oci.items(spec, "process.rlimits", dict):
        highest = plan.hard_limits.get(str(limit.get("type")))
        if highest is not None:
            for key in ("hard", "soft"):
                limit[key] = min(limit.get(key, 0), highest)
    score = oci.part(spec, "process", dict).get("oomScoreAdj")
    if plan.oom_floor is not None and isinstance(score, int) and score < plan.oom_floor:
        spec["process"]["oomScoreAdj"] = plan.oom_floor
