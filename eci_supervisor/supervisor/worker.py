"""The C worker of one container, as its supervisor handles it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from eci_supervisor.runtime.state import bin_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eci_supervisor.kernel.ring import Ring

PROGRAM = bin_path("eci-worker")
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
    """A started worker, our child.  Owns the control socket and the pidfd."""

    def __init__(self, pid: int, pidfd: int, control: socket.socket) -> None:
        """Take up a worker that runs."""
        self.pid = pid
        """The worker's process id, in our PID namespace."""
        self.pidfd = pidfd
        self._control = control
        self._control.settimeout(READY_SECONDS)

    @classmethod
    def start(cls, ring: Ring, errors: int, watched: int) -> Worker:
        """Start one, which waits for its container: `enter`.

        `errors` is an fd that gets its standard error, `watched` one of its file
        (kernel/watch.py).  OSError where it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fds = (theirs.fileno(), ring.fd, ring.event_fd, watched)
            process = subprocess.Popen(
                [PROGRAM, *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env={},
            )
        finally:
            theirs.close()
        # From here on the pidfd stands for it, which outlives an execve(2) of ours.
        return cls(process.pid, os.pidfd_open(process.pid), ours)

    def enter(self, pid: int, cover: Sequence[bytes]) -> None:
        """Send it into the namespaces of `pid` (host's number), and wait until it stands there.

        Then /proc and /sys are covered as `cover` says.  WorkerError in the worker's words.
        """
        self._hand(b"E%d" % pid, "eci-cover", b"".join(part + b"\0" for part in cover) or b"\0")
        self._expect_ready()

    @property
    def control(self) -> int:
        """The control socket's descriptor."""
        return self._control.fileno()

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
        self._hand(b"P", "eci-policy", policy)
        self._expect_ready()

    def _hand(self, message: bytes, name: str, content: bytes) -> None:
        """Send a message and a nameless file."""
        fd = _memfd(name, content)
        try:
            socket.send_fds(self._control, [message], [fd])
        except OSError as error:
            raise WorkerError(f"the worker does not listen: {error.strerror}") from error
        finally:
            os.close(fd)

    def serve(self, listener: int) -> None:
        """Give it one more listener; the caller still owns its copy of the fd."""
        socket.send_fds(self._control, [b"L"], [listener])

    def finish(self, seconds: float) -> bool:
        """Say that no listener will come; True if the worker then ends in time."""
        self._control.close()
        readable, _, _ = select.select([self.pidfd], [], [], seconds)
        if readable:
            self._reap()
        return bool(readable)

    def stop(self) -> None:
        """End it at once: calls of the container are denied from here on."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
