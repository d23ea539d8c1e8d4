"""Which Unix sockets listen here, by sock_diag(7)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.kernel import sockdiag
from eci_supervisor.kernel.sockdiag import Listener

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


def found(fd: int) -> Listener | None:
    """Return what is told of our descriptor, if it is told of."""
    number = os.fstat(fd).st_ino
    return next((one for one in sockdiag.listening() if one.socket == number), None)


def test_a_listening_socket_is_told_with_its_file(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)
        assert found(one.fileno()) is None  # it does not listen yet
        one.listen()
        info = os.stat(path)
        listener = Listener(
            os.fstat(one.fileno()).st_ino, path.encode(), info.st_dev, info.st_ino & 0xFFFFFFFF
        )
        assert found(one.fileno()) == listener
        os.rename(path, f"{path}-moved")
        assert found(one.fileno()) == listener  # the name is that which it was bound by


def test_an_abstract_one_has_no_file() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        name = b"\0eci-%d" % os.getpid()
        one.bind(name)
        one.listen()
        told = found(one.fileno())
        assert told is not None
        assert (told.name, told.inode) == (name, 0)


def test_many_sockets_come_in_several_parts(tmp_path: Path) -> None:
    made = []
    try:
        for number in range(900):
            one = socket.socket(socket.AF_UNIX)
            made.append(one)
            one.bind(f"{tmp_path}/{number}")
            one.listen(1)
        names = {os.path.basename(one.name) for one in sockdiag.listening()}
        assert names >= {b"%d" % number for number in range(900)}
    finally:
        for one in made:
            one.close()
