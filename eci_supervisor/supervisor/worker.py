"""The C worker of one container, as its supervisor handles it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from eci_supervisor.runtime.state import bin_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eci_supervisor.kernel.ring import Ring
    from eci_supervisor.supervisor.memory import Room

PROGRAM = bin_path("eci-worker")
READY_SECONDS = 10
HELD = b"held"


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
    def start(cls, ring: Ring, errors: int, watched: int, room: Room) -> Worker:
        """Start one, which waits for its container: `enter`.

        `errors` is an fd that gets its standard error, `watched` one of its file
        (kernel/watch.py), `room` what its mounts may take.  OSError where it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fds = (theirs.fileno(), ring.fd, ring.event_fd, watched, room.usage, room.reclaim)
            process = subprocess.Popen(
                [PROGRAM, *map(str, fds), str(room.most)],
                pass_fds=[fd for fd in fds if fd >= 0],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env={},
            )
        finally:
            theirs.close()
        # From here on the pidfd stands for it, which outlives an execve(2) of ours.
        worker = cls(process.pid, os.pidfd_open(process.pid), ours)
        try:
            room.take_in(worker.pid)
        except OSError:
            worker.stop()
            raise
        return worker

    def enter(self, pid: int, cover: Sequence[bytes], meanwhile: Callable[[], None]) -> None:
        """Send it into the namespaces of `pid` (host's number), and wait until it stands there.

        Then /proc and /sys are covered as `cover` says.  `meanwhile` is called while it is on its
        way; the worker is ended where that fails.  WorkerError in the worker's words.
        """
        self._hand(b"E%d" % pid, "eci-cover", b"".join(part + b"\0" for part in cover) or b"\0")
        try:
            meanwhile()
        except BaseException:
            self.stop()
            raise
        self._expect_ready()

    @property
    def control(self) -> int:
        """The control socket's descriptor: readable at the worker's end, or for `hear`."""
        return self._control.fileno()

    def hear(self) -> bytes:
        """Take what it has to say; nothing at its end.

        It is two processes (csrc/worker.c): HELD says that the one that we started was killed, and
        that the other one has made itself a new one.
        """
        try:
            said = self._control.recv(4096)
        except OSError:
            return b""
        if said == HELD:
            self._reap()
        return said

    def _expect_ready(self) -> None:
        while (answer := self.hear()) == HELD:
            pass
        if answer != b"ready":
            self.stop()
            raise WorkerError(answer.decode(errors="replace") or "the worker does not answer")

    def decide_by(self, policy: bytes) -> None:
        """Give it the policy, once; WorkerError if it cannot be completed in the container."""
        self._hand(b"P", "eci-policy", policy)
        self._expect_ready()

    def has_policy(self) -> bool:
        """Ask whether it has been given one; False as well where it does not answer."""
        try:
            self._hand(b"Q", "eci-nothing", b"")
        except WorkerError:
            return False
        while (said := self.hear()) == HELD:
            pass
        return said == b"ready"

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

    def ending(self) -> str:
        """Say how it has ended.  It stays to be reaped."""
        found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return "it has not"
        if found.si_code == os.CLD_EXITED:
            return f"exit code {found.si_status}"
        if found.si_status == signal.SIGSYS:
            return "killed by its own filter, as it made a system call that it has no use for"
        return f"killed by signal {found.si_status}"

    def finish(self, seconds: float) -> bool:
        """Say that no listener will come; True if the worker then ends in time."""
        self._shut(socket.SHUT_WR)
        deadline = time.monotonic() + seconds
        while select.select([self._control], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not self.hear():
                self._control.close()
                self._reap()
                return True
        return False

    def stop(self) -> None:
        """End it at once: calls of the container are denied from here on."""
        # The other process ends where it finds both the socket shut and this one gone.
        self._shut(socket.SHUT_RDWR)
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._reap()

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._control.shutdown(how)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
