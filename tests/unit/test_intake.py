"""What may arrive on the listener socket."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.supervisor.intake import (
    MAX_BYTES,
    Connection,
    IntakeError,
    ProcessState,
    check_peer,
    hook_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[socket.socket, Connection]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The runtime's end, and ours."""
    theirs, ours = socket.socketpair()
    connection = Connection(ours)
    yield theirs, connection
    connection.close()
    theirs.close()


def message(container_id: str = "c1", fds: Any = ("seccompFd",)) -> bytes:
    """Return a message like runc's."""
    state = {"ociVersion": "1.0.2", "id": container_id, "status": "creating", "pid": 7}
    body = {"ociVersion": "1.0.2", "fds": list(fds), "pid": 9, "metadata": "", "state": state}
    return json.dumps(body).encode()


def send(theirs: socket.socket, data: bytes, fds: int = 1) -> None:
    """Send `data` with so many fds."""
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        socket.send_fds(theirs, [data], [null] * fds)
    finally:
        os.close(null)


def test_a_message_is_whole_when_its_json_is_though_the_sender_stays(pair: Pair) -> None:
    theirs, connection = pair
    data = message()
    assert connection.feed() is None
    send(theirs, data[:20])
    assert connection.feed() is None
    theirs.send(data[20:])
    state = connection.feed()
    assert state is not None
    assert (state.pid, state.state.pid) == (9, 7)
    listener = connection.listener(state, "c1")
    assert os.path.samestat(os.fstat(listener), os.stat("/dev/null"))
    os.close(listener)
    assert connection.fds == []


def test_another_containers_message_is_refused(pair: Pair) -> None:
    theirs, connection = pair
    send(theirs, message("c2"))
    state = connection.feed()
    assert state is not None
    with pytest.raises(IntakeError, match="'c2'"):
        connection.listener(state, "c1")


@pytest.mark.parametrize(
    ("names", "count"),
    [((), 1), (("seccompFd",), 0), (("other",), 1), (("seccompFd", "seccompFd"), 2)],
)
def test_names_and_fds_must_agree(pair: Pair, names: tuple[str, ...], count: int) -> None:
    theirs, connection = pair
    send(theirs, message(fds=names), count)
    state = connection.feed()
    assert state is not None
    with pytest.raises(IntakeError, match="fds"):
        connection.listener(state, "c1")


def test_too_many_fds_are_refused_and_all_are_closed(pair: Pair) -> None:
    theirs, connection = pair
    send(theirs, message(), 30)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(IntakeError, match="fds"):
        connection.feed()
    connection.close()
    assert not set(os.listdir("/proc/self/fd")) - before


def test_an_endless_message_is_refused(pair: Pair) -> None:
    theirs, connection = pair
    theirs.settimeout(0)

    def flood() -> None:
        for _ in range(MAX_BYTES):
            try:
                theirs.send(b'{"a":"' + b"x" * 60000)
            except BlockingIOError:
                connection.feed()

    with pytest.raises(IntakeError, match="bytes"):
        flood()


@pytest.mark.parametrize("data", [b"{}", b'{"state": 1}', b'{"fds": []}', b"[]"])
def test_json_that_is_no_process_state_is_refused(pair: Pair, data: bytes) -> None:
    theirs, connection = pair
    theirs.send(data)
    with pytest.raises(IntakeError, match="not a container process state"):
        connection.feed()


def test_a_message_that_ends_early_is_refused(pair: Pair) -> None:
    theirs, connection = pair
    theirs.send(message()[:-1])
    assert connection.feed() is None
    theirs.close()
    with pytest.raises(IntakeError, match="not a container process state"):
        connection.feed()


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_give_a_message_an_error_or_a_wait(data: bytes) -> None:
    theirs, ours = socket.socketpair()
    connection = Connection(ours)
    try:
        theirs.send(data)
        theirs.close()
        for _ in range(2):
            try:
                state = connection.feed()
            except IntakeError:
                return
            assert state is None or isinstance(state, ProcessState)
    finally:
        connection.close()


@pytest.mark.root
def test_a_peer_that_is_not_root_is_refused(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    os.chmod(path, 0o666)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            os.chmod(directory, 0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            socket.socket(socket.AF_UNIX).connect(path)
        finally:
            os._exit(0)
    connection, _ = server.accept()
    with pytest.raises(IntakeError, match="uid 65534"):
        check_peer(connection)
    os.waitpid(child, 0)
    connection.close()
    server.close()


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"1", b'{"id":1,"pid":7}', b'{"id":"c1"}', b'{"id":"c1","pid":0}', b"\xff"],
)
def test_what_is_no_state_is_an_error_of_the_hooks(text: bytes) -> None:
    with pytest.raises(IntakeError, match="the hook"):
        hook_state(text)


def test_the_state_that_a_hook_hands_on() -> None:
    state = hook_state(b'{"ociVersion":"1.0.2","id":"c1","status":"created","pid":7,"bundle":"/b"}')
    assert (state.id, state.pid) == ("c1", 7)
