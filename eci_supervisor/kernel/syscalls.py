"""Typed wrappers over the C module's system calls: the kernel's name and argument order.

A failure raises ``OSError`` with the call's errno and a text in strace's form, for instance
``open_tree(-100, "/srv", 0x80001) = -1 ENOENT (No such file or directory)``.  A returned file
descriptor is close-on-exec and belongs to the caller.  Paths are taken as ``str`` or
``bytes``; a NUL in one is a ``ValueError``, never a silent cut.
"""
# ruff: noqa: D402 - a call's name with its manual section is how its docstring begins

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from eci_supervisor._eci import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "capget",
    "confine",
    "detached",
    "fchmodat",
    "fchownat",
    "filter_keeper",
    "filter_proxy",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "fstatfs_flags",
    "fstatfs_type",
    "install_guard",
    "lib",
    "mknodat",
    "mount",
    "mount_setattr",
    "move_mount",
    "ns_get_userns",
    "open_tree",
    "openat2",
    "own_pages",
    "renounce",
    "setfsids",
    "setns",
    "statx_mnt_id",
    "statx_mnt_id_unique",
    "umount2",
    "unshare",
    "userns_create",
]

Path = str | bytes

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_MKNOD = 27
NO_FD = 0


def _text(value: Path) -> bytes:
    """Return `value` as the bytes that the kernel gets; ValueError on an embedded NUL."""
    raw = os.fsencode(value)
    if b"\0" in raw:
        msg = f"embedded NUL in {raw!r}"
        raise ValueError(msg)
    return raw


def _optional(value: Path | None) -> object:
    """Return `value` as for `_text`, or a NULL pointer."""
    return ffi.NULL if value is None else _text(value)


def _word(value: object) -> str:
    """One argument as strace would print it."""
    if isinstance(value, str | bytes):
        text = os.fsencode(value).decode("ascii", "backslashreplace").replace('"', '\\"')
        return f'"{text}"'
    if value is None:
        return "NULL"
    if isinstance(value, int) and value > 9:  # noqa: PLR2004 - one digit reads the same
        return hex(value)
    return str(value)


def failure(name: str, args: tuple[object, ...], code: int) -> OSError:
    """Build the exception for call `name` with `args` that failed with errno `code`."""
    words = ", ".join(_word(arg) for arg in args)
    symbol = errno.errorcode.get(code, str(code))
    return OSError(code, f"{name}({words}) = -1 {symbol} ({os.strerror(code)})")


def _check(rc: int, name: str, *args: object) -> int:
    """Return `rc`, or raise what its negative value says."""
    if rc < 0:
        raise failure(name, args, -rc)
    return rc


def open_tree(dfd: int, filename: Path, flags: int) -> int:
    """open_tree(2): a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy."""
    flags |= lib.OPEN_TREE_CLOEXEC
    return _check(lib.sys_open_tree(dfd, _text(filename), flags), "open_tree", dfd, filename, flags)


def move_mount(from_dfd: int, from_path: Path, to_dfd: int, to_path: Path, flags: int) -> None:
    """move_mount(2)."""
    rc = lib.sys_move_mount(from_dfd, _text(from_path), to_dfd, _text(to_path), flags)
    _check(rc, "move_mount", from_dfd, from_path, to_dfd, to_path, flags)


def mount_setattr(
    dfd: int,
    path: Path,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = NO_FD,
) -> None:
    """mount_setattr(2); the attr words are MOUNT_ATTR_*, propagation is one of MS_*."""
    rc = lib.sys_mount_setattr(dfd, _text(path), flags, attr_set, attr_clr, propagation, userns_fd)
    _check(rc, "mount_setattr", dfd, path, flags, attr_set, attr_clr, propagation, userns_fd)


def fsopen(fsname: str, flags: int = 0) -> int:
    """fsopen(2): a descriptor of a new file system context."""
    flags |= lib.FSOPEN_CLOEXEC
    return _check(lib.sys_fsopen(_text(fsname), flags), "fsopen", fsname, flags)


