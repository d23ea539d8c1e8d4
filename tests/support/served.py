"""A restricted socket served in this process, before an engine that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from eci_supervisor.policy.commands import Commands
from eci_supervisor.socket.proxy import Config, Proxy
from tests.support.restricted import Clients

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Engine:
    """A listening socket whose every connection is handled by `play`, in a thread of its own.

    `play` gets the connection, and the head of the request if there is one.
    """

    def __init__(self, path: Path, play: Callable[[socket.socket, bytes], None]) -> None:
        """Listen on `path`, which does not exist."""
        self.play = play
        self.heads: list[bytes] = []
        """Of the requests that came."""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4096)
        self.path = path
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)
                if not byte:
                    return
                head += byte
            self.heads.append(head)
            self.play(connection, head)

    def close(self) -> None:
        """Stop listening, and wait until everybody has been served."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self.listener.close()
        self.path.unlink()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "the engine still waits for a client"


def answer_ok(connection: socket.socket, _: bytes) -> None:
    """Play an engine that answers everything alike."""
    connection.sendall(OK)


class Served(Clients):
    """A proxy that runs in a thread of this process."""

    def __init__(
        self, place: Path, play: Callable[[socket.socket, bytes], None] = answer_ok
    ) -> None:
        """Prepare; `place` is an empty directory with a short path."""
        super().__init__(str(place / "r"))
        self.engine = Engine(place / "e", play)
        self.kind = "deny"
        self.commands: tuple[str, ...] = ("push",)

    def __enter__(self) -> Self:
        """Serve."""
        config = Config(
            container="c" * 64,
            upstream=str(self.engine.path),
            type=self.kind,
            commands=self.commands,
            runtime="eci",
        )
        self.proxy = Proxy(config, Commands(self.kind, self.commands))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(4096)

        ready = threading.Event()

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            self._serving = asyncio.create_task(self.proxy.serve(listener))
            ready.set()
            await asyncio.gather(self._serving, return_exceptions=True)

        def serve() -> None:
            with listener:
                asyncio.run(run())

        self._thread = threading.Thread(target=serve)
        self._thread.start()
        ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        """End the proxy, then the engine."""
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.engine.close()
