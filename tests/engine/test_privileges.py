"""Each process of ours has the privileges that ARCHITECTURE.md says, and no others.

The table in the document is what is compared with /proc.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import eci_supervisor
from tests.support.docker import IMAGE, SLEEP
from tests.support.inject import call
from tests.support.privileges import (
    differences,
    is_hidden,
    kinds_of_descriptors,
    limit,
    parent_of,
    status_of,
    table,
)
from tests.support.restricted import Restricted
from tests.support.waiting import wait_until
from tests.support.worker import holder_of, worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

BIN = Path(eci_supervisor.__file__).parent / "bin"
ECI = Path(sys.executable).parent / "eci"
PRCTL, GET_DUMPABLE = 157, 3
TABLE = table()


class Box:
    """A running container of an engine, which is shown a view of its files."""

    def __init__(self, dockerd: Dockerd, runtime: str, place: Place) -> None:
        """Start it."""
        self.dockerd = dockerd
        words = [f"--runtime={runtime}", "--cap-add=SYS_ADMIN", IMAGE]
        self.name = dockerd.out("run", "-d", *words, "sh", "-c", SLEEP)
        self.pid = int(dockerd.inspect(self.name, "{{.State.Pid}}"))
        (self.state_dir,) = place.state_dir.glob(f"containers/{self.name[:32]}-*")
        self.worker = worker_of(self.pid)
        self.holder = holder_of(self.pid)
        self.keeper = parent_of(self.holder)
        wait_until((self.state_dir / "view.pid").exists, "no view")
        self.view = int((self.state_dir / "view.pid").read_text())
        self.merged = Path(dockerd.inspect(self.name, "{{.GraphDriver.Data.MergedDir}}"))

    def close(self) -> None:
        """Remove it."""
        self.dockerd.docker("rm", "-fv", self.name)

    def differences(self, process: str, pid: int) -> list[str]:
        """Compare a process with its row."""
        return differences(TABLE[process], pid, str(self.state_dir), self.dockerd.pid)

    @property
    def server(self) -> int:
        """Of the view."""
        children = Path(f"/proc/{self.view}/task/{self.view}/children").read_text()
        return int(children.split()[0])


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def box(request: pytest.FixtureRequest, dockerd: Dockerd, place: Place) -> Iterator[Box]:
    """One container for all tests of a runtime."""
    one = Box(dockerd, request.param, place)
    yield one
    one.close()


def rests(pid: int) -> bool:
    """Say whether a keeper is the waiting program, and waits."""
    proc = Path(f"/proc/{pid}")
    waits = (proc / "syscall").read_text().split()[0] == "7"
    return (proc / "exe").readlink().name == "eci-keeper" and waits


def is_undumpable(pid: int) -> bool:
    """Ask the process itself, which may still make the call, once it waits."""
    stat = Path(f"/proc/{pid}/syscall")
    wait_until(lambda: stat.read_text().split()[0] != "running", "it never waits")
    return call(pid, PRCTL, GET_DUMPABLE, 0, 0, 0) == 0


def test_worker(box: Box) -> None:
    for pid in (box.worker, box.holder):
        assert box.differences("worker", pid) == []
        # One that is not root owns its own entries, unless it is undumpable: proc(5).
        assert status_of(pid)["Uid"].split()[0] == status_of(box.pid)["Uid"].split()[0] != "0"
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        assert limit(pid, "file size") == (str(4 << 20), str(4 << 20))
    for name in TABLE["worker"].namespaces:
        ours, theirs = (Path(f"/proc/{pid}/ns/{name}").readlink() for pid in (box.worker, box.pid))
        assert ours == theirs, name


def test_keeper_awake_and_resting(box: Box) -> None:
    wait_until(lambda: rests(box.keeper), "the keeper does not rest")
    assert box.differences("keeper, resting", box.keeper) == []
    assert is_undumpable(box.keeper)
    box.dockerd.docker("exec", box.name, "true")
    # The interpreter has come as far as that.
    wait_until(lambda: "eventpoll" in kinds_of_descriptors(box.keeper, ""), "it stays at rest")
    assert box.differences("keeper, awake", box.keeper) == []
    assert is_undumpable(box.keeper)
    # It has handed on what the exec gave it, and has nothing else of it either.
    wait_until(lambda: rests(box.keeper), "it does not rest again")
    assert box.differences("keeper, resting", box.keeper) == []


def test_view(box: Box) -> None:
    assert (box.merged / "bin/busybox").exists()
    assert box.differences("view, server", box.server) == []
    assert status_of(box.server)["Uid"].split()[:3] == ["65534"] * 3
    assert Path(f"/proc/{box.server}/environ").stat().st_uid == 0
    assert box.differences("view, holder", box.view) == []
    assert is_hidden(box.view)


def test_proxy(place: Place) -> None:
    one = Restricted(place, place.root / "no-engine.sock")
    assert one.ask("GET", "/_ping").status == 502
    try:
        assert differences(TABLE["proxy"], one.pid, str(one.state_dir)) == []
        assert is_hidden(one.pid)
    finally:
        one.close()


def test_metrics_server(place: Place) -> None:
    path = place.root / "metrics.sock"
    with subprocess.Popen(
        [str(ECI), "metrics", "serve", "--socket", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as server:
        try:
            assert server.stderr is not None
            assert b"serving" in server.stderr.readline()
            assert differences(TABLE["metrics server"], server.pid, str(place.state_dir)) == []
            assert is_hidden(server.pid)
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(10) == 0
    assert not path.exists()


@contextmanager
def waiting(*words: str) -> Iterator[int]:
    """Run a program of ours that waits to be told a container's state; gives its pid."""
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        try:
            stat = Path(f"/proc/{program.pid}/syscall")
            wait_until(lambda: stat.read_text().split()[:2] == ["0", "0x0"], "it does not read")
            yield program.pid
        finally:
            with suppress(BrokenPipeError):
                program.communicate()


def test_hook(place: Place) -> None:
    with waiting(str(BIN / "eci-hook"), "create", str(place.root / "nobody.sock")) as pid:
        assert differences(TABLE["hook"], pid, str(place.state_dir)) == []
        assert is_undumpable(pid)


def test_cleanup(place: Place) -> None:
    state = place.state_dir / "containers/none"
    with waiting(str(BIN / "eci-cleanup"), str(state), "", "", "0", "none") as pid:
        assert differences(TABLE["cleanup"], pid, str(place.state_dir)) == []
        assert is_undumpable(pid)


def test_every_row_is_looked_at() -> None:
    looked_at = {
        "worker", "keeper, awake", "keeper, resting", "view, server", "view, holder", "proxy",
        "metrics server", "hook", "cleanup",
    }  # fmt: skip
    assert set(TABLE) == looked_at
