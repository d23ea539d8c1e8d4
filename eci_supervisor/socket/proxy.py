"""Serves the restricted socket of one container: judge, then pass on.

One thread, one event loop.  Each request gets a connection to the engine of its own, so one that
the engine has closed, by a restart too, is never met.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

import h11
import msgspec

from eci_supervisor.policy import api_target
from eci_supervisor.socket import bodies, engine, heads, queries, refusals
from eci_supervisor.socket.channel import Channel, connect
from eci_supervisor.socket.errors import ClientGoneError, HttpError, MovedError, blocked
from eci_supervisor.socket.exchange import UPGRADES, Exchange, Room, request_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine

    from eci_supervisor.policy.api_routes import Route
    from eci_supervisor.policy.commands import Commands
    from eci_supervisor.socket.channel import Address

HEAD_SECONDS = 10.0
"""From the first byte of a head to its last."""
IDLE_SECONDS = 300.0
"""How long a connection may be kept without a request."""
LINGER_SECONDS = 5.0
"""How long a client may go on to send what nobody will read, so that it can read why."""
CONNECTIONS = 1200
"""At once; the next ones are answered 503."""
TURNED_AWAY = 256
"""How many of these at once; those that follow are closed without a word."""
BODY_BYTES = 1 << 20
"""Of a request whose body is judged."""
BODIES_BYTES = 16 << 20
"""Of all of them at once."""
LARGE_HEAD_BYTES = 16 << 10
LARGE_HEADS = 64
"""How many heads longer than that are read at once; the next one is answered 503."""
MEMORY_BYTES = 256 << 20
"""Of this process, come what may: one request that wants more fails then, and others go on."""
KEEPING = frozenset({301, 403, 404, 502})
"""Of our answers, those after which the connection may be kept: the request was understood."""
OWN_FDS = 64

CREATE = ("POST", "/containers/create")
ARCHIVES = frozenset(
    {
        ("HEAD", "/containers/{*}/archive"),
        ("GET", "/containers/{*}/archive"),
        ("PUT", "/containers/{*}/archive"),
        ("POST", "/containers/{*}/copy"),
    }
)


class Config(msgspec.Struct, frozen=True):
    """What the proxy of one container has to know."""

    container: str
    """The engine's id of the container that the socket is for."""
    upstream: str
    """Path of the engine's socket, in the mount namespace that the proxy runs in."""
    type: str
    """Of the command list: `deny` or `allow`."""
    commands: tuple[str, ...]
    runtime: str | None = None
    """Name that the engine knows the container's runtime by; None: it is asked."""
    log: str | None = None
    """File for refusals."""


class Judged(msgspec.Struct, frozen=True):
    """A request that may be passed on."""

    target: str
    may_upgrade: bool = False
    body: bytes | None = None
    """In place of the client's."""


