"""The keeper at rest: the same process, as a program without an interpreter (csrc/keeper.c).

What the keeper knows goes into a memfd, its descriptors are inherited, and execve(2) changes
neither its pid, nor its children, nor its locks.  `resume` is how it comes back.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NoReturn

import msgspec

from eci_supervisor.kernel.table import InodeRule  # noqa: TC001 - msgspec asks for it
from eci_supervisor.observe.limit import Limit
from eci_supervisor.runtime import cleanup
from eci_supervisor.runtime.state import bin_path, start_path
from eci_supervisor.supervisor.charge import Charge  # noqa: TC001 - msgspec asks for it

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = bin_path("eci-keeper")
LIMIT = 16 << 20
"""Bytes; what is known of a container is a few kilobytes."""


class Knowledge(msgspec.Struct, frozen=True):
    """What one keeper has to know; all descriptors are open while it rests, and owned by it."""

    charge: Charge
    hook: int
    notify: int | None
    runtime_pidfd: int
    runtime_runs: bool
    """False where `runtime_pidfd` has said that the runtime's invocation is over."""
    lock: int
    init_pid: int
    init_pidfd: int
    worker_pid: int
    worker_pidfd: int
    worker_control: int
    ring: int
    ring_event: int
    decides: bool
    cover: tuple[bytes, ...]
    protected: tuple[InodeRule, ...]
    room: int
    """Characters that may still go into the log of refusals."""
    cgroups: tuple[str, ...]
    limit: Limit = msgspec.field(default_factory=Limit)
    """Of the audit log."""
    dropped: int = 0
    """How many refusals that the ring has lost have been told."""

    def waits_for(self) -> list[int]:
        """Return what wakes it."""
        return [fd for fd in self.polled() if fd >= 0]

    def polled(self) -> tuple[int, ...]:
        """Return the same in csrc/keeper.c's order, with -1 for what there is not."""
        return (
            self.ring_event,
            self.init_pidfd,
            self.worker_pidfd,
            self.runtime_pidfd if self.runtime_runs else -1,
            self.hook,
            -1 if self.notify is None else self.notify,
        )

    def fds(self) -> list[int]:
        """Return every descriptor that has to stay open."""
        others = (self.lock, self.runtime_pidfd, self.worker_control, self.ring)
        return sorted({*self.waits_for(), *others})


def become(known: Knowledge, log: str) -> NoReturn:
    """Rest: this process becomes the waiting program.  OSError when it cannot.

    `log` is the path of the file that gets what is to be said while there is no interpreter.
    """
    memory = os.memfd_create("eci-keeper", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(msgspec.json.encode(known))
        _inherit([memory, *known.fds()], inheritable=True)
        charge = known.charge
        words = [PROGRAM, str(memory), log, start_path(), cleanup.PROGRAM, charge.state_dir]
        words += [*charge.clearing, f"{charge.runtime_root}/{charge.container_id}"]
        words += map(str, (known.worker_control, known.lock, *known.polled()))
        os.execv(PROGRAM, words)  # noqa: S606 - there is no shell
    except OSError:
        _inherit(known.fds(), inheritable=False)
        os.close(memory)
        raise


def recall(memory: int) -> Knowledge:
    """Take back what `become` has put into `memory`, which is closed.

    msgspec.MsgspecError where that is not what this version of the program would have put there.
    """
    data = os.pread(memory, LIMIT, 0)
    os.close(memory)
    known = msgspec.json.decode(data, type=Knowledge)
    _inherit(known.fds(), inheritable=False)
    return known


def listening(fd: int) -> socket.socket:
    """Take up a listening socket; it never blocks."""
    taken = socket.socket(fileno=fd)
    taken.settimeout(0)
    return taken


def _inherit(fds: Sequence[int], *, inheritable: bool) -> None:
    for fd in fds:
        os.set_inheritable(fd, inheritable)
