"""Answers of our own."""

from __future__ import annotations

import json
from http import HTTPStatus


class HttpError(Exception):
    """A request ends with this answer; `message` is for the client."""

    def __init__(self, status: int, message: str) -> None:
        """Make it from an HTTP status and one line of text."""
        super().__init__(message)
        self.status = status
        self.message = message

    def body(self) -> bytes:
        """Return the body of the answer, as the engine writes its own."""
        return json.dumps({"message": self.message}).encode() + b"\n"

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of the answer."""
        return [("Content-Type", "application/json"), ("Content-Length", str(len(self.body())))]

    def raw(self) -> bytes:
        """Return the whole answer, one that ends the connection."""
        phrases = {int(status): status.phrase for status in HTTPStatus}
        lines = [f"HTTP/1.1 {int(self.status)} {phrases.get(int(self.status), 'Error')}"]
        lines += [f"{name}: {value}" for name, value in self.headers()]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + self.body()


class MovedError(HttpError):
    """The path was not clean: the engine answers 301, and so do we."""

    def __init__(self, location: str) -> None:
        """Send the client to `location`, in ASCII."""
        super().__init__(HTTPStatus.MOVED_PERMANENTLY, "the path of the request is not clean")
        self.location = location

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of the answer."""
        return [*super().headers(), ("Location", self.location)]


class ClientGoneError(Exception):
    """The client has closed its connection, or broken it, in the midst of a request."""


def blocked(target: str, why: str = "") -> HttpError:
    """Return the refusal of a request; without `why`, it is the command list's."""
    start = f'enhanced container isolation: docker command "{target}" is blocked'
    if why:
        return HttpError(HTTPStatus.FORBIDDEN, f"{start}: {why}")
    return HttpError(
        HTTPStatus.FORBIDDEN,
        f"{start}; if you wish to allow it, configure the docker socket command list in the "
        "admin-settings.",
    )
