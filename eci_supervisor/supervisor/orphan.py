"""A process of ours that is nobody's child and holds nothing of the engine's."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def set_name(name: str) -> None:
    """Have this process shown by `name`, of 15 bytes at most (proc_pid_comm(5)).  Never fails."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)


def _let_go(keep: set[int]) -> None:
    """Leave the engine's session and let go of everything inherited but `keep`."""
    os.setsid()
    os.chdir("/")
    # First these: what follows needs a descriptor, and there may be no more.
    os.closerange(0, 3)
    last = max((int(name) for name in os.listdir("/proc/self/fd")), default=2)
    for fd in range(3, last + 1):
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        if fd == null:
            os.set_inheritable(fd, True)  # noqa: FBT003 - it has no name
        else:
            os.dup2(null, fd)


def fork_orphan(keep: set[int], work: Callable[[], None], *, twice: bool = True) -> None:
    """Run `work` in a process that keeps of all fds only `keep`; returns at once.

    Forked twice: crun waits for all children of its own, and one that waits for crun would never
    end.  Once is enough, not `twice`, in a process that becomes no runtime and ignores SIGCHLD.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if twice and os.fork() != 0:
                os._exit(0)
            _let_go(keep)
            work()
            status = 0
        finally:
            os._exit(status)
    if twice:
        os.waitpid(child, 0)
