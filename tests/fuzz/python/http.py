"""Requests to the restricted socket: what is judged is what is sent on, to a second parser too."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import h11

from eci_supervisor.policy import api_target
from eci_supervisor.policy.api_target import TargetError
from eci_supervisor.socket import exchange, heads, queries
from eci_supervisor.socket.bodies import BodyRefusedError
from eci_supervisor.socket.errors import HttpError

if TYPE_CHECKING:
    from collections.abc import Iterable

Head = tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]


def _second(head: bytes) -> Head:
    """Read a head as RFC 9112 has it, in the plainest way: method, target, version, headers."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, version = first.split(b" ")
    assert not any(byte < 0x20 and byte != 0x09 for line in lines for byte in line)
    pairs = [line.partition(b":") for line in lines]
    assert all(
        colon and re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) for name, colon, _ in pairs
    )
    return (
        method,
        target,
        version,
        [(name.lower(), value.strip(b" \t")) for name, _, value in pairs],
    )


def _lengths(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What says where the body ends."""
    names = (b"content-length", b"transfer-encoding")
    return [(name, value) for name, value in headers if name in names]


def _find(data: bytes) -> bytes | None:
    """Cut the head off as it arrives, a byte more each time, and in one piece: the same."""
    try:
        whole = heads.find_end(bytearray(data), 0)
    except HttpError:
        return None
    seen = 0
    step = max(1, len(data) // 8)
    for size in range(0, len(data) + step, step):
        length = heads.find_end(bytearray(data[:size]), seen)
        if length:
            assert length == whole
            break
        seen = min(size, len(data))
    return data[:whole] if whole else None


def _compared(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return what both have to say alike: h11 writes these two anew, the one in lower case."""
    return [
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in headers
        if name != b"content-length"
    ]


def one(data: bytes) -> None:
    """Take a request's head, judge it, and read what would be sent on."""
    head = _find(data)
    if head is None:
        return
    served = h11.Connection(h11.SERVER, max_incomplete_event_size=heads.HEAD_BYTES)
    try:
        event = heads.parse(served, head)
    except HttpError as error:
        assert error.raw().count(b"\r\n\r\n") == 1  # noqa: PT017 - not what is tested for
        return
    method, target, version, headers = _second(head)
    assert (event.method, event.target, b"HTTP/" + event.http_version) == (method, target, version)
    assert _compared(event.headers) == _compared(headers)
    try:
        judged = api_target.parse(event.target)
    except TargetError:
        return
    text = judged.sent
    again = api_target.parse(text.encode("ascii"))
    assert again.path == judged.path
    assert again.is_clean
    assert "/" not in again.query
    assert api_target.values_of(again.query, "t") == api_target.values_of(judged.query, "t")
    assert unquote_to_bytes(text.partition("?")[0]).decode() == judged.path
    content_type = heads.header(event.headers, b"content-type").decode("latin-1")
    found = api_target.route_of(event.method.decode(), judged)
    if found is not None:
        assert api_target.commands_of(found[0], judged.query, content_type) <= found[0].commands
        with contextlib.suppress(BodyRefusedError):
            queries.judge(found[0], judged.query, content_type)
    for length in (None, 7):
        _check_sent(event, text, headers, length)


def _check_sent(
    event: h11.Request, target: str, headers: list[tuple[bytes, bytes]], length: int | None
) -> None:
    """One host, one length, and nothing about the client's own connection."""
    request = exchange.request_of(event, target, may_upgrade=False, length=length)
    sent = h11.Connection(h11.CLIENT).send(request)
    assert sent is not None
    method, path, _, names = _second(sent)
    assert (method, path) == (event.method, target.encode())
    assert [value for name, value in names if name == b"host"] == [b"docker"]
    assert [value for name, value in names if name == b"connection"] == [b"close"]
    assert not {b"upgrade", b"te", b"trailer", b"keep-alive"} & {name for name, _ in names}
    if length is not None:
        assert _lengths(names) == [(b"content-length", b"7")]
    else:
        assert len(_lengths(names)) == len(set(_lengths(headers)))
