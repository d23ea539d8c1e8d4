"""Heads of requests: read in time and within bounds, and of one meaning only.

h11 parses; what is here refuses what h11, like many, takes in several spellings: lines that end
with a bare LF, folded lines, a body with two lengths.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import h11

from eci_supervisor.socket.errors import HttpError

HEAD_BYTES = 128 << 10
"""Of a request: credentials of many registries are one header (X-Registry-Config)."""
END = b"\r\n\r\n"
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_FOLDED = re.compile(rb"\r\n[ \t]")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def find_end(data: bytearray, seen: int) -> int:
    """Return the length of the head at the beginning of `data`, or 0 while it is not all there.

    `seen` bytes have been looked at before.  HttpError: it is no head, or too long.
    """
    start = max(0, seen - len(END) + 1)
    at = data.find(END, start)
    stop = len(data) if at < 0 else at + len(END)
    if at < 0 and data.endswith(b"\r"):
        stop -= 1  # its LF may be on its way
    if _BARE.search(data, max(0, start - 1), stop):
        raise HttpError(HTTPStatus.BAD_REQUEST, "a line of the request's head ends without CR LF")
    if (len(data) if at < 0 else at) > HEAD_BYTES:
        raise HttpError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the head of the request is longer than {HEAD_BYTES} bytes",
        )
    return 0 if at < 0 else at + len(END)


def parse(connection: h11.Connection, head: bytes) -> h11.Request:
    """Return the request of a whole head.  HttpError: it is none, or means two things."""
    if _FOLDED.search(head):
        raise HttpError(HTTPStatus.BAD_REQUEST, "a header of the request is folded")
    if _CONTROL.search(head):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the head of the request has a control character")
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise HttpError(error.error_status_hint, f"not a request: {error}") from error
    if not isinstance(event, h11.Request):
        raise HttpError(HTTPStatus.BAD_REQUEST, "not a request")
    if event.http_version not in (b"1.0", b"1.1"):
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 is spoken here")
    names = [name for name, _ in event.headers]
    chunked = b"transfer-encoding" in names
    if chunked and (b"content-length" in names or event.http_version == b"1.0"):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body of the request has two lengths")
    return event


def header(headers: h11._headers.Headers, name: bytes) -> bytes:
    """Return the values of a header, joined; `name` in lower case."""
    return b", ".join(value for key, value in headers if key == name)


_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade "
    b"http2-settings".split()
)


def end_to_end(headers: h11._headers.Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers that are not about one connection alone (RFC 9110, 7.6.1)."""
    listed = {word.strip().lower() for word in header(headers, b"connection").split(b",")}
    # What says where the body ends is not to be taken off by a client's word.
    listed -= {b"content-length", b"host"}
    gone = _HOP_BY_HOP | listed
    return [(raw, value) for raw, value in headers.raw_items() if raw.lower() not in gone]
