"""Starts the proxy of one container, and ends it.

    STATE/socket/engine.sock   what is mounted into the container
    STATE/socket/lock          held (flock) by the proxy; it ends when the file has no name any more
    STATE/socket/config.json   what the proxy has to know (proxy.Config)
    STATE/socket/refusals.log  what it did not pass on, JSON lines

The directory is root's alone: who has not got the socket mounted does not reach it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
from typing import TYPE_CHECKING

import eci_supervisor
from eci_supervisor.supervisor.orphan import fork_orphan

if TYPE_CHECKING:
    from eci_supervisor.policy.settings import CommandList

DIRECTORY = "socket"
SOCKET = "engine.sock"
LOCK = "lock"
CONFIG = "config.json"
LOG = "refusals.log"
BACKLOG = 4096


def start(
    state_dir: str,
    upstream: str,
    commands: CommandList,
    *,
    container: str,
    uid: int,
    gid: int,
    runtime: str | None = None,
    mode: int = 0o660,
) -> str:
    """Serve a restricted socket for one container; returns its path, ready to be mounted.

    To be called in the engine's mount namespace, in which the proxy stays, and before the state
    directory is handed to the container's runtime.  Requests that come before the proxy is up wait.
    It runs as a process of its own until `state_dir` is removed, or `stop` is called.

    `state_dir`: the container's, which exists.  `upstream`: absolute path of the engine's socket;
    it is connected to for each request, so that it may come and go with the engine.
    `container`: the engine's id of it.  `uid`, `gid`, of the host: the owner of the socket file.
    `runtime`: the name that the engine knows the container's runtime by; what is created through
    the socket runs by the same.  None: the engine is asked, once, when the first is created.

    OSError: it could not be started, and nothing is left.  CommandError: a bad command list.
    """
    # Not wanted by the containers that have no socket, nearly all.
    import msgspec  # noqa: PLC0415

    from eci_supervisor.policy.commands import Commands  # noqa: PLC0415

    Commands.of(commands)  # whether it can be understood is said here, where somebody reads it
    place = f"{state_dir}/{DIRECTORY}"
    os.mkdir(place, 0o700)
    try:
        config = {
            "container": container,
            "upstream": upstream,
            "type": commands.type,
            "commands": commands.commands,
            "runtime": runtime,
            "log": f"{place}/{LOG}",
        }
        with open(os.open(f"{place}/{CONFIG}", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(msgspec.json.encode(config))
        lock = os.open(f"{place}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with _listen(place, uid, gid, mode) as listener:
                kept = {lock, listener.fileno()}
                fork_orphan(kept, lambda: _become(place, listener.fileno(), lock))
        finally:
            os.close(lock)
    except BaseException:
        shutil.rmtree(place)
        raise
    return f"{place}/{SOCKET}"


def _listen(place: str, uid: int, gid: int, mode: int) -> socket.socket:
    """Make the socket; its path may be longer than the 108 bytes of an address (unix(7))."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        os.chmod(f"{place}/{SOCKET}", mode)
        os.chown(f"{place}/{SOCKET}", uid, gid)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def _become(place: str, listener: int, lock: int) -> None:
    """Turn this orphan into the proxy: an interpreter with nothing of the wrapper's in it."""
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    for fd in (listener, lock):
        os.set_inheritable(fd, True)  # noqa: FBT003
    start_path = f"{eci_supervisor.__path__[0]}/start.py"
    words = [sys.executable, "-I", "-S", start_path, "proxy", place, str(listener), str(lock)]
    os.execv(sys.executable, words)  # noqa: S606 - no shell is wanted


def stop(state_dir: str) -> None:
    """End the proxy of a container, if there is one, and wait for its end.

    For who cannot wait until the removal of `state_dir` is seen, a second at most.
    """
    try:
        lock = os.open(f"{state_dir}/{DIRECTORY}/{LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        pidfd = os.pidfd_open(int(os.pread(lock, 32, 0)))
        try:
            # Held: so the number in it is still the holder's, whom the descriptor stands for.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            os.close(pidfd)
    except (ProcessLookupError, ValueError):
        return  # it has ended, or was never up
    finally:
        os.close(lock)
