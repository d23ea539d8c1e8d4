"""The command that makes an unprotected container anew.

Where the engine's next start of a container goes through our launcher whatever it remembers of a
runtime, a restart is enough: nothing on disk belongs to the host's root in another way than
before.  Else it has to be removed and made again, and for Docker that takes its flags.
"""

from __future__ import annotations

import shlex
from typing import Any

Words = list[str]


def docker(config: dict[str, Any], host: dict[str, Any], *, restart: bool) -> str:
    """Return the command for a container of Docker, from its config.v2.json and hostconfig.json.

    `restart`: whether dockerd and containerd find our launcher wherever they look for runc.
    """
    name = str(config.get("Name", "")).lstrip("/") or str(config.get("ID", ""))[:12]
    inner = _dict(config.get("Config"))
    if restart and not host.get("AutoRemove"):
        return shlex.join(["docker", "restart", name])
    compose = _compose(_dict(inner.get("Labels")))
    if compose:
        return shlex.join(compose)
    words = ["docker", "run", "-d", "--name", name, *_flags(inner, host), str(inner.get("Image"))]
    words += _entrypoint(inner)[2:]
    words += [str(word) for word in inner.get("Cmd") or ()]
    return f"{shlex.join(['docker', 'rm', '-f', name])} && {shlex.join(words)}"


def podman(name: str) -> str:
    """Return the command for a container of podman."""
    return shlex.join(["podman", "restart", name])


def containerd(namespace: str, container: str, annotations: dict[str, Any]) -> str:
    """Return the command for a container of containerd's: a pod's, or one of `ctr`."""
    pod = annotations.get("io.kubernetes.cri.sandbox-name")
    if isinstance(pod, str):
        space = str(annotations.get("io.kubernetes.cri.sandbox-namespace", "default"))
        return shlex.join(["kubectl", "--namespace", space, "delete", "pod", pod])
    base = ["ctr", "--namespace", namespace, "task"]
    kill = shlex.join([*base, "kill", "--signal", "SIGKILL", container])
    return f"{kill}; {shlex.join([*base, 'start', '-d', container])}"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _compose(labels: dict[str, Any]) -> Words:
    """Return what makes a service of docker compose anew; nothing for other containers."""
    project = labels.get("com.docker.compose.project")
    service = labels.get("com.docker.compose.service")
    if not project or not service:
        return []
    words = ["docker", "compose", "--project-name", str(project)]
    for path in str(labels.get("com.docker.compose.project.config_files") or "").split(","):
        if path:
            words += ["--file", path]
    return [*words, "up", "-d", "--force-recreate", str(service)]


# Key of HostConfig or Config -> flag: those without a value, with one, with a list of them.
_SWITCHES = {
    "Init": "--init",
    "OpenStdin": "--interactive",
    "Privileged": "--privileged",
    "ReadonlyRootfs": "--read-only",
    "Tty": "--tty",
}
_ONE = {
    "CgroupParent": "--cgroup-parent",
    "User": "--user",
    "WorkingDir": "--workdir",
    "CpusetCpus": "--cpuset-cpus",
    "CpuShares": "--cpu-shares",
    "IpcMode": "--ipc",
    "Memory": "--memory",
    "PidMode": "--pid",
    "PidsLimit": "--pids-limit",
    "UTSMode": "--uts",
}
_MANY = {
    "Binds": "--volume",
    "CapAdd": "--cap-add",
    "CapDrop": "--cap-drop",
    "Dns": "--dns",
    "Env": "--env",
    "ExtraHosts": "--add-host",
    "GroupAdd": "--group-add",
    "SecurityOpt": "--security-opt",
    "VolumesFrom": "--volumes-from",
}
_USUAL = ("", 0, None, "private", "default")
_NANO = 1_000_000_000


def _flags(inner: dict[str, Any], host: dict[str, Any]) -> Words:
    """Return the flags of `docker run` for these configurations."""
    words = [flag for key, flag in _SWITCHES.items() if host.get(key) or inner.get(key)]
    for key, flag in _ONE.items():
        value = host.get(key) or inner.get(key)
        if value not in _USUAL:
            words += [flag, str(value)]
    for key, flag in _MANY.items():
        for value in host.get(key) or inner.get(key) or ():
            words += [flag, str(value)]
    if host.get("NanoCpus"):
        words += ["--cpus", f"{host['NanoCpus'] / _NANO:g}"]
    policy = _dict(host.get("RestartPolicy"))
    if policy.get("Name") not in ("", "no", None):
        count = policy.get("MaximumRetryCount")
        words += ["--restart", f"{policy['Name']}:{count}" if count else str(policy["Name"])]
    for key, value in _dict(inner.get("Labels")).items():
        words += ["--label", f"{key}={value}"]
    return [*words, *_network(host), *_mounts(host), *_entrypoint(inner)[:2]]


def _entrypoint(inner: dict[str, Any]) -> Words:
    """Return the flag of an entrypoint, and its other words, which begin the command."""
    entrypoint = inner.get("Entrypoint") or ()
    return ["--entrypoint", *(str(word) for word in entrypoint)] if entrypoint else []


def _network(host: dict[str, Any]) -> Words:
    words: Words = []
    if host.get("NetworkMode") not in ("default", "bridge", "", None):
        words += ["--network", str(host["NetworkMode"])]
    for port, places in _dict(host.get("PortBindings")).items():
        for place in places or [{}]:
            ip, number = place.get("HostIp", ""), place.get("HostPort", "")
            words += ["--publish", f"{ip + ':' if ip else ''}{number}:{port}".lstrip(":")]
    return words


def _mounts(host: dict[str, Any]) -> Words:
    words: Words = []
    for mount in host.get("Mounts") or ():
        parts = [f"type={mount.get('Type', 'volume')}"]
        if mount.get("Source"):
            parts.append(f"source={mount['Source']}")
        parts.append(f"target={mount.get('Target', '')}")
        if mount.get("ReadOnly"):
            parts.append("readonly")
        words += ["--mount", ",".join(parts)]
    for target, options in _dict(host.get("Tmpfs")).items():
        words += ["--tmpfs", f"{target}:{options}" if options else target]
    for device in host.get("Devices") or ():
        words += ["--device", f"{device.get('PathOnHost')}:{device.get('PathInContainer')}"]
    return words
