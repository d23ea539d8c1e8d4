"""The keeper at rest: the same process, as a program without an interpreter (csrc/keeper.c).

What the keeper knows goes into a memfd, its descriptors are inherited, and execve(2) changes
neither its pid, nor its children, nor its locks.  `resume` is how it comes back, and by then
another version may be installed.  So what crosses has a number, FORMAT:

- what the memfd holds (`Knowledge`, with all that is in it) and the words of eci-keeper,
- the ring with its events (csrc/api.h) and the file of the worker's counts (kernel/watch.py),
- the worker's messages (csrc/worker.c).

A field with a default may be added under the same number; everything else gets a new one.  The file
`formats` has the numbers that this version reads.  A keeper whose number is not there keeps its
container without an interpreter until the end (csrc/keeper.c).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NoReturn

import msgspec

from eci_supervisor.kernel.table import InodeRule  # noqa: TC001 - msgspec asks for it
from eci_supervisor.observe.limit import Limit
from eci_supervisor.runtime import cleanup, state
from eci_supervisor.runtime.state import FORMAT, bin_path, start_path
from eci_supervisor.supervisor.charge import Charge  # noqa: TC001 - msgspec asks for it

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = bin_path("eci-keeper")
_CLEANUP = 6
"""Which of csrc/keeper.c's words is the descriptor of eci-cleanup, if its name does not count."""
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
    recorded: bool = True
    """The runtime has the container on record."""
    trace: int | None = None
    second: int = -1
    """A pidfd of the second (csrc/second.c), or -1; what it knows itself does not say so."""

    def waits_for(self) -> list[int]:
        """Return what wakes it."""
        return [fd for fd in self.polled() if fd >= 0]

    def polled(self) -> tuple[int, ...]:
        """Return the same in csrc/keeper.c's order, with -1 for what there is not."""
        return (
            self.ring_event,
            self.init_pidfd,
            self.worker_control,
            self.runtime_pidfd if self.runtime_runs else -1,
            self.hook,
            -1 if self.notify is None else self.notify,
            self.second,
        )

    def fds(self) -> list[int]:
        """Return every descriptor that has to stay open."""
        others = (self.lock, self.runtime_pidfd, self.worker_pidfd, self.ring)
        traced = set() if self.trace is None else {self.trace}
        return sorted({*self.waits_for(), *others, *traced})


class Programs(msgspec.Struct, frozen=True):
    """Descriptors of the programs that a rest executes: those of this very version."""

    keeper: int
    cleanup: int


def pin() -> Programs | None:
    """Open them, so that they outlast an upgrade.  None: they are another version's by now."""
    opened: list[int] = []
    try:
        for path in (PROGRAM, cleanup.PROGRAM):
            opened.append(os.open(path, os.O_PATH | os.O_CLOEXEC))  # noqa: PERF401 - closed if not
        if FORMAT in state.formats():
            return Programs(*opened)
    except OSError:
        pass
    for fd in opened:
        os.close(fd)
    return None


def _words(
    known: Knowledge, memory: int, log: str, programs: Programs, keeper: int = -1
) -> list[str]:
    """Return the words of the waiting program: csrc/keeper.c."""
    charge = known.charge
    words = [PROGRAM, str(memory), str(FORMAT), "0", log, start_path(), state.FORMATS]
    words += [str(programs.cleanup), charge.state_dir, *charge.clearing]
    words += [f"{charge.runtime_root}/{charge.container_id}"]
    return [*words, *map(str, (known.worker_pidfd, known.lock, keeper, *known.polled()))]


def _write_down(known: Knowledge) -> int:
    """Return a memfd, the caller's, with what is known."""
    memory = os.memfd_create("eci-keeper", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(msgspec.json.encode(known))
    return memory


def second(known: Knowledge, log: str, programs: Programs) -> int:
    """Start a process that goes on with what is known as soon as this one is gone.

    Returns a pidfd of it, the caller's.  OSError when it cannot be started.  This process must
    have one thread: for a moment what only the second is to inherit can be inherited.
    """
    memory = _write_down(known)
    keeper = os.pidfd_open(os.getpid())
    inherited = [memory, keeper, programs.cleanup, *known.fds()]
    try:
        _inherit(inherited, inheritable=True)
        words = _words(known, memory, log, programs, keeper)
        program = f"/proc/self/fd/{programs.keeper}"
        return os.pidfd_open(os.posix_spawn(program, words, os.environ))
    finally:
        _inherit(inherited, inheritable=False)
        os.close(keeper)
        os.close(memory)


def become(known: Knowledge, log: str, programs: Programs) -> NoReturn:
    """Rest: this process becomes the waiting program.  OSError when it cannot.

    `log` is the path of the file that gets what is to be said while there is no interpreter.
    """
    memory = _write_down(known)
    inherited = [memory, programs.cleanup, *known.fds()]
    try:
        _inherit(inherited, inheritable=True)
        words = _words(known, memory, log, programs)
        os.execve(programs.keeper, words, os.environ)  # noqa: S606 - there is no shell
    except OSError:
        _inherit(inherited, inheritable=False)
        os.close(memory)
        raise


def recall(words: Sequence[str]) -> Knowledge:
    """Return what `become` or `second` has left for whoever is given the waiting program's `words`.

    The last of them is the pidfd of this process's second, or a negative number.  Nothing is taken
    yet: this process may still become that program again.  ValueError where it is not what this
    version of the program would have put there.
    """
    memory, form, *_, second = words
    if int(form) != FORMAT:
        msg = f"its keeper knows it in format {form}, and this is {FORMAT}"
        raise ValueError(msg)
    known = msgspec.json.decode(os.pread(int(memory), LIMIT, 0), type=Knowledge)
    return msgspec.structs.replace(known, second=max(int(second), -1))


def take(known: Knowledge, words: Sequence[str]) -> None:
    """Take over what was recalled: from here on there is no way back to the waiting program."""
    _inherit(known.fds(), inheritable=False)
    os.close(int(words[0]))
    os.close(int(words[_CLEANUP]))


def listening(fd: int) -> socket.socket:
    """Take up a listening socket; it never blocks."""
    taken = socket.socket(fileno=fd)
    taken.settimeout(0)
    return taken


def _inherit(fds: Sequence[int], *, inheritable: bool) -> None:
    for fd in fds:
        os.set_inheritable(fd, inheritable)
