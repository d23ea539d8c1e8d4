"""Small questions to the engine, asked before a request is passed on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import h11

from eci_supervisor.socket.channel import connect
from eci_supervisor.socket.errors import HttpError

if TYPE_CHECKING:
    from eci_supervisor.socket.channel import Address

ANSWER_BYTES = 16 << 20
NOT_FOUND = 404
OK = 200
PODMAN = "oci"
"""What podman calls the runtime of every container."""


async def ask(address: Address, target: str) -> dict[str, object] | None:
    """Return the engine's answer to GET `target`; None: 404.

    HttpError 502: it gave none that can be read.
    """
    try:
        status, body = await _get(address, target)
        if status == NOT_FOUND:
            return None
        found = json.loads(body) if status == OK else None
    except (OSError, TimeoutError, ValueError, h11.RemoteProtocolError) as error:
        raise HttpError(502, f"the engine cannot be asked about this request: {error}") from error
    if not isinstance(found, dict):
        raise HttpError(502, f"the engine cannot be asked about this request: HTTP {status}")
    return found


async def _get(address: Address, target: str) -> tuple[int, bytes]:
    upstream = await connect(address)
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


async def container(address: Address, name: str) -> dict[str, object] | None:
    """Return what the engine says of a container; None: there is none."""
    return await ask(address, f"/containers/{quote(name, safe='')}/json")


async def volume(address: Address, name: str) -> dict[str, object] | None:
    """Return what the engine says of a volume; None: there is none."""
    return await ask(address, f"/volumes/{quote(name, safe='')}")


async def runtime(address: Address, container_id: str) -> str:
    """Return the name that the engine knows the runtime of a container by, which is one of ours.

    It runs by it, or it would have no restricted socket.

    HttpError 502: the engine does not say, or is podman, which calls every runtime `oci` and takes
    its default one whatever a request names.
    """
    known = await container(address, container_id)
    host = known.get("HostConfig") if known else None
    name = host.get("Runtime") if isinstance(host, dict) else None
    if not isinstance(name, str) or not name:
        raise HttpError(
            502,
            "the engine does not say by which runtime this container runs, so no other can be "
            "protected alike",
        )
    if name == PODMAN:
        raise HttpError(502, "the engine is podman, whose API cannot be restricted to commands")
    return name
