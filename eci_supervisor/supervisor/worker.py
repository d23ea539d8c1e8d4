"""The C worker of one container, as its supervisor handles it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eci_supervisor.kernel.ring import Ring

PROGRAM = Path(__file__).parent.parent / "bin" / "eci-worker"
READY_SECONDS = 10


class WorkerError(Exception):
    """The worker did not start; the text says why."""


class Worker:
    """A started worker.  Owns the control socket."""

    def __init__(self, policy: bytes, ring: Ring, pid: int, errors: int) -> None:
        """Start it and wait until it stands in the namespaces of `pid` (host's number).

        `errors` is an fd that gets its standard error.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        table = os.memfd_create("eci-policy", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(table), "wb") as file:
                file.write(policy)
            fds = (theirs.fileno(), table, ring.fd, ring.event_fd)
            self._process = subprocess.Popen(
                [PROGRAM, *map(str, fds), str(pid)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env={},
            )
        finally:
            theirs.close()
            os.close(table)
        self._control = ours
        self._control.settimeout(READY_SECONDS)
        try:
            answer = self._control.recv(16)
        except OSError:
            answer = b""
        if answer != b"ready":
            self.stop()
            msg = "the worker could not enter the container"
            raise WorkerError(msg)
        self.pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """The worker's process id, in our PID namespace."""
        return self._process.pid

    def serve(self, listener: int) -> None:
        """Give it one more listener; the caller still owns its copy of the fd."""
        socket.send_fds(self._control, [b"L"], [listener])

    def finish(self, seconds: float) -> bool:
        """Say that no listener will come; True if the worker then ends in time."""
        self._control.close()
        readable, _, _ = select.select([self.pidfd], [], [], seconds)
        if readable:
            self._process.wait()
        return bool(readable)

    def stop(self) -> None:
        """End it at once: calls of the container are denied from here on."""
        self._control.close()
        self._process.kill()
        self._process.wait()
