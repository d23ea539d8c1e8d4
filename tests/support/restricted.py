"""A restricted engine socket, as an allowed container would have it, and clients of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from eci_supervisor.policy.settings import CommandList
from eci_supervisor.socket import launch
from tests.support.docker import DOCKER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place

ANSWER_SECONDS = 30.0


class Answer(NamedTuple):
    """One answer of an HTTP server."""

    status: int
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def message(self) -> str:
        """Of an error."""
        return str(json.loads(self.body)["message"])


class Clients:
    """Clients of one socket."""

    def __init__(self, path: str) -> None:
        """Of the Unix socket `path`."""
        self.path = path

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """Connect to it."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_SECONDS)
            client.connect(self.path)
            yield client

    def send(self, data: bytes, method: str = "GET") -> Answer:
        """Send bytes on a new connection, and read one answer, to a request of `method`."""
        with self.connect() as client:
            client.sendall(data)
            return Reader(client).answer(method)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Make one request and read its answer."""
        return self.send(request(method, target, body, headers), method)


class Restricted(Clients):
    """A restricted socket and its proxy, which ends with `close`."""

    def __init__(
        self,
        place: Place,
        upstream: Path,
        kind: str = "deny",
        commands: tuple[str, ...] = (),
        *,
        container: str = "c" * 64,
        runtime: str | None = "eci",
    ) -> None:
        """Start one in a new state directory below `place`."""
        self.state_dir = place.directory("k")
        path = launch.start(
            str(self.state_dir),
            str(upstream),
            CommandList(type=kind, commands=commands),
            container=container,
            uid=0,
            gid=0,
            runtime=runtime,
        )
        super().__init__(path)
        self.client = place.directory("client")

    def close(self) -> None:
        """End the proxy and remove its state."""
        launch.stop(str(self.state_dir))
        shutil.rmtree(self.state_dir)

    @property
    def pid(self) -> int:
        """The proxy's."""
        return int((self.state_dir / "socket/lock").read_text())

    def refusals(self) -> list[dict[str, Any]]:
        """What it has noted."""
        log = self.state_dir / "socket/refusals.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def docker(
        self,
        *words: str,
        stdin: str = "",
        environment: dict[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker client on it."""
        return subprocess.run(
            [DOCKER, *words],
            env=os.environ
            | {"DOCKER_HOST": f"unix://{self.path}", "DOCKER_BUILDKIT": "0"}
            | {"DOCKER_CONFIG": str(self.client)}
            | (environment or {}),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=check,
        )


def request(
    method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: docker"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Reader:
    """Reads answers one after another from a connection, by their lengths."""

    def __init__(self, client: socket.socket) -> None:
        """Read from `client`, which stays the caller's."""
        self.client = client
        self.data = b""

    def _more(self) -> None:
        more = self.client.recv(65536)
        if not more:
            raise EOFError(f"the connection ended after {self.data!r}")
        self.data += more

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to and with `mark`."""
        while mark not in self.data:
            self._more()
        found, _, self.data = self.data.partition(mark)
        return found + mark

    def exactly(self, count: int) -> bytes:
        """Return `count` bytes."""
        while len(self.data) < count:
            self._more()
        found, self.data = self.data[:count], self.data[count:]
        return found

    def rest(self) -> bytes:
        """Return all that comes until the end."""
        while more := self.client.recv(65536):
            self.data += more
        found, self.data = self.data, b""
        return found

    def head(self) -> Answer:
        """Return an answer without its body."""
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3})(?: .*)?", first)
        assert match, first
        pairs = [line.partition(":")[::2] for line in lines if line]
        headers = {name.lower(): value.strip() for name, value in pairs}
        return Answer(int(match[1]), headers, b"")

    def chunk(self) -> bytes:
        """Return the next chunk of a chunked body; b"": the last."""
        size = int(self.until(b"\r\n").split(b";")[0], 16)
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def answer(self, method: str = "GET") -> Answer:
        """Return the next final answer."""
        head = self.head()
        while head.status < 200:
            head = self.head()
        body = b""
        if method == "HEAD" or head.status in (204, 304):
            pass
        elif head.headers.get("transfer-encoding") == "chunked":
            while chunk := self.chunk():
                body += chunk
        elif "content-length" in head.headers:
            body = self.exactly(int(head.headers["content-length"]))
        else:
            body = self.rest()
        return head._replace(body=body)
