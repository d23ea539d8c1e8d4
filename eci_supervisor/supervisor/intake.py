"""What arrives on the listener socket: one process state and one seccomp listener each.

The message is the OCI runtime specification's ContainerProcessState (config-linux.md,
"The Container Process State").  It has no frame, and the sender may keep the connection open
(runc does, until it ends): a message is whole when it is a whole JSON text.  The fds come
with the first sendmsg.
"""

from __future__ import annotations

import os
import socket
import struct

import msgspec

MAX_BYTES = 1 << 20
MAX_FDS = 4
FD = struct.Struct("i")
SECCOMP_FD = "seccompFd"


class ContainerState(msgspec.Struct):
    """The part of the OCI state that we look at."""

    id: str
    pid: int = 0


class ProcessState(msgspec.Struct):
    """ContainerProcessState."""

    state: ContainerState
    fds: list[str]
    pid: int
    metadata: str = ""


class IntakeError(Exception):
    """A connection that is not what it must be; the text says why."""


def hook_state(data: bytes) -> ContainerState:
    """Read the state that a runtime gives its hooks (runtime.md, "State"); IntakeError."""
    try:
        state = msgspec.json.decode(data, type=ContainerState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntakeError(f"the hook has no container's state: {error}") from error
    if state.pid <= 0:
        raise IntakeError(f"the hook speaks of process {state.pid}")
    return state


def check_peer(connection: socket.socket) -> int:
    """Accept root of the host only; returns its pid.  SO_PEERCRED, ids as the host sees them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", raw)
    if uid != 0:
        msg = f"peer {pid} is uid {uid}, not root"
        raise IntakeError(msg)
    return int(pid)


class Connection(msgspec.Struct):
    """One connection being read.  Owns the socket and every fd that came with it."""

    socket: socket.socket
    data: bytearray = msgspec.field(default_factory=bytearray)
    fds: list[int] = msgspec.field(default_factory=list)

    def feed(self) -> ProcessState | None:
        """Read what is there; returns the message once it is whole."""
        # Not socket.recv_fds: it drops the flags (CPython 3.11).
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(
                65536,
                socket.CMSG_LEN(MAX_FDS * FD.size),
                socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
            )
        except BlockingIOError:
            return None
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = raw[: len(raw) - len(raw) % FD.size]
                self.fds += [fd for (fd,) in FD.iter_unpack(whole)]
        self.data += data
        if flags & socket.MSG_CTRUNC or len(self.fds) > MAX_FDS:
            msg = f"more than {MAX_FDS} fds"
            raise IntakeError(msg)
        if len(self.data) > MAX_BYTES:
            msg = f"more than {MAX_BYTES} bytes"
            raise IntakeError(msg)
        try:
            return msgspec.json.decode(bytes(self.data), type=ProcessState)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if data and not isinstance(error, msgspec.ValidationError):
                return None
            msg = f"not a container process state: {error}"
            raise IntakeError(msg) from error

    def listener(self, state: ProcessState, container_id: str) -> int:
        """Check the message; returns the listener fd, which the caller then owns."""
        if state.state.id != container_id:
            msg = f"it speaks of container {state.state.id!r}"
            raise IntakeError(msg)
        if len(self.fds) != len(state.fds) or state.fds.count(SECCOMP_FD) != 1:
            msg = f"it names the fds {state.fds}, {len(self.fds)} came"
            raise IntakeError(msg)
        return self.fds.pop(state.fds.index(SECCOMP_FD))

    def close(self) -> None:
        """Close the socket and the fds that nobody took."""
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
