"""A process that has the Python half in memory, and is forked where a container is to be made.

Starting the interpreter and importing what a create needs takes longer than all that it does.  So
the first create leaves a copy of itself behind, which serves those that follow: the launcher
(csrc/fork_client.c) asks it, a child prepares the container and sends back what the launcher is to
become.  The child is forked in advance and answers itself; the server forks the next one then.
With nobody asking for SECONDS it ends.

A child has everything but words, environment, working directory and stderr from the server.  So
the server serves only who is like itself in all that is inherited: namespaces, root, cgroups,
credentials, limits.  Everybody else starts an interpreter, as where there is no server, and so do
all once a file of the package has changed.

Its socket lies under the state root, in a directory of root's alone, and has the name of the
mount namespace and of the version, so that two versions side by side have a server each.  Who asks
is known by a pidfd (SO_PEERPIDFD, unix(7), Linux 6.5), not by words.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

import eci_supervisor
from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime.successor import Launcher
from eci_supervisor.supervisor.intake import check_peer
from eci_supervisor.supervisor.orphan import fork_orphan, set_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.runtime.successor import Successor

DIRECTORY = "fork"
"""In the state root."""
SECONDS = 60.0
"""How long it waits for somebody to ask."""
PATIENCE = 5.0
"""Seconds for a request to arrive that was begun."""
SWITCH = "ECI_FORK_SERVER"
"""Environment; 0: this create leaves no server behind."""
_MONITOR = "conmon"
"""Podman and CRI-O give each container's monitor a cgroup, whose end a server would put off."""
_SO_PEERPIDFD = 77
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_STATUS = (
    "Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
    "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "Mems_allowed",
)  # fmt: skip

Likeness = tuple[object, ...]
Code = tuple[tuple[str, int, int], ...]


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def likeness(pid: int) -> Likeness:
    """Return what a child of process `pid` (in our PID namespace) would inherit and keep.

    OSError when it is gone.
    """
    proc = f"/proc/{pid}"
    status = dict(line.split(":", 1) for line in _text(f"{proc}/status").splitlines())
    root = os.stat(f"{proc}/root")
    try:
        label = _text(f"{proc}/attr/current")
    except OSError:
        label = ""  # no security module that has one
    return (
        *(os.readlink(f"{proc}/ns/{name}") for name in _NAMESPACES),
        *(status.get(name) for name in _STATUS),
        *(_text(f"{proc}/{name}") for name in ("cgroup", "limits", "oom_score_adj")),
        label,
        (root.st_dev, root.st_ino),
        os.getpriority(os.PRIO_PROCESS, pid),
    )


def _code() -> Code:
    """Return which files of the package are in memory, and when they were changed."""
    package = __name__.partition(".")[0]
    names = [name for name in sys.modules if name.partition(".")[0] == package]
    files = [getattr(sys.modules[name], "__file__", None) for name in names]
    stats = [(file, os.stat(file)) for file in files if file]
    return tuple((file, stat.st_ino, stat.st_mtime_ns) for file, stat in stats)


def _is_current(code: Code) -> bool:
    try:
        return code == _code()
    except OSError:
        return False


def _is_at_root() -> bool:
    """Say whether our root is that of the mount namespace, where setns(2) takes a launcher."""
    before = os.stat("/")
    with open("/proc/self/ns/mnt", "rb") as ns:
        syscalls.setns(ns.fileno(), lib.CLONE_NEWNS)
    after = os.stat("/")
    return (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)


