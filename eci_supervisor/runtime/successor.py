"""Which process becomes the runtime, and how it does.

It keeps its pid, stdio, signals and exit code, so that the engine sees nothing but the runtime it
called.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, NoReturn, Protocol

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib

if TYPE_CHECKING:
    from eci_supervisor.supervisor.standby import Giver


class Successor(Protocol):
    """The process that becomes the runtime."""

    pid: int
    """In our PID namespace."""

    def stand_by(self, state_root: str) -> Giver:
        """Have a keeper stand by; what is returned gives it its charge: supervisor/standby.py."""

    def become(
        self, binary: str, argv: list[str], *, held: int | None = None, network: int | None = None
    ) -> NoReturn:
        """Make it `binary`, in our mount namespace and with the filter of csrc/guard.h.

        `held`: a descriptor that stays open until then; `network`: one of the network namespace
        that it goes to before.  OSError when it cannot, or is gone.
        """


class Self:
    """This process itself."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def stand_by(self, state_root: str) -> Giver:
        """See Successor; it is forked now."""
        # Heavy, and not wanted before all has been found in order.
        from eci_supervisor.supervisor import standby  # noqa: PLC0415

        return standby.stand_by(state_root)

    def become(
        self, binary: str, argv: list[str], *, held: int | None = None, network: int | None = None
    ) -> NoReturn:
        """See Successor; execve(2) closes `held`."""
        del held
        if network is not None:
            syscalls.setns(network, lib.CLONE_NEWNET)
        syscalls.install_guard()
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            # Python ignores these, and an ignored signal would reach the container.
            signal.signal(ignored, signal.SIG_DFL)
        os.execv(binary, argv)  # noqa: S606 - there is no shell, and the words are the engine's


class Launcher:
    """The launcher that has asked the fork server: csrc/fork_client.c."""

    def __init__(self, pid: int, connection: socket.socket, keeper: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._keeper = keeper

    def stand_by(self, state_root: str) -> Giver:
        """See Successor; the server has forked it."""
        from eci_supervisor.supervisor import standby  # noqa: PLC0415

        return standby.giver(self._keeper, state_root)

    def become(
        self, binary: str, argv: list[str], *, held: int | None = None, network: int | None = None
    ) -> NoReturn:
        """See Successor; the launcher knows `binary` and has the filter, too."""
        del binary
        ours = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        fds = [fd for fd in (ours, held, network) if fd is not None]
        socket.send_fds(self._connection, [b"G" if network is None else b"N"], fds)
        self._connection.sendall(b"".join(os.fsencode(word) + b"\0" for word in argv))
        # The launcher reads to the end, and to take down an interpreter's memory is slow.
        self._connection.close()
        os._exit(0)
