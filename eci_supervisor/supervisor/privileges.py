"""What the keeper gives up: ARCHITECTURE.md, "Privileges"."""

from __future__ import annotations

from eci_supervisor.kernel import syscalls

KEPT = (
    syscalls.CAP_CHOWN,
    syscalls.CAP_DAC_OVERRIDE,
    syscalls.CAP_DAC_READ_SEARCH,
    syscalls.CAP_FOWNER,
    syscalls.CAP_KILL,
    syscalls.CAP_MKNOD,
    syscalls.CAP_SETGID,
    syscalls.CAP_SETPCAP,
    syscalls.CAP_SETUID,
    syscalls.CAP_SYS_ADMIN,
    syscalls.CAP_SYS_CHROOT,
    syscalls.CAP_SYS_PTRACE,
)
"""What the keeper and the programs that it starts need until these have given up their own: to look
into the container and to end it, to give it its cgroups, to enter it (worker), to make and remove
mounts and what lies in them (view, cleanup)."""


def give_up() -> None:
    """Keep the capabilities in KEPT alone, and let nobody look at this process.  OSError.

    The latter execve(2) takes back.
    """
    syscalls.renounce(*KEPT)
