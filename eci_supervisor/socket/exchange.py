"""One request and its answer, between a client and the engine.

Both directions run at once, and each byte goes on as it comes: an answer may come before the
request has ended, a build sends gigabytes, and `logs -f` never ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import h11

from eci_supervisor.socket import heads
from eci_supervisor.socket.channel import Channel, join
from eci_supervisor.socket.errors import ClientGoneError, HttpError

if TYPE_CHECKING:
    from collections.abc import Sequence

UPGRADES = frozenset(
    {
        ("POST", "/containers/{*}/attach"),
        ("GET", "/containers/{*}/attach/ws"),
        ("POST", "/exec/{*}/start"),
        ("POST", "/session"),
        ("POST", "/grpc"),
    }
)
"""Routes whose connection the engine may take over (hijack); no other is let to ask for it."""
AHEAD = 4096
"""Bytes of a client's next requests that are taken before its turn, to see whether it is there."""
SWITCHING_PROTOCOLS = 101
OK = 200
_HEADS = (h11.InformationalResponse, h11.Response)


class Exchange:
    """A request that was judged, on its way.  Borrows both channels."""

    def __init__(
        self, client: Channel, served: h11.Connection, upstream: Channel, *, may_upgrade: bool
    ) -> None:
        """Make it of a client whose request's head `served` has read, and a fresh upstream."""
        self.client = client
        self.served = served
        self.upstream = upstream
        self.asked = h11.Connection(h11.CLIENT, max_incomplete_event_size=heads.HEAD_BYTES)
        self.may_upgrade = may_upgrade
        self.answering = False
        """Whether the client has got the beginning of the final answer."""
        self.joined = False
        """Whether it has become a connection without HTTP."""

    async def run(self, head: h11.Request, body: bytes | None) -> None:
        """Send the request on, with its own body or `body`, and bring the answer back.

        HttpError: neither could be done, and no answer has begun.  ClientGoneError: nobody is
        there to answer to.  OSError: broken off in the midst of the answer.
        """
        await self._ask(head)
        up = asyncio.create_task(self._upload(body))
        down = asyncio.create_task(self._download())
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if not down.done() and up.exception() is None:
                await asyncio.wait((down,))
            elif not down.done():
                up.result()  # raises
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        tunnel = down.result()
        if tunnel is not None:
            self.joined = True
            self.upstream.pending[:0] = tunnel
            await join(self.client, self.upstream)

    # -- towards the engine ---------------------------------------------------------------

    async def _ask(self, event: h11.Event) -> bool:
        """Send a part of the request; False: the engine wants no more, and its answer says why."""
        try:
            await self.upstream.send(self.asked.send(event))
        except OSError:
            return False
        return True

    async def _upload(self, body: bytes | None) -> None:
        if body is None:
            await self._send_body()
        elif await self._ask(h11.Data(data=body)):
            await self._ask(h11.EndOfMessage())
        await self._watch()

    async def _send_body(self) -> None:
        while True:
            event = await _next_of_body(self.client, self.served)
            if isinstance(event, h11.EndOfMessage):
                self.client.pending[:0] = self.served.trailing_data[0]
                await self._ask(h11.EndOfMessage())  # trailers mean nothing to the engine
                return
            if not await self._ask(event):
                return

    async def _watch(self) -> None:
        """Take what the client sends before its answer has come; pass its end on."""
        while len(self.client.pending) < AHEAD:
            try:
                data = await self.client.receive_new(AHEAD)
            except OSError as error:
                raise ClientGoneError from error
            if not data:
                self.upstream.end()
                return
            self.client.pending += data

    # -- towards the client ---------------------------------------------------------------

    async def _download(self) -> bytes | None:
        """Bring the answer; what the engine sent after it if the connection is now its own."""
        while True:
            try:
                event = self.asked.next_event()
                if event is h11.NEED_DATA:
                    self.asked.receive_data(await self.upstream.receive())
                    continue
            except (h11.RemoteProtocolError, OSError) as error:
                if self.answering:
                    raise OSError("the engine broke off its answer") from error
                raise HttpError(502, f"the engine gave no answer: {error}") from error
            if isinstance(event, _HEADS) and self._is_raw(event):
                return await self._switch(event)
            if isinstance(event, h11.Response):
                self.answering = True
                await self._answer(
                    h11.Response(
                        status_code=event.status_code,
                        headers=heads.end_to_end(event.headers),
                        reason=event.reason,
                    )
                )
            elif isinstance(event, (h11.InformationalResponse, h11.Data)):
                await self._answer(event)
            elif isinstance(event, h11.EndOfMessage):
                await self._answer(event)
                return None
            else:
                raise OSError("the engine closed its connection")

    async def _answer(self, event: h11.Event) -> None:
        try:
            data = self.served.send(event)
        except h11.LocalProtocolError as error:
            raise OSError(f"the answer cannot be passed on: {error}") from error
        try:
            await self.client.send(data)
        except OSError as error:
            raise ClientGoneError from error

    def _is_raw(self, head: h11.InformationalResponse | h11.Response) -> bool:
        """Whether the connection is no longer HTTP after `head`.

        An old client does not ask for it, and gets a 200 from the engine in place of the 101.  Only
        then does an answer to HTTP/1.1 say nothing about its length.
        """
        if head.status_code == SWITCHING_PROTOCOLS:
            return True
        names = {name for name, _ in head.headers}
        return (
            self.may_upgrade
            and head.status_code == OK
            and not names & {b"content-length", b"transfer-encoding"}
        )

    async def _switch(self, event: h11.InformationalResponse | h11.Response) -> bytes:
        if not self.may_upgrade:
            raise HttpError(502, "the engine switched protocols, which nobody asked for")
        self.answering = True
        lines = [b"HTTP/1.1 %d %s" % (event.status_code, event.reason)]
        lines += [b"%s: %s" % pair for pair in event.headers.raw_items()]
        try:
            await self.client.send(b"\r\n".join([*lines, b"", b""]))
        except OSError as error:
            raise ClientGoneError from error
        if isinstance(event, h11.Response):
            # Without a length, h11 takes all that follows for the body.
            data = b""
            while isinstance(more := self.asked.next_event(), h11.Data):
                data += bytes(more.data)
            return data
        return self.asked.trailing_data[0]


