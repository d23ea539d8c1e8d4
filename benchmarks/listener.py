"""`listener.py LISTENER PID`: answers mount calls in Python; a rival, see ladder.py.

It goes into the container's user and mount namespace once, and stays there: no process is started
for a call.  It reads what a call points at, makes the call in the caller's working directory and
gives the caller the answer.  It decides nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import sys
from typing import TYPE_CHECKING

from eci_supervisor.kernel import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/seccomp.h: _IOWR('!', 0, 80 bytes), _IOWR('!', 1, 24 bytes), _IOW('!', 4, 8 bytes).
RECEIVE, SEND, SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
SYNC_WAKE_UP = 1
CALL = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, pid, flags; nr, arch, instruction pointer, arguments."""
ANSWER = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, value, error, flags."""
PAGE = 4096
ATTR = struct.Struct("=QQQQ")
"""struct mount_attr: set, clear, propagation, user namespace."""


def read(memory: int, address: int) -> bytes:
    """Read up to the end of the page."""
    return os.pread(memory, PAGE - address % PAGE, address)


def text(memory: int, address: int) -> bytes | None:
    """Read a terminated string; None for address 0."""
    return read(memory, address).split(b"\0", 1)[0] if address else None


def mount(memory: int, args: tuple[int, ...]) -> None:
    """Mount what the arguments say."""
    source, target, fstype, data = (text(memory, args[at]) for at in (0, 1, 2, 4))
    syscalls.mount(source, target or b"", fstype.decode() if fstype else None, args[3], data)


def umount2(memory: int, args: tuple[int, ...]) -> None:
    """Unmount what the arguments say."""
    syscalls.umount2(text(memory, args[0]) or b"", args[1])


def move_mount(memory: int, args: tuple[int, ...]) -> None:
    """Move a mount, with paths that do not begin at a descriptor."""
    source, target = text(memory, args[1]) or b"", text(memory, args[3]) or b""
    at = syscalls.lib.AT_FDCWD
    syscalls.move_mount(at, source, at, target, args[4])


def mount_setattr(memory: int, args: tuple[int, ...]) -> None:
    """Change attributes of a mount, likewise."""
    add, remove, propagation, _ = ATTR.unpack_from(read(memory, args[3]))
    syscalls.mount_setattr(
        syscalls.lib.AT_FDCWD,
        text(memory, args[1]) or b"",
        args[2],
        attr_set=add,
        attr_clr=remove,
        propagation=propagation,
    )


# arch/x86/entry/syscalls/syscall_64.tbl
CALLS: dict[int, Callable[[int, tuple[int, ...]], None]] = {
    165: mount,
    166: umount2,
    429: move_mount,
    442: mount_setattr,
}


def perform(proc: int, tid: int, number: int, args: tuple[int, ...]) -> int:
    """Make the call as the thread would; return 0 or an errno."""
    memory = os.open(f"{tid}/mem", os.O_RDONLY, dir_fd=proc)
    try:
        directory = os.open(f"{tid}/cwd", os.O_PATH, dir_fd=proc)
        try:
            os.fchdir(directory)
        finally:
            os.close(directory)
        CALLS[number](memory, args)
    except OSError as error:
        return error.errno or errno.EPERM
    else:
        return 0
    finally:
        os.close(memory)


def serve(listener: int, proc: int) -> None:
    """Answer calls for ever."""
    call = bytearray(CALL.size)
    while True:
        call[:] = bytes(CALL.size)
        try:
            fcntl.ioctl(listener, RECEIVE, call)
        except FileNotFoundError:
            continue  # the caller has gone, or the program has: main() sees to that
        identity, tid, _, number, _, _, *args = CALL.unpack(call)
        error = perform(proc, tid, number, tuple(args))
        # ENOENT: the caller has gone.
        with contextlib.suppress(FileNotFoundError):
            fcntl.ioctl(listener, SEND, ANSWER.pack(identity, 0, -error, 0))


def main() -> None:
    """Enter the namespaces and serve; ends with the child that makes the calls."""
    listener, pid = int(sys.argv[1]), sys.argv[2]
    # At once: the files that an interpreter reads at its end are in another mount namespace.
    signal.signal(signal.SIGCHLD, lambda *_: os._exit(0))
    fcntl.ioctl(listener, SET_FLAGS, SYNC_WAKE_UP)
    proc = os.open("/proc", os.O_PATH)
    for name in ("user", "mnt"):
        namespace = os.open(f"{pid}/ns/{name}", os.O_RDONLY, dir_fd=proc)
        syscalls.setns(namespace, 0)
        os.close(namespace)
    serve(listener, proc)


if __name__ == "__main__":
    main()
