"""Small questions to the engine, asked before a request is passed on."""

from __future__ import annotations

import json
from urllib.parse import quote

import h11

from eci_supervisor.socket.channel import connect
from eci_supervisor.socket.errors import HttpError

ANSWER_BYTES = 16 << 20
NOT_FOUND = 404
OK = 200


async def ask(path: str, target: str) -> dict[str, object] | None:
    """Return the engine's answer to GET `target` on the Unix socket `path`; None: 404.

    HttpError 502: it gave none that can be read.
    """
    try:
        status, body = await _get(path, target)
        if status == NOT_FOUND:
            return None
        found = json.loads(body) if status == OK else None
    except (OSError, TimeoutError, ValueError, h11.RemoteProtocolError) as error:
        raise HttpError(502, f"the engine cannot be asked about this request: {error}") from error
    if not isinstance(found, dict):
        raise HttpError(502, f"the engine cannot be asked about this request: HTTP {status}")
    return found


async def _get(path: str, target: str) -> tuple[int, bytes]:
    upstream = await connect(path)
    try:
        asked = h11.Connection(h11.CLIENT)
        headers = [("Host", "docker"), ("Connection", "close")]
        await upstream.send(asked.send(h11.Request(method="GET", target=target, headers=headers)))
        await upstream.send(asked.send(h11.EndOfMessage()))
        status, body = 0, b""
        while True:
            event = asked.next_event()
            if event is h11.NEED_DATA:
                asked.receive_data(await upstream.receive())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
                if len(body) > ANSWER_BYTES:
                    raise ValueError("its answer is too long")
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif isinstance(event, h11.ConnectionClosed):
                raise ValueError("it closed the connection")
    finally:
        upstream.close()


async def container(path: str, name: str) -> dict[str, object] | None:
    """Return what the engine says of a container; None: there is none."""
    return await ask(path, f"/containers/{quote(name, safe='')}/json")


async def volume(path: str, name: str) -> dict[str, object] | None:
    """Return what the engine says of a volume; None: there is none."""
    return await ask(path, f"/volumes/{quote(name, safe='')}")
