"""An image registry in memory, as far as engines need it to push and pull.

OCI distribution-spec, "Endpoints".  It listens on the loopback of a network namespace.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib

if TYPE_CHECKING:
    from collections.abc import Iterator


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        """Give a blob or a manifest."""
        found = re.fullmatch(r"/v2/(.*)/(blobs|manifests)/(.*)", self.path)
        if found is None:
            self._answer(200, b"{}", Docker_Distribution_API_Version="registry/2.0")
            return
        name, kind, reference = found.groups()
        digest = self.server.tags.get((name, reference), reference)
        data = self.server.blobs.get(digest)
        if data is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}
            self._answer(404, json.dumps(error).encode(), Content_Type="application/json")
            return
        is_manifest = kind == "manifests"
        media = json.loads(data)["mediaType"] if is_manifest else "application/octet-stream"
        self._answer(200, data, Content_Type=media, Docker_Content_Digest=digest)

    def do_HEAD(self) -> None:
        """Tell of one."""
        self.do_GET()

    def do_POST(self) -> None:
        """Begin an upload."""
        self._body()
        name = str(uuid.uuid4())
        self.server.uploads[name] = b""
        location = f"{self.path.partition('?')[0]}{name}"
        self._answer(202, Location=location, Docker_Upload_UUID=name, Range="0-0")

    def do_PATCH(self) -> None:
        """Take a part of an upload."""
        name = self.path.rpartition("/")[2]
        self.server.uploads[name] += self._body()
        end = len(self.server.uploads[name]) - 1
        self._answer(202, Location=self.path, Docker_Upload_UUID=name, Range=f"0-{end}")

    def do_PUT(self) -> None:
        """Take a manifest, or the end of an upload."""
        body = self._body()
        path = self.path.partition("?")[0]
        found = re.fullmatch(r"/v2/(.*)/manifests/(.*)", path)
        if found is None:
            body = self.server.uploads.pop(path.rpartition("/")[2]) + body
        else:
            self.server.tags[found[1], found[2]] = _digest(body)
        digest = _digest(body)
        self.server.blobs[digest] = body
        self._answer(201, Location=path, Docker_Content_Digest=digest)


class Registry(ThreadingHTTPServer):
    """Blobs and manifests by digest, tags by name."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port of the loopback."""
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.uploads: dict[str, bytes] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def name(self) -> str:
        """Return what names of its images begin with."""
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def registry_in(network: str) -> Iterator[Registry]:
    """Serve a registry in the network namespace at the path `network` for the block."""
    made: list[Registry] = []

    def serve() -> None:
        fd = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(fd, lib.CLONE_NEWNET)  # of this thread alone
        os.close(fd)
        made.append(Registry())
        ready.set()
        made[0].serve_forever(poll_interval=0.01)

    ready = threading.Event()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    if not ready.wait(10):
        raise TimeoutError("the registry did not start")
    try:
        yield made[0]
    finally:
        made[0].shutdown()
        thread.join()
        made[0].server_close()