def request_of(
    event: h11.Request,
    target: str,
    *,
    may_upgrade: bool,
    length: int | None,
) -> h11.Request:
    """Return the head to send on: the judged `target`, no headers about the client's connection.

    `length`: of a body of our own; None: the client's is passed on as it is framed.
    """
    headers: Sequence[tuple[bytes, bytes]] = [
        (name, value)
        for name, value in heads.end_to_end(event.headers)
        if name.lower() != b"host"
        and (length is None or name.lower() not in (b"content-length", b"expect"))
    ]
    upgrade = heads.header(event.headers, b"upgrade")
    words = heads.header(event.headers, b"connection").lower()
    own = [(b"Host", b"docker")]
    if may_upgrade and upgrade and b"upgrade" in words:
        own += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    else:
        own.append((b"Connection", b"close"))
    if length is not None:
        own.append((b"Content-Length", b"%d" % length))
    elif heads.header(event.headers, b"transfer-encoding"):
        own.append((b"Transfer-Encoding", b"chunked"))
    return h11.Request(method=event.method, target=target.encode("ascii"), headers=[*own, *headers])


class Room:
    """Bytes that all judged bodies of one proxy may have together."""

    def __init__(self, each: int, together: int) -> None:
        """Have room for bodies of `each` bytes at most, and of `together` at the same time."""
        self.each = each
        self.left = together

    async def read_body(self, client: Channel, served: h11.Connection) -> bytes:
        """Read the whole body of a request.  HttpError: there is no room, or it is none."""
        body = bytearray()
        try:
            while True:
                await _go_on(client, served)
                event = await _next_of_body(client, served)
                if isinstance(event, h11.EndOfMessage):
                    client.pending[:0] = served.trailing_data[0]
                    return bytes(body)
                body += event.data
                self.left -= len(event.data)
                if len(body) > self.each:
                    raise HttpError(413, f"the body of this request may have {self.each} bytes")
                if self.left < 0:
                    raise HttpError(503, "too many requests with a long body at once")
        finally:
            self.left += len(body)


async def _go_on(client: Channel, served: h11.Connection) -> None:
    """Have the client send its body, where it waits to be told."""
    if served.they_are_waiting_for_100_continue:
        data = served.send(h11.InformationalResponse(status_code=100, headers=[]))
        with contextlib.suppress(OSError):
            await client.send(data)


async def _next_of_body(client: Channel, served: h11.Connection) -> h11.Data | h11.EndOfMessage:
    """Return what comes next of a request's body.  HttpError: it is none.  ClientGoneError."""
    while True:
        try:
            event = served.next_event()
        except h11.RemoteProtocolError as error:
            if client.ended:
                raise ClientGoneError from error
            raise HttpError(error.error_status_hint, f"bad body: {error}") from error
        if isinstance(event, (h11.Data, h11.EndOfMessage)):
            return event
        try:
            served.receive_data(await client.receive())
        except OSError as error:
            raise ClientGoneError from error
