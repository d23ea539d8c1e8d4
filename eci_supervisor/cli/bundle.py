"""From the words of `eci run` to an OCI configuration with Docker's defaults.

Pure: options in, a value for config.json out.  `eci-runtime` rewrites it like any
engine's, so nothing here is a protection.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass

from eci_supervisor.cli.profile import default_profile

# In the order of their numbers, which is how the kernel's highest one (cap_last_cap) cuts the list.
ALL_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
        "LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
        "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
        "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
        "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE"
    ).split()
)
DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
        "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class OptionError(ValueError):
    """A word of the command line that means nothing; the text says which and what would do."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory or file of the host, seen at `destination` in the container."""

    source: str
    destination: str
    readonly: bool

    @classmethod
    def parse(cls, word: str) -> Volume:
        """Read `SRC:DST[:ro|rw]`; raise OptionError for everything else."""
        source, separator, rest = word.partition(":")
        destination, _, mode = rest.partition(":")
        if not separator or not destination:
            raise OptionError(f"{word}: a volume is written SRC:DST or SRC:DST:ro")
        if mode not in {"", "ro", "rw"}:
            raise OptionError(f"{word}: {mode} is neither ro nor rw")
        if not source.startswith("/"):
            raise OptionError(
                f"{word}: {source} is no absolute path (named volumes need an engine)"
            )
        if not destination.startswith("/") or os.path.normpath(destination) in {"/", "//"}:
            raise OptionError(f"{word}: {destination} is no absolute path below the root")
        return cls(source=source, destination=destination, readonly=mode == "ro")

    def mount(self) -> dict[str, object]:
        """Return the entry of `mounts`."""
        mode = "ro" if self.readonly else "rw"
        return {
            "destination": self.destination,
            "type": "bind",
            "source": self.source,
            "options": ["rbind", "rprivate", mode],
        }


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked `eci run` for."""

    command: tuple[str, ...]
    rootfs: str
    """Absolute path of the directory that becomes the container's root."""
    hostname: str
    volumes: tuple[Volume, ...] = ()
    privileged: bool = False
    capabilities: tuple[str, ...] = ()
    """Full names (CAP_…) of what is added to the default ones."""
    terminal: bool = False
    term: str = "xterm"


def capability(word: str) -> tuple[str, ...]:
    """Return the full names that a word of `--cap-add` stands for, as docker reads it.

    Upper or lower case, with or without `CAP_`; ALL is every one.  Raises OptionError.
    """
    name = word.upper()
    if name == "ALL":
        return ALL_CAPABILITIES
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in ALL_CAPABILITIES:
        raise OptionError(f"{word}: no such capability")
    return (name,)


def configuration(request: Request, last_capability: int) -> dict[str, object]:
    """Return the value of config.json.

    `last_capability` is the highest number that the kernel knows; capabilities above it are left
    out, as the runtime would refuse their names.
    """
    known = set(ALL_CAPABILITIES[: last_capability + 1])
    wanted = {*DEFAULT_CAPABILITIES, *request.capabilities}
    granted = sorted(known if request.privileged else wanted & known)
    environment = [f"PATH={PATH}", f"HOSTNAME={request.hostname}", "HOME=/root"]
    if request.terminal:
        environment.append(f"TERM={request.term}")
    linux: dict[str, object] = {
        "namespaces": [
            {"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup")
        ],
        "resources": {"devices": [{"allow": request.privileged, "access": "rwm"}]},
    }
    if not request.privileged:
        linux["maskedPaths"] = list(MASKED_PATHS)
        linux["readonlyPaths"] = list(READONLY_PATHS)
        linux["seccomp"] = default_profile(granted)
    return {
        "ociVersion": "1.0.2",
        "hostname": request.hostname,
        "root": {"path": request.rootfs, "readonly": False},
        "process": {
            "terminal": request.terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(request.command),
            "env": environment,
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), granted),
            "noNewPrivileges": False,
        },
        "mounts": [
            *_kernel_mounts(privileged=request.privileged),
            *(volume.mount() for volume in request.volumes),
        ],
        "linux": linux,
    }


def _kernel_mounts(*, privileged: bool) -> list[dict[str, object]]:
    """Return docker's mounts of kernel file systems, in its order."""
    quiet = ["nosuid", "noexec", "nodev"]
    mode = "rw" if privileged else "ro"
    table: tuple[tuple[str, str, str, list[str]], ...] = (
        ("/proc", "proc", "proc", quiet),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/sys", "sysfs", "sysfs", [*quiet, mode]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, mode]),
        ("/dev/mqueue", "mqueue", "mqueue", quiet),
        ("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=67108864"]),  # noqa: S108 - in there
    )
    return [
        {"destination": destination, "type": kind, "source": source, "options": options}
        for destination, kind, source, options in table
    ]
