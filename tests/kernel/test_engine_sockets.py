"""What a mount shows of engines' sockets, where a real engine would not show the difference."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.engines import sockets
from eci_supervisor.engines.sockets import Exposed, Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

BASES = range(100_000, 100_000 + 65536 * 60_000, 65536)


def exposed(path: Path) -> Exposed | None:
    """Return what a bind of the path would show."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return Host(BASES, "/run/no-state").exposed(fd)
    finally:
        os.close(fd)


@contextmanager
def held(listener: socket.socket, program: Path) -> Iterator[None]:
    """Have an engine's program hold the socket for the block."""
    if not program.exists():
        shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "100"], pass_fds=[listener.fileno()]) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A listening socket at `in/s`, that nobody but we have."""
    (tmp_path / "in").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "in/s"))
        made.listen()
        yield made


@pytest.mark.usefixtures("listener")
def test_nothing_is_shown_where_no_engine_is(tmp_path: Path) -> None:
    for path in (tmp_path / "in/s", tmp_path / "in", tmp_path):
        assert exposed(path) is None
    (tmp_path / "file").touch()
    assert exposed(tmp_path / "file") is None


@pytest.mark.parametrize(
    ("program", "speaks_docker"), [("dockerd", True), ("podman", False), ("containerd", False)]
)
def test_a_socket_and_what_it_lies_in_are_shown(
    tmp_path: Path, listener: socket.socket, program: str, *, speaks_docker: bool
) -> None:
    with held(listener, tmp_path / program):
        path = str(tmp_path / "in/s")
        itself = Exposed(path, program, itself=True, speaks_docker=speaks_docker)
        assert exposed(tmp_path / "in/s") == itself
        for above in (tmp_path / "in", tmp_path, tmp_path.parent):
            found = exposed(above)
            assert found is not None
            assert (found.path, found.engine, found.itself) == (path, program, False)
        (tmp_path / "beside").mkdir()
        assert exposed(tmp_path / "beside") is None


def test_a_well_known_socket_counts_though_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As podman's, which systemd starts it for."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/podman.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert exposed(path) is None
    monkeypatch.setattr(sockets, "WELL_KNOWN", (str(path),))
    assert exposed(path) == Exposed(str(path), "podman.sock", itself=True, speaks_docker=False)
    found = exposed(tmp_path)
    assert found is not None
    assert found.path == str(path)


def test_a_path_in_the_environment_is_well_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    found = exposed(path)
    assert found is not None
    assert found.itself


def test_our_own_sockets_count(tmp_path: Path, listener: socket.socket) -> None:
    assert listener.fileno() >= 0
    fd = os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = Host(BASES, str(tmp_path / "in")).exposed(fd)
    finally:
        os.close(fd)
    assert found is not None
    assert found.path == str(tmp_path / "in/s")


def test_a_directory_that_is_too_large_counts_where_a_socket_has_a_second_name(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").mkdir()
    for number in range(20):
        (tmp_path / f"large/{number}").touch()
    with held(listener, tmp_path / "dockerd"):
        assert exposed(tmp_path / "large") is None
        (tmp_path / "second").hardlink_to(tmp_path / "in/s")
        assert exposed(tmp_path / "large") is None  # it was looked through
        monkeypatch.setattr(sockets, "MOST", 10)
        assert exposed(tmp_path / "large") is not None


def test_buildkits_agent_is_no_engine(tmp_path: Path) -> None:
    directory = tmp_path / ".buildkit-ssh-sock1"
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(directory / "ssh_auth_sock"))
        agent.listen()
        with held(agent, tmp_path / "dockerd"):
            assert exposed(directory / "ssh_auth_sock") is None
            assert exposed(tmp_path) is None
