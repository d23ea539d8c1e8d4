"""OCI bundles made by hand, as dockerd makes them, and a runtime that runs them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.support.result import require_success
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Spec: TypeAlias = dict[str, Any]

DEFAULT_CAPS = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
ALL_CAPS = [
    *DEFAULT_CAPS,
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
]
MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
MOUNT_CALLS = [
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "setns",
    "umount",
    "umount2",
    "unshare",
]


def bind(source: Path, target: str, *options: str) -> dict[str, Any]:
    """Return a recursive bind mount of the spec, private as dockerd's are."""
    words = ["rbind", "rprivate", *options]
    return {"destination": target, "type": "bind", "source": str(source), "options": words}


def add_fuse(spec: Spec) -> None:
    """Give the container /dev/fuse."""
    fuse = {"type": "c", "major": 10, "minor": 229}
    spec["linux"]["devices"] = [{"path": "/dev/fuse", "fileMode": 0o666, **fuse}]
    spec["linux"]["resources"]["devices"].append({"allow": True, "access": "rwm", **fuse})


def appearing(hidden: Path, place: Path) -> dict[str, Any]:
    """Return hooks that move `hidden` to `place` once the runtime has mounted everything.

    So a host-protected path comes to lie in a volume of which it was no part when that was judged.
    """
    return {"prestart": [{"path": "/bin/mv", "args": ["mv", str(hidden), str(place)]}]}


def make_spec(
    args: Sequence[str],
    *,
    cgroup: str,
    privileged: bool = False,
    cap_add: Sequence[str] = (),
    mounts: Sequence[dict[str, Any]] = (),
    readonly: bool = False,
    user: int = 0,
    identity_userns: bool = False,
    cgroupns: bool = False,
    hooks: dict[str, Any] | None = None,
) -> Spec:
    """Return a config.json like dockerd's for `args`, on the root file system `rootfs`.

    `privileged` gives every capability and neither masks nor a seccomp profile.  Otherwise the
    profile refuses the mount family, as Docker's does, unless `cap_add` names CAP_SYS_ADMIN.
    `cgroup` is absolute, as cgroupsPath.  `identity_userns` adds a user namespace that maps ids to
    themselves: what a user namespace alone protects, without eci-runtime, is shown with it.
    `cgroupns` asks for a private cgroup namespace, which eci-runtime gives to each.
    """
    caps = ALL_CAPS if privileged else [*DEFAULT_CAPS, *cap_add]
    namespaces = [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")]
    linux: dict[str, Any] = {
        "cgroupsPath": cgroup,
        "namespaces": namespaces,
        "resources": {"devices": [{"allow": privileged, "access": "rwm"}]},
    }
    if cgroupns:
        namespaces.append({"type": "cgroup"})
    if identity_userns:
        namespaces.append({"type": "user"})
        ids = [{"containerID": 0, "hostID": 0, "size": 65536}]
        linux |= {"uidMappings": ids, "gidMappings": ids}
    if not privileged:
        linux |= {"maskedPaths": MASKED, "readonlyPaths": READONLY}
        denied = [] if "CAP_SYS_ADMIN" in cap_add else MOUNT_CALLS
        linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["kexec_load", *denied], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
            ],
        }
    safe = ["nosuid", "noexec", "nodev"]
    sys_options = safe if privileged else [*safe, "ro"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": user},
            "args": list(args),
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
        },
        "root": {"path": "rootfs", "readonly": readonly},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": sys_options},
            *mounts,
        ],
        "linux": linux,
        "hooks": hooks or {},
    }


@dataclass(slots=True)
class Runtime:
    """An OCI runtime as its callers see it: a program with sub-commands."""

    program: str
    root: Path
    """Its `--root`."""
    flags: list[str] = field(default_factory=list)
    """More global flags."""
    env: dict[str, str] = field(default_factory=dict)
    """More of the environment."""

    def argv(self, *words: str) -> list[str]:
        """Return the whole command line."""
        return [self.program, "--root", str(self.root), *self.flags, *words]

    def call(
        self, *words: str, check: bool = True, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a sub-command to its end; `check` fails with what it printed.

        Stdin is empty, the outputs are files: a container that `create` leaves behind inherits
        them, and a pipe would keep us waiting for its end.  crun must not get /dev/null.
        """
        with TemporaryFile() as stdin, TemporaryFile() as out, TemporaryFile() as err:
            status = subprocess.run(
                self.argv(*words),
                stdin=stdin,
                stdout=out,
                stderr=err,
                timeout=timeout,
                check=False,
                env=os.environ | self.env,
            ).returncode
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        done = subprocess.CompletedProcess(list(words), status, *texts)
        if check:
            require_success(done, f"{words}")
        return done

    def start(self, name: str) -> None:
        """Start it, and wait until its first process has executed its program, or has ended.

        crun of before August 2023 cannot join a container before that: EPERM,
        containers/crun#1264.
        """
        self.call("start", name)
        pid = json.loads(self.call("state", name).stdout)["pid"]
        wait_until(lambda: not _is_init_of_runtime(pid), "it does not begin")


def _is_init_of_runtime(pid: int) -> bool:
    """Say whether a process, by the host's number, still executes runc or crun, or a copy of it."""
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return any(part in program for part in ("runc", "crun", "/memfd:"))


def write_bundle(directory: Path, spec: Spec, rootfs: Path) -> Path:
    """Write config.json into `directory`, with `rootfs` as the root; return the directory."""
    spec["root"]["path"] = str(rootfs)
    (directory / "config.json").write_text(json.dumps(spec, indent=1))
    return directory
