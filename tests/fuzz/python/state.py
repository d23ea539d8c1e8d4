"""What runtimes and our own processes say: process states, the hook's state, records."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from typing import Any

import msgspec

from eci_supervisor.observe import limit
from eci_supervisor.runtime import state
from eci_supervisor.supervisor import intake
from eci_supervisor.supervisor.intake import Connection, IntakeError
from tests.fuzz.python.source import Source

_DIRECTORY = tempfile.TemporaryDirectory(prefix="eci-fuzz-state-")
_NULL = os.open("/dev/null", os.O_RDONLY)


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _plain(data: bytes) -> Any:
    """Read it with another parser.  What nobody asks for need not be UTF-8."""
    return json.loads(data.decode("utf-8", "replace"))


def _intake(source: Source) -> None:
    """A message in parts, with descriptors: one is taken or none, and none stays open."""
    count, parts = source.number(6), 1 + source.number(3)
    data = source.rest()
    before = _open_fds()
    theirs, ours = socket.socketpair()
    connection = Connection(ours)
    taken = -1
    try:
        size = len(data) // parts + 1
        for start in range(0, max(len(data), 1), size):
            fds = [_NULL] * (count if start == 0 else 0)
            if data:
                socket.send_fds(theirs, [data[start : start + size]], fds)
            else:
                theirs.shutdown(socket.SHUT_WR)
            found = connection.feed()
            if found is not None:
                plain = _plain(data[: start + size])
                assert (plain["pid"], plain["state"]["id"]) == (found.pid, found.state.id)
                taken = connection.listener(found, "c1")
                assert plain["state"]["id"] == "c1"
                assert plain["fds"].count(intake.SECCOMP_FD) == 1
                assert len(plain["fds"]) == count
                break
    except IntakeError:
        assert taken < 0
    finally:
        connection.close()
        theirs.close()
        if taken >= 0:
            os.close(taken)
    assert _open_fds() == before


def _hook(source: Source) -> None:
    """The state that the hook hands on."""
    data = source.rest()
    try:
        found = intake.hook_state(data)
    except IntakeError:
        return
    plain = _plain(data)
    assert (plain["id"], plain["pid"]) == (found.id, found.pid)
    assert found.pid > 0


def _record(source: Source) -> None:
    """container.json: what is read is what is written again."""
    with open(f"{_DIRECTORY.name}/{state.RECORD}", "wb") as file:
        file.write(source.rest())
    found = state.read_record(_DIRECTORY.name)
    if found is not None:
        state.write_record(_DIRECTORY.name, found)
        assert state.read_record(_DIRECTORY.name) == found
        key = state.key_of(found.id, found.runtime_root)
        assert "/" not in key
        assert not key.startswith(".")
        assert len(key) <= 41


def _limit(source: Source) -> None:
    """What keeps an audit log small, when it comes back from its rest."""
    try:
        found = msgspec.json.decode(source.rest(), type=limit.Limit)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    assert msgspec.json.decode(msgspec.json.encode(found), type=limit.Limit) == found


def one(data: bytes) -> None:
    """The first byte says what the rest is."""
    source = Source(data)
    (_intake, _hook, _record, _limit)[source.number(4)](source)