def fsconfig(
    fd: int, cmd: int, key: str | None = None, value: Path | None = None, aux: int = 0
) -> None:
    """fsconfig(2).  An error's text ends with what the kernel left in the context's log."""
    rc = lib.sys_fsconfig(fd, cmd, _optional(key), _optional(value), aux)
    if rc < 0:
        error = failure("fsconfig", (fd, cmd, key, value, aux), -rc)
        log = b"; ".join(_fs_log(fd)).decode("ascii", "backslashreplace")
        raise OSError(-rc, f"{error.strerror}{': ' if log else ''}{log}")


def _fs_log(fd: int) -> Iterator[bytes]:
    """Yield the messages of a file system context: fsopen(2), "message retrieval"."""
    while True:
        try:
            line = os.read(fd, 4096)
        except OSError:
            return  # ENODATA: no more of them
        yield line.strip()


def fsmount(fd: int, flags: int = 0, attr_flags: int = 0) -> int:
    """fsmount(2): a descriptor of a detached mount of the context; MOUNT_ATTR_* in attr_flags."""
    flags |= lib.FSMOUNT_CLOEXEC
    return _check(lib.sys_fsmount(fd, flags, attr_flags), "fsmount", fd, flags, attr_flags)


def fspick(dfd: int, path: Path, flags: int) -> int:
    """fspick(2): a context of an existing superblock, for reconfiguring it."""
    flags |= lib.FSPICK_CLOEXEC
    return _check(lib.sys_fspick(dfd, _text(path), flags), "fspick", dfd, path, flags)


def mount(
    source: Path | None, target: Path, fstype: str | None, flags: int, data: Path | None = None
) -> None:
    """mount(2); flags are MS_*."""
    rc = lib.sys_mount(_optional(source), _text(target), _optional(fstype), flags, _optional(data))
    _check(rc, "mount", source, target, fstype, flags, data)


def umount2(target: Path, flags: int) -> None:
    """umount2(2)."""
    _check(lib.sys_umount2(_text(target), flags), "umount2", target, flags)


def openat2(dfd: int, pathname: Path, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); O_CLOEXEC is always added."""
    rc = lib.sys_openat2(dfd, _text(pathname), flags, mode, resolve)
    return _check(rc, "openat2", dfd, pathname, flags, mode, resolve)


def setns(fd: int, nstype: int) -> None:
    """setns(2); EINVAL for a user namespace when the process has several threads."""
    _check(lib.sys_setns(fd, nstype), "setns", fd, nstype)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(lib.sys_unshare(flags), "unshare", flags)


def mknodat(dfd: int, pathname: Path, mode: int, dev: int) -> None:
    """mknod(2); the umask applies to mode."""
    _check(lib.sys_mknodat(dfd, _text(pathname), mode, dev), "mknodat", dfd, pathname, mode, dev)


def fchmodat(dfd: int, pathname: Path, mode: int) -> None:
    """fchmodat(2)."""
    _check(lib.sys_fchmodat(dfd, _text(pathname), mode), "fchmodat", dfd, pathname, mode)


def fchownat(dfd: int, pathname: Path, owner: int, group: int, flags: int) -> None:
    """fchownat(2)."""
    rc = lib.sys_fchownat(dfd, _text(pathname), owner, group, flags)
    _check(rc, "fchownat", dfd, pathname, owner, group, flags)


def ns_get_userns(fd: int) -> int:
    """ioctl_ns(2) NS_GET_USERNS: a descriptor of the user namespace that owns namespace `fd`.

    EPERM: it lies outside the caller's own user namespace.
    """
    return _check(lib.sys_ns_get_userns(fd), "ioctl_ns_get_userns", fd)


def statx_mnt_id(dfd: int, path: Path, flags: int) -> int:
    """statx(2): the id, as in mountinfo, of the mount that `path` lies on."""
    return _check(lib.sys_statx_mnt_id(dfd, _text(path), flags), "statx", dfd, path, flags)


def statx_mnt_id_unique(dfd: int, path: Path, flags: int) -> int:
    """statx(2) with STATX_MNT_ID_UNIQUE: an id that is never used again; ENOSYS before 6.8."""
    return _check(lib.sys_statx_mnt_id_unique(dfd, _text(path), flags), "statx", dfd, path, flags)


def fstatfs_flags(fd: int) -> int:
    """statfs(2): the ST_* flags of the mount that `fd` lies on."""
    return _check(lib.sys_fstatfs_flags(fd), "fstatfs", fd)


def fstatfs_type(fd: int) -> int:
    """statfs(2): the magic number of the file system that `fd` lies on."""
    return _check(lib.sys_fstatfs_type(fd), "fstatfs", fd)


def capget(which: str) -> int:
    """capget(2): the caller's "effective" or "permitted" set as a mask of `1 << CAP_*`."""
    return _check(lib.sys_capget(which[0].encode("ascii")), "capget", which)


