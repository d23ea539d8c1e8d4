"""The C worker of one container, as its supervisor handles it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eci_supervisor.kernel.ring import Ring

PROGRAM = Path(__file__).parent.parent / "bin" / "eci-worker"
READY_SECONDS = 10


class WorkerError(Exception):
    """The worker did not start; the text says why."""


def _memfd(name: str, content: bytes) -> int:
    """Return an fd, the caller's, of a nameless file."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    return fd


class Worker:
    """A started worker.  Owns the control socket."""

    def __init__(self, cover: Sequence[bytes], ring: Ring, pid: int, errors: int) -> None:
        """Start it and wait until it stands in the namespaces of `pid` (host's number).

        Then /proc and /sys are covered as `cover` says.  `errors` is an fd that gets its standard
        error.  WorkerError in the worker's words.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        records = _memfd("eci-cover", b"".join(record + b"\0" for record in cover) or b"\0")
        try:
            fds = (theirs.fileno(), records, ring.fd, ring.event_fd)
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
            os.close(records)
        self._control = ours
        self._control.settimeout(READY_SECONDS)
        self._expect_ready()
        self.pidfd = os.pidfd_open(self._process.pid)

    def _expect_ready(self) -> None:
        try:
            answer = self._control.recv(4096)
        except OSError:
            answer = b""
        if answer != b"ready":
            self.stop()
            raise WorkerError(answer.decode(errors="replace") or "the worker does not answer")

    def decide_by(self, policy: bytes) -> None:
        """Give it the policy, once; WorkerError if it cannot be completed in the container."""
        table = _memfd("eci-policy", policy)
        try:
            socket.send_fds(self._control, [b"P"], [table])
        finally:
            os.close(table)
        self._expect_ready()

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
