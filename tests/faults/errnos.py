"""With what each system call of ours may fail, of the causes that lie outside of the call itself.

Want of memory, descriptors or room, an error of the medium, a signal, a security module.  What an
errno *tells* is left out: ENOENT of a name that is there would be a lie of the kernel's.
"""

from __future__ import annotations

from errno import (
    EACCES,
    EAGAIN,
    EBUSY,
    EDQUOT,
    EINTR,
    EIO,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    ENOSPC,
    EPERM,
    EROFS,
    ESRCH,
)

OPENS = (EMFILE, ENOMEM, ENFILE, EACCES, EIO, EINTR)
WRITES = (ENOSPC, EIO, EDQUOT, EINTR)
MAKES = (ENOSPC, EROFS, EDQUOT, ENOMEM, EACCES)
NAMESPACES = (ENOMEM, ENOSPC, EPERM)

CALLS: dict[int, tuple[str, tuple[int, ...]]] = {
    0: ("read", (EIO, ENOMEM, EINTR)),
    1: ("write", WRITES),
    2: ("open", OPENS),
    5: ("fstat", (ENOMEM, EIO)),
    7: ("poll", (ENOMEM, EINTR)),
    9: ("mmap", (ENOMEM,)),
    10: ("mprotect", (ENOMEM,)),
    12: ("brk", (ENOMEM,)),
    16: ("ioctl", (EINTR,)),
    17: ("pread64", (EIO, ENOMEM, EINTR)),
    18: ("pwrite64", WRITES),
    21: ("access", (ENOMEM, EACCES)),
    32: ("dup", (EMFILE,)),
    33: ("dup2", (EMFILE, EBUSY)),
    41: ("socket", (EMFILE, ENOMEM, ENOBUFS)),
    42: ("connect", (ENOMEM, EAGAIN, EACCES)),
    44: ("sendto", (ENOBUFS, EINTR)),
    46: ("sendmsg", (ENOBUFS, EINTR)),
    45: ("recvfrom", (EINTR, ENOMEM)),
    47: ("recvmsg", (ENOMEM, EINTR)),
    48: ("shutdown", (ENOBUFS,)),
    49: ("bind", (ENOSPC, EACCES, EROFS)),
    50: ("listen", (ENOMEM,)),
    53: ("socketpair", (EMFILE, ENFILE)),
    54: ("setsockopt", (ENOMEM,)),
    55: ("getsockopt", (ENOMEM,)),
    56: ("clone", (EAGAIN, ENOMEM)),
    58: ("vfork", (EAGAIN, ENOMEM)),
    59: ("execve", (ENOMEM, EACCES, EMFILE)),
    61: ("wait4", (EINTR,)),
    72: ("fcntl", (EMFILE, ENOMEM)),
    73: ("flock", (ENOMEM, EINTR)),
    76: ("truncate", WRITES),
    77: ("ftruncate", WRITES),
    79: ("getcwd", (ENOMEM,)),
    80: ("chdir", (EACCES, ENOMEM)),
    81: ("fchdir", (EACCES, EIO)),
    82: ("rename", MAKES),
    83: ("mkdir", MAKES),
    84: ("rmdir", (EBUSY, EROFS, EIO)),
    87: ("unlink", (EROFS, EIO, ENOMEM)),
    89: ("readlink", (ENOMEM, EACCES)),
    90: ("chmod", (EROFS, EIO)),
    94: ("lchown", (EPERM, EROFS, EDQUOT)),
    105: ("setuid", (EAGAIN, EPERM)),
    113: ("setreuid", (EAGAIN, EPERM)),
    116: ("setgroups", (ENOMEM, EPERM)),
    117: ("setresuid", (EAGAIN, EPERM)),
    119: ("setresgid", (EAGAIN, EPERM)),
    122: ("setfsuid", (0,)),  # of failure they say nothing
    123: ("setfsgid", (0,)),
    125: ("capget", (ESRCH, EPERM)),
    126: ("capset", (ENOMEM, EPERM)),
    133: ("mknod", MAKES),
    137: ("statfs", (ENOMEM, EIO)),
    138: ("fstatfs", (ENOMEM, EIO)),
    155: ("pivot_root", (ENOMEM, EBUSY)),
    157: ("prctl", (EPERM,)),
    161: ("chroot", (EPERM, ENOMEM)),
    165: ("mount", (ENOMEM, ENOSPC, EPERM, EBUSY)),
    166: ("umount2", (ENOMEM, EBUSY, EPERM)),
    217: ("getdents64", (EIO, ENOMEM)),
    233: ("epoll_ctl", (ENOMEM, ENOSPC)),
    247: ("waitid", (EINTR,)),
    257: ("openat", OPENS),
    258: ("mkdirat", MAKES),
    259: ("mknodat", MAKES),
    262: ("newfstatat", (ENOMEM, EIO, EACCES)),
    263: ("unlinkat", (EROFS, EIO, ENOMEM)),
    267: ("readlinkat", (ENOMEM, EACCES)),
    268: ("fchmodat", (EROFS, EIO)),
    269: ("faccessat", (ENOMEM, EACCES)),
    272: ("unshare", NAMESPACES),
    285: ("fallocate", (ENOSPC, EINTR)),
    288: ("accept4", (EMFILE, ENFILE)),
    290: ("eventfd2", (EMFILE, ENOMEM)),
    291: ("epoll_create1", (EMFILE, ENOMEM)),
    292: ("dup3", (EMFILE, EBUSY)),
    293: ("pipe2", (EMFILE, ENFILE)),
    302: ("prlimit64", (EPERM,)),
    308: ("setns", NAMESPACES),
    310: ("process_vm_readv", (ENOMEM, EPERM, ESRCH)),
    317: ("seccomp", (ENOMEM, EACCES)),
    319: ("memfd_create", (EMFILE, ENOMEM)),
    332: ("statx", (ENOMEM, EACCES, EIO)),
    428: ("open_tree", (EMFILE, ENOMEM, EPERM, ENOSPC)),
    429: ("move_mount", (ENOMEM, ENOSPC, EBUSY, EPERM)),
    430: ("fsopen", (EMFILE, ENOMEM)),
    431: ("fsconfig", (ENOMEM, EPERM)),
    432: ("fsmount", (EMFILE, ENOMEM, ENOSPC)),
    433: ("fspick", (EMFILE, ENOMEM)),
    434: ("pidfd_open", (EMFILE, ENOMEM, ESRCH)),
    435: ("clone3", (EAGAIN, ENOMEM)),
    436: ("close_range", (ENOMEM,)),
    437: ("openat2", OPENS),
    438: ("pidfd_getfd", (EMFILE, EPERM, ESRCH)),
    439: ("faccessat2", (ENOMEM, EACCES)),
    442: ("mount_setattr", (ENOMEM, EPERM)),
    457: ("statmount", (ENOMEM, EPERM)),
    458: ("listmount", (ENOMEM, EPERM)),
}


def name_of(number: int) -> str:
    """Return the name of a system call of x86-64."""
    return CALLS[number][0] if number in CALLS else f"#{number}"


def errnos_of(number: int, *, every: bool) -> tuple[int, ...]:
    """Return the errnos that it is tried with; the likeliest alone, unless `every`."""
    assert number in CALLS, f"no errnos are written down for system call {number}"
    errnos = CALLS[number][1]
    return errnos if every else errnos[:1]