def renounce(*kept: int) -> None:
    """Give up every capability but CAP_* `kept` for good, and make this process undumpable."""
    _check(lib.eci_renounce(sum(1 << cap for cap in kept)), "capset", *kept)


def filter_keeper() -> None:
    """Refuse what neither the keeper nor anything that it starts has a use for; `renounce` first.

    Which calls these are: csrc/filters.c.
    """
    _check(lib.eci_filter_keeper(), "seccomp(SECCOMP_SET_MODE_FILTER)")


def confine(reads: Sequence[str], writes: Sequence[str]) -> bool:
    """landlock(7): open no file any more but beneath these directories; `renounce` first.

    In `writes` they may be made and removed as well.  Neither may be missing.  False: the kernel
    has no Landlock, and nothing was done.
    """
    with contextlib.ExitStack() as stack:
        fds = []
        for path in (*reads, *writes):
            fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        kinds = b"r" * len(reads) + b"w" * len(writes)
        try:
            _check(lib.eci_confine(fds, kinds, len(fds)), "landlock_restrict_self")
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
                return False
            raise
    return True


def filter_proxy() -> None:
    """Refuse all that the proxy of a restricted socket has no use for; `renounce` first."""
    _check(lib.eci_filter_proxy(), "seccomp(SECCOMP_SET_MODE_FILTER)")


def setfsids(uid: int, gid: int) -> None:
    """Set fsuid and fsgid of this thread and keep its effective capabilities."""
    _check(lib.eci_setfsids(uid, gid), "setfsuid", uid, gid)


def userns_create(uid_map: str, gid_map: str) -> int:
    """Return a descriptor of a new user namespace with these maps (lines as in uid_map).

    EPERM: the maps reach outside the caller's own; ENOSPC: max_user_namespaces is reached.
    """
    rc = lib.eci_userns_create(_text(uid_map), _text(gid_map))
    return _check(rc, "clone(CLONE_NEWUSER) + uid_map", uid_map, gid_map)


def install_guard() -> None:
    """Install the filter of csrc/guard.h for this process and all that it will execute."""
    _check(lib.eci_install_guard(), "seccomp(SECCOMP_SET_MODE_FILTER)")


def own_pages() -> None:
    """Copy what this child shares with its parent until either writes to it.  OSError: ENOMEM."""
    _check(lib.eci_own_pages(), "madvise", "MADV_POPULATE_WRITE")


def detached(fstype: str, options: dict[str, str], attr_flags: int = 0) -> int:
    """Return a descriptor of a new, detached mount of `fstype` with string `options`."""
    context = fsopen(fstype)
    try:
        for key, value in options.items():
            fsconfig(context, lib.FSCONFIG_SET_STRING, key, value)
        fsconfig(context, lib.FSCONFIG_CMD_CREATE)
        return fsmount(context, 0, attr_flags)
    finally:
        os.close(context)
