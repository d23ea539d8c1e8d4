"""The keeper before there is something to keep.

It is forked before the wrapper takes anything.  Until it gets its charge it is what clears up if
the wrapper is killed; from then on it is the keeper.
"""

from __future__ import annotations

import functools
import os
import socket
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.runtime import cleanup, state
from eci_supervisor.supervisor import keeper, rest
from eci_supervisor.supervisor.charge import Charge
from eci_supervisor.supervisor.orphan import fork_orphan

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_FDS = 6


def stand_by(state_root: str, *, adopted: bool) -> Callable[[Charge, keeper.Held], None]:
    """Fork a keeper; call what is returned to give it its charge, and all that was opened for it.

    If this process ends without that, the keeper removes the state of all containers that are gone,
    the half-made one among them.  `adopted`: this process ends soon, and nobody waits for what it
    has forked.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def work() -> None:
        received = _receive(theirs)
        theirs.close()
        if received is None:
            store = state.open_store(state_root)
            with store.locked():
                cleanup.collect(store, state_root)
            return
        charge, held = received
        kept = keeper.Keeper(charge, held, functools.partial(cleanup.clean, nonce=charge.nonce))
        kept.get_ready()
        keeper.keep(kept)

    fork_orphan({theirs.fileno()}, work, twice=not adopted)
    theirs.close()
    return functools.partial(_give, ours)


def _give(connection: socket.socket, charge: Charge, held: keeper.Held) -> None:
    """Hand everything over; what was opened belongs to the keeper then.  OSError if it is gone."""
    words = b"".join(
        name for name, file in ((b"n", held.notify), (b"t", held.trace)) if file is not None
    )
    with open(os.memfd_create("eci-charge", os.MFD_CLOEXEC), "w+b") as memory:
        memory.write(msgspec.json.encode(charge))
        memory.flush()
        files = (memory, held.hook, held.notify, held.trace)
        fds = [file.fileno() for file in files if file is not None]
        socket.send_fds(connection, [b"K" + words], [held.lock, held.runtime_pidfd, *fds])
    held.close()
    connection.close()


def _receive(connection: socket.socket) -> tuple[Charge, keeper.Held] | None:
    """Take the charge; None where none comes any more."""
    words, fds, _, _ = socket.recv_fds(connection, 16, _MOST_FDS)
    if not words:
        return None
    lock, runtime_pidfd, memory, *fds = fds
    with open(memory, "rb") as file:
        file.seek(0)
        charge = msgspec.json.decode(file.read(), type=Charge)
    hook = rest.listening(fds.pop(0))
    notify = rest.listening(fds.pop(0)) if b"n" in words else None
    trace = os.fdopen(fds.pop(0), "w", buffering=1) if b"t" in words else None
    return charge, keeper.Held(
        hook=hook, notify=notify, runtime_pidfd=runtime_pidfd, lock=lock, trace=trace
    )
