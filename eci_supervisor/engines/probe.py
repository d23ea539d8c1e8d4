"""Who listens at a socket, by connecting to it: for a socket that no engine holds itself.

Somebody may listen there who passes all on to an engine: socat, ssh -L, a virtual machine's
agent.  That shows in what they were started with, or in that the Engine API answers.  Nothing
is asked of an engine but `/_ping`, which takes no lock.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from eci_supervisor.engines import holders

SECONDS = 0.25
"""How long a listener may take to answer."""
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
FORWARDERS = frozenset(
    {"nc", "ncat", "nc.openbsd", "socat", "socat1", "ssh", "systemd-socket-proxyd"}
)
"""Programs that pass on what they are told to in their command line."""
_PODMANS = b"\r\nlibpod-api-version:"
_HEADERS = (b"\r\napi-version:", _PODMANS, b"\r\ndocker-experimental:")
_LIMIT = 16384
_CREDENTIALS = struct.Struct("=iII")


def leads_to_engine(fd: int, paths: set[bytes]) -> str:
    """Return why the socket file behind the O_PATH descriptor `fd` counts as an engine's, or "".

    `paths`: of the sockets of engines.  A socket that nobody listens at, or of another kind than
    a stream, is no engine's.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect(f"/proc/self/fd/{fd}")
            size = _CREDENTIALS.size
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid, _, _ = _CREDENTIALS.unpack(data)
            program, words = holders.command(pid)
            if program in FORWARDERS and any(path in word for word in words for path in paths):
                return program
            connection.sendall(PING)
            head = _head(connection)
        except OSError:
            return ""
    if _PODMANS in head:
        return "podman"
    return "an Engine API" if any(name in head for name in _HEADERS) else ""


def is_dockers(fd: int) -> bool:
    """Whether it is Docker that answers at the socket file behind the O_PATH descriptor `fd`.

    Podman speaks the same API, and says so in a header.  True as well where nobody listens.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect(f"/proc/self/fd/{fd}")
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        try:
            connection.sendall(PING)
            head = _head(connection)
        except OSError:
            return False
    is_whole = head.endswith(b"\r\n\r\n")
    return is_whole and _PODMANS not in head and any(name in head for name in _HEADERS)


def _head(connection: socket.socket) -> bytes:
    """Return what comes of the head of an HTTP answer, with its end, in lower case; or nothing."""
    deadline = time.monotonic() + SECONDS
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _LIMIT:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connection.settimeout(left)
        chunk = connection.recv(_LIMIT)
        answer += chunk
        if not chunk or not b"HTTP/1.".startswith(answer[:7]):
            break
    head = b"".join(answer.partition(b"\r\n\r\n")[:2]).lower()
    return head if head.startswith(b"http/1.") else b""
