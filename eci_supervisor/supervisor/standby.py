"""The keeper before there is something to keep.

It is forked before the wrapper takes anything.  Until it gets its charge it is what clears up if
the wrapper is killed; from then on it is the keeper.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import socket
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import syscalls
from eci_supervisor.runtime import cleanup, state
from eci_supervisor.supervisor import keeper, privileges, rest
from eci_supervisor.supervisor.charge import Charge
from eci_supervisor.supervisor.orphan import fork_orphan, set_name
from eci_supervisor.supervisor.trace_file import TraceFile

if TYPE_CHECKING:
    from collections.abc import Callable

    Giver = Callable[[Charge, keeper.Held], None]

_MOST_FDS = 6
_DISMISSED = b"D"
_DESCRIPTORS = 1024
"""How many the keeper may have at least, whatever the engine left the wrapper: it has to clear up
after a create that failed for want of them.  Where it may not raise that: Keeper._make_room."""


def stand_by(state_root: str) -> Giver:
    """Fork a keeper that is nobody's child; give it its charge by what is returned."""
    return giver(_fork(state_root), state_root)


def _fork(state_root: str) -> socket.socket:
    """Fork a keeper; return what leads to it."""
    ours, theirs = pair()
    fork_orphan({theirs.fileno()}, lambda: wait(theirs, state_root))
    theirs.close()
    return ours


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the wrapper's end and the keeper's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def giver(connection: socket.socket, state_root: str) -> Giver:
    """Return what gives the keeper at the other end its charge, and all that was opened for it.

    The environment goes with it.  Where that keeper is gone, another one is forked for it: by who
    is still where the first one was, in the engine's mount namespace.
    """
    return functools.partial(_give, connection, state_root)


def dismiss(connection: socket.socket) -> None:
    """Tell the keeper that there is nothing to be kept or cleared up; nothing fails here."""
    with contextlib.suppress(OSError):
        connection.send(_DISMISSED)


def wait(connection: socket.socket, state_root: str) -> None:
    """Be the keeper: wait for a charge, and keep it.

    If the wrapper ends without a word, the state of all containers that are gone is removed, the
    half-made one among them.
    """
    set_name("eci-standby")
    _allow_descriptors()
    privileges.give_up()
    syscalls.filter_keeper()
    words, fds, _, _ = socket.recv_fds(connection, 16, _MOST_FDS)
    connection.close()
    if words == _DISMISSED:
        return
    if not words:
        store = state.open_store(state_root)
        with store.locked():
            cleanup.collect(store, state_root)
        return
    charge, held = _take(words, fds)
    kept = keeper.Keeper(charge, held, functools.partial(cleanup.clean, nonce=charge.nonce))
    kept.get_ready()
    keeper.keep(kept)


def _allow_descriptors() -> None:
    """Let this process have enough of them; CAP_SYS_RESOURCE raises the hard limit, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _DESCRIPTORS:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, max(hard, _DESCRIPTORS)))
    except (OSError, ValueError):  # the latter: without the capability
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))


def _give(connection: socket.socket, state_root: str, charge: Charge, held: keeper.Held) -> None:
    """Hand everything over; what was opened belongs to the keeper then."""
    words = b"".join(
        name for name, file in ((b"n", held.notify), (b"t", held.trace)) if file is not None
    )
    with open(os.memfd_create("eci-charge", os.MFD_CLOEXEC), "w+b") as memory:
        words_of_environment = (b"%s=%s" % pair for pair in os.environb.items())
        memory.write(b"\0".join([msgspec.json.encode(charge), *words_of_environment]))
        memory.flush()
        files = (memory, held.hook, held.notify, held.trace)
        fds = [held.lock, held.runtime_pidfd]
        fds += [file.fileno() for file in files if file is not None]
        try:
            socket.send_fds(connection, [b"K" + words], fds)
        except ConnectionError:
            # It was killed, or the fork server before it had forked one.
            connection.close()
            connection = _fork(state_root)
            socket.send_fds(connection, [b"K" + words], fds)
    held.close()
    connection.close()


def _take(words: bytes, fds: list[int]) -> tuple[Charge, keeper.Held]:
    """Take over what `_give` has sent, the environment included."""
    lock, runtime_pidfd, memory, *fds = fds
    with open(memory, "rb") as file:
        file.seek(0)
        text, *environment = file.read().split(b"\0")
    charge = msgspec.json.decode(text, type=Charge)
    os.environ.clear()
    os.environb.update(entry.partition(b"=")[::2] for entry in environment)
    hook = rest.listening(fds.pop(0))
    notify = rest.listening(fds.pop(0)) if b"n" in words else None
    trace = TraceFile.of(charge.trace, fds.pop(0)) if b"t" in words else None
    return charge, keeper.Held(
        hook=hook, notify=notify, runtime_pidfd=runtime_pidfd, lock=lock, trace=trace
    )