def offer(state_root: str, serve_one: Callable[[list[str], Successor], int]) -> None:
    """Leave a server behind, if there is none; nothing fails here.

    `serve_one` is given a launcher's words and what becomes the runtime; it returns an exit code
    where that became nothing.
    """
    if os.environ.get(SWITCH) == "0" or _MONITOR in _text("/proc/self/cgroup"):
        return
    place = os.stat("/proc/self/ns/mnt").st_ino
    path = f"{state_root}/{DIRECTORY}/{place}-{eci_supervisor.__version__}"
    listener = None
    lock = -1
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.lexists(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(64)
        server = _Server(state_root, path, listener, lock, serve_one)
        fork_orphan({listener.fileno(), lock}, server.run)
    except OSError:
        pass  # there is one, or it cannot be: a create does without
    if listener is not None:
        listener.close()
    if lock >= 0:
        os.close(lock)


class _Server:
    def __init__(
        self,
        state_root: str,
        path: str,
        listener: socket.socket,
        lock: int,
        serve_one: Callable[[list[str], Successor], int],
    ) -> None:
        self.state_root = state_root
        self.path = path
        self.listener = listener
        self.lock = lock
        self.serve_one = serve_one

    def run(self) -> None:
        """Have a child wait for each that asks, until nobody does for a while, or the code changes.

        The child is there before anybody asks, and has copied by then what it shares with us.
        """
        # What children need.
        from eci_supervisor.engines import sockets  # noqa: F401, PLC0415
        from eci_supervisor.runtime import lifecycle, rehearsal  # noqa: F401, PLC0415
        from eci_supervisor.supervisor import standby, view  # noqa: F401, PLC0415

        set_name("eci-fork-server")
        os.ftruncate(self.lock, 0)
        os.write(self.lock, b"%d\n" % os.getpid())
        if not _is_at_root():
            return
        rehearsal.rehearse()
        code, mine = _code(), likeness(os.getpid())
        gc.collect()
        gc.freeze()
        # Nobody waits for a child.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while self._is_taken(self._fork_child(code, mine)):
            pass
        # Who has connected by now finds it closed, and starts an interpreter.
        os.unlink(self.path)

    def _fork_child(self, code: Code, mine: Likeness) -> socket.socket:
        """Fork a child and the keeper for what it will prepare; return what leads to the child."""
        from eci_supervisor.supervisor import standby  # noqa: PLC0415 - imported already

        server, child = socket.socketpair()
        ours, theirs = standby.pair()
        if os.fork() == 0:
            server.close()
            theirs.close()
            self._child(child, code, mine, ours)
        child.close()
        ours.close()
        # By us: forked by the child, it would have each page that either writes to copied twice.
        fork_orphan({theirs.fileno()}, lambda: self._keeper(theirs), twice=False)
        theirs.close()
        return server

    @staticmethod
    def _is_taken(child: socket.socket) -> bool:
        """Wait until somebody has asked the child; False if nobody does, or it is gone.

        It sees that we have let go of it, and ends.
        """
        child.settimeout(SECONDS)
        with child, contextlib.suppress(OSError):
            return bool(child.recv(1))
        return False

    def _keeper(self, connection: socket.socket) -> None:
        from eci_supervisor.supervisor import standby  # noqa: PLC0415 - imported already

        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        standby.wait(connection, self.state_root)

    def _child(
        self, server: socket.socket, code: Code, mine: Likeness, keeper: socket.socket
    ) -> NoReturn:
        from eci_supervisor.supervisor import standby  # noqa: PLC0415 - imported already

        status = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self.lock)
            set_name("eci-standby")
            with contextlib.suppress(OSError):  # without the memory it is slower
                syscalls.own_pages()
            connection = self._asked(server, code)
            self.listener.close()
            server.close()
            if connection is not None:
                status = self._serve(connection, mine, keeper)
            standby.dismiss(keeper)
        finally:
            os._exit(status)

    def _asked(self, server: socket.socket, code: Code) -> socket.socket | None:
        """Wait for a launcher, and have the server fork the next child; None if there is none."""
        waiting = select.poll()
        waiting.register(self.listener, select.POLLIN)
        waiting.register(server, select.POLLIN)
        if server.fileno() in dict(waiting.poll()):
            return None
        connection, _ = self.listener.accept()
        if not _is_current(code):
            return None
        server.send(b"T")
        set_name("eci-prepare")
        return connection

    def _serve(self, connection: socket.socket, mine: Likeness, keeper: socket.socket) -> int:
        connection.settimeout(PATIENCE)
        pid = check_peer(connection)
        words = _take_request(connection, pid, mine)
        if words is None:
            return 1
        connection.sendall(b"A")
        status = self.serve_one(words, Launcher(pid, connection, keeper))
        connection.sendall(b"E")
        return status


def _take_request(connection: socket.socket, pid: int, mine: Likeness) -> list[str] | None:
    """Put this process in the place of `pid`, who asks; return its words, or None if it cannot."""
    pidfd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
    # A stream: the two words may come in parts, though they never do.
    if data.count(b"\0") != 2:  # noqa: PLR2004 - two words
        return None
    try:
        if likeness(pid) != mine:
            return None
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            _, *words = file.read().split(b"\0")[:-1]
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = dict(
                entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry[1:]
            )
        os.chdir(f"/proc/{pid}/cwd")
    except (OSError, ValueError):
        return None
    # All of that was its, unless it has ended and another has its number.
    if select.select([pidfd], [], [], 0)[0]:
        return None
    os.close(pidfd)
    os.environ.clear()
    os.environb.update(environment)
    if fds:
        os.dup2(fds[0], 2)
        os.close(fds[0])
    runtime, binary = data.split(b"\0")[:-1]
    return [os.fsdecode(word) for word in (runtime, binary, *words)]
