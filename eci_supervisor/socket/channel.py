"""One connection, to a client or to the engine: bytes in both directions, each with its own end."""

from __future__ import annotations

import asyncio
import socket

CHUNK = 32 << 10
"""Bytes read at once; what is on its way through us is never much more."""
CONNECT_SECONDS = 10.0
"""How long the engine may have no room for one more connection."""
PAUSE_SECONDS = 0.01


class Channel:
    """A non-blocking stream socket and what was read from it too early.  Owns the socket."""

    def __init__(self, connection: socket.socket) -> None:
        """Take a connected socket over."""
        connection.setblocking(False)  # noqa: FBT003 - the library's name for it
        self.socket = connection
        self.pending = bytearray()
        """Read already, and to be read again first."""
        self.ended = False
        """Whether the other side has said that no more will come."""

    async def receive(self) -> bytes:
        """Return some bytes; b"": the other side sends no more.  OSError: it is broken."""
        if self.pending:
            data = bytes(self.pending)
            self.pending.clear()
            return data
        return await self.receive_new()

    async def receive_new(self, most: int = CHUNK) -> bytes:
        """As `receive`, but for what is pending; `most` bytes at most."""
        if self.ended:
            return b""
        # Others have their turn, even if there is always something to read.  Nothing is awaited
        # once bytes were taken: who is cancelled (the library's sock_recv, too) would lose them.
        await asyncio.sleep(0)
        while True:
            try:
                data = self.socket.recv(most)
            except BlockingIOError:
                await self._readable()
                continue
            self.ended = not data
            return data

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.socket)

    async def send(self, data: bytes | None) -> None:
        """Send all of it.  OSError: the other side is gone."""
        if data:
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    def end(self) -> None:
        """Say that no more will come; the other direction stays."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it is gone as a whole

    def close(self) -> None:
        """Close both directions."""
        self.socket.close()


async def connect(path: str) -> Channel:
    """Connect to a Unix socket of this mount namespace.  OSError; TimeoutError: nobody accepts."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)  # noqa: FBT003
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            while True:
                try:
                    connection.connect(path)
                except BlockingIOError:
                    # EAGAIN, connect(2): the queue is full, and no event says when it is not.
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    return Channel(connection)
    except BaseException:
        connection.close()
        raise


async def _carry(source: Channel, sink: Channel) -> None:
    try:
        while data := await source.receive():
            await sink.send(data)
    except OSError:
        pass  # one of both is gone; what comes the other way ends by itself
    sink.end()


async def join(one: Channel, other: Channel) -> None:
    """Carry bytes both ways, and each way's end, until both have ended."""
    await asyncio.gather(_carry(one, other), _carry(other, one))
