"""The seccomp profile of containers that no engine started.

An engine brings its own profile: a list of what is allowed.  `eci run` has no engine, so it
brings the other half of the same knowledge: the families of calls that a container without the
capability for them has no business with.  Everything else is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

EPERM = 1
ENOSYS = 38

# Denied, always: what no capability opens in a container.
_NEVER = (
    "_sysctl",
    "add_key",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "nfsservctl",
    "pivot_root",
    "request_key",
    "swapoff",
    "swapon",
    "sysfs",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
)

# Denied, unless the container has one of the capabilities.
_GATED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("CAP_SYS_ADMIN",),
        (
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount",
            "umount2",
            "unshare",
        ),
    ),
    (("CAP_SYS_ADMIN", "CAP_BPF"), ("bpf",)),
    (("CAP_SYS_ADMIN", "CAP_PERFMON"), ("perf_event_open",)),
    (("CAP_SYS_ADMIN", "CAP_SYSLOG"), ("syslog",)),
    (("CAP_DAC_READ_SEARCH",), ("open_by_handle_at",)),
    (("CAP_SYS_BOOT",), ("reboot",)),
    (("CAP_SYS_MODULE",), ("delete_module", "finit_module", "init_module")),
    (("CAP_SYS_NICE",), ("mbind", "move_pages", "set_mempolicy")),
    (("CAP_SYS_PACCT",), ("acct",)),
    (("CAP_SYS_PTRACE",), ("kcmp", "pidfd_getfd", "process_madvise")),
    (("CAP_SYS_RAWIO",), ("ioperm", "iopl")),
    (
        ("CAP_SYS_TIME",),
        ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    ),
    (("CAP_SYS_TTY_CONFIG",), ("vhangup",)),
)

# clone(2)'s flags for new namespaces: mount, cgroup, uts, ipc, user, pid, net.
_CLONE_NAMESPACES = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)


def default_profile(capabilities: Collection[str]) -> dict[str, object]:
    """Return `linux.seccomp` for a container that holds these capabilities.

    A denied call answers EPERM; clone3, whose flags a filter cannot read, answers ENOSYS, so that
    the C library falls back to clone, whose flags it can.
    """
    denied = list(_NEVER)
    for keys, calls in _GATED:
        if not any(key in capabilities for key in keys):
            denied += calls
    rules: list[dict[str, object]] = [
        {"names": sorted(denied), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
        rules.extend(
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": EPERM,
                "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
            }
            for flag in _CLONE_NAMESPACES
        )
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        # Not x32: its calls would pass rules that name the 64-bit numbers.
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    }