class Proxy:
    """The proxy of one container.  Borrows the listening socket."""

    def __init__(self, config: Config, commands: Commands, upstream: Address) -> None:
        """Prepare to serve, before the engine at `upstream`, which stays the caller's."""
        self.config = config
        self.upstream = upstream
        self.commands = commands
        self.runtime = config.runtime
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.room = max(1, min(CONNECTIONS, (soft - OWN_FDS - TURNED_AWAY) // 3))
        self.clients: set[asyncio.Task[None]] = set()
        self.bodies = Room(BODY_BYTES, BODIES_BYTES)
        self.large_heads = 0
        self.turned_away: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled; then no connection is left."""
        listener.setblocking(False)  # noqa: FBT003
        try:
            await self._accept(listener)
        finally:
            tasks = self.clients | self.turned_away
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(0.1)  # out of descriptors or memory for now
                continue
            channel = Channel(connection)
            if len(self.clients) < self.room:
                self._keep(self.clients, self._client(channel))
            elif len(self.turned_away) < TURNED_AWAY:
                self._keep(self.turned_away, self._turn_away(channel))
            else:
                channel.close()

    @staticmethod
    def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _turn_away(self, client: Channel) -> None:
        """Say that there is no room."""
        message = f"this socket serves {self.room} connections at once, and has that many"
        try:
            await client.send(HttpError(HTTPStatus.SERVICE_UNAVAILABLE, message).raw())
            await _linger(client)
        except OSError:
            pass  # it has gone already
        finally:
            client.close()

    # -- a connection ---------------------------------------------------------------------

    async def _client(self, client: Channel) -> None:
        try:
            while await self._one(client):
                pass
        except (OSError, ClientGoneError):
            pass  # it has gone; nobody is there to be told
        finally:
            client.close()

    async def _one(self, client: Channel) -> bool:
        """Serve one request; whether another may follow on the connection."""
        served = h11.Connection(h11.SERVER, max_incomplete_event_size=heads.HEAD_BYTES)
        method = b""
        try:
            head = await self._head(client)
            if head is None:
                return False
            event = heads.parse(served, head)
            method = event.method
            judged = await self._judge(client, served, event)
            return await self._pass_on(client, served, event, judged)
        except HttpError as error:
            return await self._refuse(client, served, method, error)

    async def _head(self, client: Channel) -> bytes | None:
        """Read a whole head; None: the client has no more to ask."""
        data = client.pending
        if not data:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    data += await client.receive_new()
            except TimeoutError:
                return None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                return await self._rest_of_head(client)
        except TimeoutError as error:
            raise HttpError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the head of the request took longer than {HEAD_SECONDS:.0f} s",
            ) from error

    async def _rest_of_head(self, client: Channel) -> bytes | None:
        data = client.pending
        seen = 0
        is_large = False
        try:
            while True:
                while data[:2] == b"\r\n":
                    del data[:2]  # after a body, RFC 9112, 2.2
                    seen = 0
                length = heads.find_end(data, seen)
                if length:
                    head = bytes(data[:length])
                    del data[:length]
                    return head
                seen = len(data)
                if seen > LARGE_HEAD_BYTES and not is_large:
                    if self.large_heads >= LARGE_HEADS:
                        raise HttpError(
                            HTTPStatus.SERVICE_UNAVAILABLE, "too many requests with a long head"
                        )
                    self.large_heads += 1
                    is_large = True
                more = await client.receive_new()
                if not more and not data:
                    return None
                if not more:
                    raise HttpError(HTTPStatus.BAD_REQUEST, "the request ends in its head")
                data += more
        finally:
            self.large_heads -= is_large

    async def _refuse(
        self, client: Channel, served: h11.Connection, method: bytes, error: HttpError
    ) -> bool:
        """Answer a request with an error of ours; whether another may follow."""
        may_keep = error.status in KEEPING and served.our_state is h11.SEND_RESPONSE
        if may_keep and _is_whole(client, served):
            answer = h11.Response(status_code=error.status, headers=error.headers())
            await client.send(served.send(answer))
            if method != b"HEAD":
                await client.send(served.send(h11.Data(data=error.body())))
            await client.send(served.send(h11.EndOfMessage()))
            return _may_go_on(served)
        await client.send(error.raw())
        await _linger(client)
        return False

    # -- judging --------------------------------------------------------------------------

    def _note(self, event: h11.Request, target: str, command: str, error: HttpError) -> HttpError:
        refusals.report(
            refusals.Refusal(
                container=self.config.container,
                method=event.method.decode("ascii"),
                target=target,
                command=command,
                status=int(error.status),
                message=error.message,
            )
        )
        return error

    async def _judge(self, client: Channel, served: h11.Connection, event: h11.Request) -> Judged:
        """Return what to send on.  HttpError: nothing."""
        method = event.method.decode("ascii")
        try:
            target = api_target.parse(event.target)
        except api_target.TargetError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        text = str(target)
        kind = heads.header(event.headers, b"content-type").decode("latin-1")
        found = api_target.route_of(method, target)
        if api_target.is_libpod(target.path):
            raise self._note(event, text, "unknown", blocked(text))
        if found is None:
            verdict = self.commands.judge_unknown(method, target.path)
        else:
            verdict = self.commands.judge(
                found[0], api_target.commands_of(found[0], target.query, kind)
            )
        if not verdict.allowed:
            raise self._note(event, text, verdict.command, blocked(text))
        if not target.is_clean:
            raise MovedError(text)
        if found is None:
            return Judged(target=target.sent)
        try:
            queries.judge(found[0], target.query, kind)
            return await self._judge_deeply(client, served, found, target.sent)
        except bodies.BodyError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except bodies.BodyRefusedError as error:
            raise self._note(event, text, verdict.command, blocked(text, str(error))) from error

    async def _judge_deeply(
        self, client: Channel, served: h11.Connection, found: tuple[Route, str], target: str
    ) -> Judged:
        """Judge what the command list does not: bodies, and what the engine itself would open."""
        route, name = found
        key = (route.method, route.path)
        if key == CREATE:
            body = await self.bodies.read_body(client, served)
            made = bodies.judge_new_container(body, await self._runtime())
            for one in made.volumes:
                if await self._options_of(one):
                    raise bodies.BodyRefusedError(
                        f"the volume {one} has driver options, which can name any file of the host"
                    )
            return Judged(target=target, body=made.body)
        if key in bodies.PLAIN:
            body = await self.bodies.read_body(client, served)
            return Judged(target=target, body=bodies.PLAIN[key](body))
        if key in ARCHIVES:
            return Judged(target=await self._archive(name, target))
        return Judged(target=target, may_upgrade=key in UPGRADES)

    async def _runtime(self) -> str:
        """Return the name that the engine knows this container's runtime by."""
        if self.runtime is None:
            self.runtime = await engine.runtime(self.upstream, self.config.container)
        return self.runtime

    async def _options_of(self, volume: str) -> object:
        known = await engine.volume(self.upstream, volume)
        return None if known is None else known.get("Options")

    async def _archive(self, name: str, target: str) -> str:
        """Return the target with the container's id in place of `name`.  BodyRefusedError."""
        known = await engine.container(self.upstream, name)
        if known is None or not isinstance(known.get("Id"), str):
            raise HttpError(HTTPStatus.NOT_FOUND, f"No such container: {name}")
        mounts = known.get("Mounts")
        options = {}
        for mount in mounts if isinstance(mounts, list) else []:
            if isinstance(mount, dict) and mount.get("Type") == "volume" and mount.get("Name"):
                options[mount["Name"]] = await self._options_of(mount["Name"])
        source = bodies.host_mount(known, options.__getitem__)
        if source is not None:
            raise bodies.BodyRefusedError(
                f"the container has {source} of the host mounted, which the engine itself would "
                "open; copy by docker exec, or without that mount"
            )
        # A name can be given to another container meanwhile, an id cannot.
        path, mark, query = target.partition("?")
        before, _, rest = path.partition("/containers/")
        last = rest.rpartition("/")[2]
        return f"{before}/containers/{quote(str(known['Id']), safe='')}/{last}{mark}{query}"

    # -- passing on -----------------------------------------------------------------------

    async def _pass_on(
        self, client: Channel, served: h11.Connection, event: h11.Request, judged: Judged
    ) -> bool:
        """Have the engine answer; whether another request may follow."""
        try:
            upstream = await connect(self.upstream)
        except (OSError, TimeoutError) as error:
            raise HttpError(
                HTTPStatus.BAD_GATEWAY, f"the engine cannot be reached: {error}"
            ) from error
        exchange = Exchange(client, served, upstream, may_upgrade=judged.may_upgrade)
        head = request_of(
            event,
            judged.target,
            may_upgrade=judged.may_upgrade,
            length=None if judged.body is None else len(judged.body),
        )
        try:
            await exchange.run(head, judged.body)
        except HttpError as error:
            if exchange.answering:
                return False
            return await self._refuse(client, served, event.method, error)
        finally:
            upstream.close()
        if exchange.joined:
            return False
        if served.their_state is not h11.DONE:
            # The engine has answered without reading all: the client may still be sending.
            await _linger(client)
            return False
        return _may_go_on(served)


def _may_go_on(served: h11.Connection) -> bool:
    """Whether both sides are done with a request and neither wants the connection to end."""
    return served.our_state is h11.DONE and served.their_state is h11.DONE


def _is_whole(client: Channel, served: h11.Connection) -> bool:
    """Whether the request has been read to its end, or ends where its head does.

    If not, its body would have to be read to find the next request.
    """
    if served.their_state is h11.SEND_BODY:
        try:
            if not isinstance(served.next_event(), h11.EndOfMessage):
                return False
        except h11.RemoteProtocolError:
            return False
        client.pending[:0] = served.trailing_data[0]
    return served.their_state is not h11.ERROR


async def _linger(client: Channel) -> None:
    """Say that no more will come, and let a client that is still sending find out.

    To close at once would take the answer away from one that sends before it reads.
    """
    client.end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while await client.receive():
                pass


def set_limits() -> None:
    """Let this process have the descriptors that it needs, and no more memory than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS * 3 + OWN_FDS + TURNED_AWAY
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
