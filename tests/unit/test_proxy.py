"""The proxy of a restricted socket, before an engine that the test plays."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.socket import heads, proxy, refusals
from tests.support.restricted import Reader, request
from tests.support.served import OK, Engine, Served, answer_ok
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.place import Place

    Play = Callable[[socket.socket, bytes], None]

PING = request("GET", "/_ping")
PUSH = request("POST", "/v1.43/images/myimage/push?tag=latest")
BLOCKED = (
    'enhanced container isolation: docker command "/v1.43/images/myimage/push?tag=latest" is '
    "blocked; if you wish to allow it, configure the docker socket command list in the "
    "admin-settings."
)


@pytest.fixture
def directory(place: Place) -> Path:
    """An empty directory with a short path."""
    return place.directory("p")


def test_a_denied_command_is_refused_in_the_words_that_users_know(directory: Path) -> None:
    seen: list[refusals.Refusal] = []
    refusals.hooks.append(seen.append)
    try:
        with Served(directory) as served:
            answer = served.send(PUSH, "POST")
            assert answer.status == 403
            assert answer.headers["content-type"] == "application/json"
            assert json.loads(answer.body) == {"message": BLOCKED}
            assert served.engine.heads == []
    finally:
        refusals.hooks.remove(seen.append)
    assert seen == [
        refusals.Refusal(
            container="c" * 64,
            method="POST",
            target="/v1.43/images/myimage/push?tag=latest",
            command="image push",
            status=403,
            message=BLOCKED,
        )
    ]


def test_a_refusal_that_cannot_be_noted_is_one(directory: Path) -> None:
    log = refusals.Log(str(directory / "no-such" / "log"))
    full = refusals.Log("/dev/full")
    refusals.hooks.extend([log, full])
    try:
        with Served(directory) as served:
            assert served.send(PUSH, "POST").status == 403
    finally:
        refusals.hooks.remove(log)
        refusals.hooks.remove(full)


@pytest.mark.parametrize(
    "target",
    [
        "/images/x/push",
        "/v1.24/images/x/push",
        "//images/x/push",
        "/images//x/push",
        "/a/../images/x/push",
        "/images/x/./push",
        "/%69mages/x/%70ush",
        "/images%2Fx%2Fpush",
        "/v1.43%2Fimages/x/push",
        "http://elsewhere/images/x/push",
        "http://elsewhere//images/x/push",
        "/images/a/b/c/push?x=/_ping",
        "/v1.43.0/images/x/push",
        "/v9/images/x/push",
    ],
)
def test_no_spelling_of_a_denied_command_gets_through(directory: Path, target: str) -> None:
    with Served(directory) as served:
        assert served.ask("POST", target).status == 403
        assert served.engine.heads == []


def test_what_is_sent_on_is_written_anew(directory: Path) -> None:
    with Served(directory) as served:
        text = (
            "GET http://elsewhere/v1.41/%69nfo?a=%20 HTTP/1.1\r\nHost: elsewhere\r\n"
            "Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\n"
            "Te: trailers\r\nHTTP2-Settings: x\r\nX-Kept:  2 \r\n\r\n"
        )
        assert served.send(text.encode()).body == b"ok"
        assert served.engine.heads == [
            (
                b"GET /v1.41/info?a=%20 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n"
                b"X-Kept: 2\r\n\r\n"
            )
        ]


def test_an_unclean_path_is_answered_as_the_engine_does(directory: Path) -> None:
    with Served(directory) as served:
        answer = served.ask("GET", "/v1.41//info/../version?x=1")
        assert answer.status == 301
        assert answer.headers["location"] == "/v1.41/version?x=1"
        assert served.engine.heads == []


BAD_HEADS = {
    "bare LF": (b"GET /_ping HTTP/1.1\nHost: x\n\n", 400),
    "one bare LF": (b"GET /_ping HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    "bare CR": (b"GET /_ping HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400),
    "control character": (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: a\x12b\r\n\r\n", 400),
    "folded": (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400),
    "folded first": (b"GET /_ping HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "NUL": (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    "space before colon": (b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "two lengths": (
        b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
    ),
    "two lengths in one": (
        b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab",
        400,
    ),
    "length and chunks": (
        (
            b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        400,
    ),
    "chunks in HTTP/1.0": (
        b"POST /auth HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "unknown coding": (
        b"POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "odd coding": (
        b"POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "two codings": (
        (
            b"POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"
        ),
        501,
    ),
    "length with a sign": (b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\nab", 400),
    "no host": (b"GET /_ping HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/2 by name": (b"GET /_ping HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /_ping\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "space in target": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target of CONNECT": (b"CONNECT docker:2375 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "too long": (b"GET /_ping HTTP/1.1\r\nX: " + b"a" * heads.HEAD_BYTES + b"\r\n\r\n", 431),
    "too long without end": (b"GET /" + b"a" * (heads.HEAD_BYTES + 1), 431),
    "not UTF-8": (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
}


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[Served]:
    """A proxy with `push` denied; what bad requests do to it, they do to all that follow."""
    with Served(place.directory("p")) as one:
        yield one


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_of_two_meanings_is_refused_and_nobody_else_suffers(
    served: Served, name: str
) -> None:
    data, status = BAD_HEADS[name]
    before = len(served.engine.heads)
    with served.connect() as other:
        other.sendall(PING[:-2])
        with served.connect() as client:
            client.sendall(data)
            reader = Reader(client)
            answer = reader.answer()
            assert answer.status == status
            assert answer.message
            assert answer.headers["connection"] == "close"
            # Whatever followed is not taken for a request.
            assert reader.rest() == b""
        assert len(served.engine.heads) == before
        other.sendall(PING[-2:])
        assert Reader(other).answer().body == b"ok"


CHUNKED = b"POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1\nab\n\r\n",
        b"\r\n",
    ],
)
def test_a_bad_chunk_ends_the_request_on_both_sides(directory: Path, body: bytes) -> None:
    ended = threading.Event()

    def play(connection: socket.socket, _: bytes) -> None:
        while connection.recv(100):
            pass
        ended.set()

    with Served(directory, play) as served:
        answer = served.send(CHUNKED + body, "POST")
        assert answer.status == 400
        assert "bad body" in answer.message
        assert ended.wait(20)


def test_bytes_after_a_body_are_a_request_of_their_own(directory: Path) -> None:
    def play(connection: socket.socket, head: bytes) -> None:
        if b"chunked" in head:
            got = b""
            while not got.endswith(b"0\r\n\r\n"):
                got += connection.recv(100)
            assert got == b"3\r\nabc\r\n0\r\n\r\n"
        connection.sendall(OK)

    with Served(directory, play) as served, served.connect() as client:
        client.sendall(CHUNKED + b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n" + PUSH + PING)
        reader = Reader(client)
        assert [reader.answer().status for _ in range(3)] == [200, 403, 200]
        assert [head.split(b" ")[1] for head in served.engine.heads] == [b"/auth", b"/_ping"]


def test_a_smuggled_request_is_judged(directory: Path) -> None:
    hidden = b"0\r\n\r\n" + PUSH

    def play(connection: socket.socket, head: bytes) -> None:
        if b"/auth" in head:
            assert Reader(connection).exactly(len(hidden)) == hidden
        connection.sendall(OK)

    with Served(directory, play) as served:
        first = request("POST", "/auth", hidden)
        with served.connect() as client:
            client.sendall(first + PING)
            reader = Reader(client)
            assert reader.answer().body == b"ok"
            assert reader.answer().body == b"ok"
        assert [head.split(b" ")[1] for head in served.engine.heads] == [b"/auth", b"/_ping"]


def test_requests_one_after_another_and_at_once_on_one_connection(directory: Path) -> None:
    with Served(directory) as served, served.connect() as client:
        reader = Reader(client)
        for _ in range(3):
            client.sendall(PING)
            assert reader.answer().body == b"ok"
        client.sendall(PING * 50 + PUSH * 2 + PING)
        statuses = [reader.answer().status for _ in range(53)]
        assert statuses == [200] * 50 + [403] * 2 + [200]


def test_http_1_0_and_connection_close_end_the_connection(directory: Path) -> None:
    with Served(directory) as served:
        for data in (
            b"GET /_ping HTTP/1.0\r\n\r\n",
            b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ):
            with served.connect() as client:
                client.sendall(data)
                reader = Reader(client)
                assert reader.answer().body == b"ok"
                assert reader.rest() == b""


def test_head_has_no_body_whoever_answers(directory: Path) -> None:
    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX-A: b\r\n\r\n")

    with Served(directory, play) as served, served.connect() as client:
        reader = Reader(client)
        client.sendall(request("HEAD", "/_ping"))
        answer = reader.answer("HEAD")
        assert (answer.status, answer.headers["x-a"]) == (200, "b")
        client.sendall(request("HEAD", "/images//x"))
        assert reader.answer("HEAD").status == 403
        client.sendall(request("HEAD", "/containers//x"))
        assert reader.answer("HEAD").status == 301


def test_a_slow_head_is_given_up_and_others_go_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "HEAD_SECONDS", 1.0)
    with Served(directory) as served:
        slow = []
        for _ in range(100):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(30)
            client.connect(served.path)
            client.sendall(b"GET /_ping HTTP/1.1\r\nX-a: b\r\n")
            slow.append(client)
        assert served.send(PING).body == b"ok"
        for client in slow:
            with client:
                answer = Reader(client).answer()
                assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert served.send(PING).body == b"ok"


def test_bytes_that_trickle_in_are_a_request_too(directory: Path) -> None:
    with Served(directory) as served, served.connect() as client:
        for byte in b"\r\n" + PING:
            client.sendall(bytes([byte]))
        assert Reader(client).answer().body == b"ok"


def test_an_idle_connection_is_closed_without_a_word(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "IDLE_SECONDS", 0.2)
    with Served(directory) as served, served.connect() as client:
        assert client.recv(1) == b""


def test_one_connection_too_many_is_told_so(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "CONNECTIONS", 2)
    with Served(directory) as served, served.connect() as one, served.connect() as two:
        for client in (one, two):
            client.sendall(PING)
            assert Reader(client).answer().body == b"ok"
        answer = served.send(PING)
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        one.sendall(PING)
        assert Reader(one).answer().body == b"ok"
        two.close()
        wait_until(lambda: served.send(PING).status == 200, "there is room again")


def test_without_an_engine_each_request_is_told_so_and_with_a_new_one_it_goes_on(
    directory: Path,
) -> None:
    with Served(directory) as served, served.connect() as client:
        reader = Reader(client)
        client.sendall(PING)
        assert reader.answer().body == b"ok"
        served.engine.close()
        client.sendall(PING)
        answer = reader.answer()
        assert answer.status == 502
        assert "the engine cannot be reached" in answer.message
        served.engine = Engine(directory / "e", answer_ok)
        client.sendall(PING)
        assert reader.answer().body == b"ok"


def test_an_engine_may_come_back_in_a_new_directory(directory: Path) -> None:
    place = directory / "run"
    place.mkdir()
    with Served(place) as served:
        assert served.send(PING).body == b"ok"
        served.engine.close()
        (place / "r").rename(directory / "r")
        place.rmdir()
        served.path = str(directory / "r")
        assert served.send(PING).status == 502
        place.mkdir()
        served.engine = Engine(place / "e", answer_ok)
        assert served.send(PING).body == b"ok"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n", b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"]
)
def test_no_answer_of_the_engine_is_one_of_ours(directory: Path, answer: bytes) -> None:
    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer)

    with Served(directory, play) as served:
        assert served.send(PING).status == 502


def test_an_answer_that_breaks_off_breaks_off(directory: Path) -> None:
    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with Served(directory, play) as served, served.connect() as client:
        client.sendall(PING)
        with pytest.raises(EOFError):
            Reader(client).answer()
        assert served.send(PUSH).status == 403


def test_an_answer_streams_while_the_request_does(directory: Path) -> None:
    """Neither side waits for the other, nor is anything kept until it is whole."""

    def play(connection: socket.socket, _: bytes) -> None:
        reader = Reader(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while chunk := reader.chunk():
            connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk.upper()))
        connection.sendall(b"0\r\n\r\n")

    with Served(directory, play) as served, served.connect() as client:
        reader = Reader(client)
        client.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert reader.head().status == 200
        for word in (b"one", b"two", b"three"):
            client.sendall(b"%x\r\n%s\r\n" % (len(word), word))
            assert reader.chunk() == word.upper()
        client.sendall(b"0\r\n\r\n")
        assert reader.chunk() == b""
        client.sendall(PUSH)
        assert reader.answer().status == 403


def test_an_early_answer_reaches_a_client_that_is_still_sending(directory: Path) -> None:
    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")

    head = b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
    with Served(directory, play) as served, served.connect() as client:
        client.sendall(head + b"a" * 5_000_000)
        assert Reader(client).answer().status == 500


def test_a_refusal_reaches_a_client_that_is_still_sending(directory: Path) -> None:
    head = PUSH[:-2] + b"Content-Length: 10000000\r\n\r\n"
    with Served(directory) as served, served.connect() as client:
        client.sendall(head + b"a" * 5_000_000)
        reader = Reader(client)
        answer = reader.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert reader.rest() == b""


def test_expect_100_continue_goes_both_ways(directory: Path) -> None:
    def play(connection: socket.socket, head: bytes) -> None:
        assert b"Expect: 100-continue" in head
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = Reader(connection).exactly(4)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)

    head = "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with Served(directory, play) as served, served.connect() as client:
        client.sendall(head.encode())
        reader = Reader(client)
        assert reader.head().status == 100
        client.sendall(b"body")
        assert reader.answer().body == b"body"


def test_expect_100_continue_is_not_met_with_one_where_the_answer_is_no(directory: Path) -> None:
    with Served(directory) as served, served.connect() as client:
        client.sendall(PUSH[:-2] + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert Reader(client).head().status == 403


def test_expect_100_continue_of_a_body_that_is_judged(directory: Path) -> None:
    with Served(directory) as served, served.connect() as client:
        head = request("POST", "/volumes/create", b"{}", {"Expect": "100-continue"})[:-2]
        client.sendall(head)
        reader = Reader(client)
        assert reader.head().status == 100
        client.sendall(b"{}")
        assert reader.answer().body == b"ok"
        assert b"Expect" not in served.engine.heads[0]


def test_a_client_that_goes_away_takes_its_request_along(directory: Path) -> None:
    gone = threading.Event()

    def play(connection: socket.socket, head: bytes) -> None:
        if b"/events" in head:
            assert connection.recv(1) == b""
            gone.set()

    with Served(directory, play) as served:
        with served.connect() as client:
            client.sendall(request("GET", "/events"))
            wait_until(lambda: served.engine.heads, "the request is at the engine")
        assert gone.wait(20)


def test_a_client_that_has_said_all_still_gets_its_answer(directory: Path) -> None:
    def play(connection: socket.socket, head: bytes) -> None:
        if b"/events" in head:
            assert connection.recv(1) == b""  # the half-close is passed on
        connection.sendall(OK)

    with Served(directory, play) as served, served.connect() as client:
        client.sendall(request("GET", "/events") + PING)
        client.shutdown(socket.SHUT_WR)
        reader = Reader(client)
        assert reader.answer().body == b"ok"
        assert reader.answer().body == b"ok"
        assert reader.rest() == b""


UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
SWITCH = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def _echo_after(head: bytes) -> Play:
    def play(connection: socket.socket, request_head: bytes) -> None:
        if b"content-length: 2" in request_head.lower():
            assert Reader(connection).exactly(2) == b"{}"
        connection.sendall(head + b"early ")
        got = b""
        while more := connection.recv(100):
            got += more
        # The client's end came, and ours did not end with it.
        connection.sendall(got.upper())

    return play


@pytest.mark.parametrize(
    ("method", "target", "body", "headers"),
    [
        ("POST", "/v1.41/containers/x/attach?stream=1", b"", UPGRADE),
        ("POST", "/exec/x/start", b"{}", UPGRADE),
        ("GET", "/containers/x/attach/ws", b"", {"Connection": "upgrade", "Upgrade": "websocket"}),
        ("POST", "/session", b"", {"Connection": "Upgrade", "Upgrade": "h2c"}),
        ("POST", "/grpc", b"", {"Connection": "Upgrade", "Upgrade": "h2c"}),
    ],
)
def test_an_upgraded_connection_ends_one_way_at_a_time(
    directory: Path, method: str, target: str, body: bytes, headers: dict[str, str]
) -> None:
    with Served(directory, _echo_after(SWITCH)) as served, served.connect() as client:
        # Some clients do not wait for the 101.
        client.sendall(request(method, target, body, headers) + b"hasty ")
        reader = Reader(client)
        head = reader.head()
        assert (head.status, head.headers["upgrade"]) == (101, "tcp")
        assert reader.exactly(6) == b"early "
        # On this connection nothing is a request any more.
        client.sendall(PUSH)
        client.shutdown(socket.SHUT_WR)
        assert reader.rest() == (b"hasty " + PUSH).upper()
        assert f"Upgrade: {headers['Upgrade']}".encode() in served.engine.heads[0]


@pytest.mark.parametrize(
    ("target", "body"), [("/containers/x/attach", b""), ("/exec/x/start", b"{}")]
)
def test_a_connection_is_taken_over_without_an_upgrade_too(
    directory: Path, target: str, body: bytes
) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    with Served(directory, _echo_after(raw)) as served, served.connect() as client:
        client.sendall(request("POST", target, body))
        reader = Reader(client)
        head = reader.head()
        assert head.status == 200
        assert "transfer-encoding" not in head.headers
        assert reader.exactly(6) == b"early "
        client.sendall(b"later")
        client.shutdown(socket.SHUT_WR)
        assert reader.rest() == b"LATER"


def test_an_answer_of_a_known_length_takes_no_connection_over(directory: Path) -> None:
    with Served(directory) as served, served.connect() as client:
        reader = Reader(client)
        client.sendall(request("POST", "/containers/x/attach", b"", UPGRADE))
        assert reader.answer().body == b"ok"
        client.sendall(PUSH)
        assert reader.answer().status == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_routes_cannot_ask_for_an_upgrade(directory: Path, method: str) -> None:
    target = {"GET": "/info", "POST": "/containers/x/wait"}[method]
    with Served(directory) as served:
        assert served.ask(method, target, b"", UPGRADE).body == b"ok"
        assert b"pgrade" not in served.engine.heads[0]


@pytest.mark.parametrize("query", ["checkpoint-dir=/etc", "a;checkpoint%2Ddir=/etc"])
def test_a_checkpoint_is_not_started_from_a_directory_of_the_host(
    directory: Path, query: str
) -> None:
    with Served(directory) as served:
        answer = served.ask("POST", f"/containers/x/start?checkpoint=a&{query}")
        assert answer.status == 403
        assert "checkpoint-dir can be any directory of the host" in answer.message
        assert served.ask("POST", "/containers/x/start?checkpoint=a").body == b"ok"


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "/x", "a/../..", "a%2Fb", "-", "a%00", "a\\b"]
)
def test_the_name_of_a_checkpoint_leads_nowhere(directory: Path, name: str) -> None:
    with Served(directory) as served:
        for query in (
            f"checkpoint={name}",
            f"checkpoint=a&checkpoint={name}",
            f"a;c%68eckpoint={name}",
        ):
            answer = served.ask("POST", f"/containers/x/start?{query}")
            assert answer.status == 403
            assert "checkpoint may not lead elsewhere" in answer.message
        for query in ("", "checkpoint=", "checkpoint=a.b_c-1&detachKeys=x"):
            assert served.ask("POST", f"/containers/x/start?{query}").body == b"ok"


def test_no_path_is_sent_on_in_a_query(directory: Path) -> None:
    """Podman looks for its own API between the slashes of the whole URL."""
    with Served(directory) as served:
        assert served.ask("POST", "/build?q=/libpod/&t=%2f").body == b"ok"
        assert served.engine.heads[0].startswith(b"POST /build?q=%2Flibpod%2F&t=%2f HTTP/1.1\r\n")
        for method, target in (
            ("GET", "/images/libpod/json"),
            ("GET", "/containers%2Flibpod/json"),
        ):
            assert served.ask(method, target).status == 403
        assert len(served.engine.heads) == 1


@pytest.mark.parametrize(
    "query",
    ["zz=/libpod/", "t=a&isolation=chroot", "t=a;volume=/etc:/x", "%6futput=x", "devices", "T=a"],
)
def test_a_build_has_the_parameters_that_docker_has(directory: Path, query: str) -> None:
    with Served(directory) as served:
        assert served.ask("POST", f"/build?{query}", b"x").status == 403
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "0"}
        assert served.ask("POST", "/build?t=a", headers=kind).status == 403
        assert served.engine.heads == []
        assert served.ask("POST", "/build?t=a&isolation=&buildargs=%7B%7D", b"x").body == b"ok"


@pytest.mark.parametrize("source", ["/etc/x.tar", "file:///etc/x", "-x", "%2fetc", "a"])
def test_what_is_imported_is_no_file_of_the_host(directory: Path, source: str) -> None:
    with Served(directory) as served:
        assert served.ask("POST", f"/images/create?fromSrc={source}").status == 403
        for good in ("-", "https%3A%2F%2Fx/y", "HTTP://x"):
            assert served.ask("POST", f"/images/create?fromSrc={good}").body == b"ok"


def test_judged_bodies_have_a_bound_together(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "BODIES_BYTES", 100)
    head = request("POST", "/volumes/create")[:-2] + b"Content-Length: 100\r\n\r\n"
    with Served(directory) as served, served.connect() as slow:
        slow.sendall(head + b" " * 98)
        wait_until(lambda: served.proxy.bodies.left < 100, "its body is being read")
        answer = served.send(head + b" " * 98)
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        slow.sendall(b"{}")
        assert Reader(slow).answer().body == b"ok"
        assert served.send(head + b" " * 98 + b"{}").body == b"ok"


def test_long_heads_have_a_bound_together(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "LARGE_HEADS", 1)
    start = b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (proxy.LARGE_HEAD_BYTES + 1)
    with Served(directory) as served, served.connect() as slow:
        slow.sendall(start)
        wait_until(lambda: served.proxy.large_heads, "its head is being read")
        assert served.send(start).status == 503
        assert served.send(PING).body == b"ok"
        slow.sendall(b"\r\n\r\n")
        assert Reader(slow).answer().body == b"ok"
        assert served.send(start + b"\r\n\r\n").body == b"ok"


def test_a_body_that_is_judged_has_a_bound(directory: Path) -> None:
    with Served(directory) as served:
        answer = served.ask("POST", "/volumes/create", b" " * (proxy.BODY_BYTES + 1))
        assert answer.status == 413
        assert served.engine.heads == []
