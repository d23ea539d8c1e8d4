"""Engines that are killed while their containers live, and a host that starts anew."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import Dockerd
from tests.support.fork_servers import end_fork_servers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

CALLS = (
    "mnt mount none /mnt tmpfs - - , umount2 /mnt - , mount - /vol - MS_REMOUNT|MS_BIND -".split()
)
ANSWERS = ["0", "0", "EPERM"]


@pytest.fixture(scope="module")
def live(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Dockerd]:
    """A dockerd whose containers live on without it."""
    with Dockerd(place, runtimes, "eci", live_restore=True) as daemon:
        daemon.import_image(busybox_root)
        yield daemon


def flags(volume: Path, runtime: str) -> list[str]:
    """Return the words for a container that can mount, and may not write to its volume."""
    return [f"--runtime={runtime}", "--cap-add=SYS_ADMIN", "-v", f"{volume}:/vol:ro"]


def answers(engine: Dockerd, container: str) -> list[str]:
    """Join the container, mount there, and try what is refused."""
    return engine.out("exec", container, *CALLS).split()


def ids_of(engine: Dockerd, container: str) -> str:
    """Return the user ids of a running container: its map."""
    pid = engine.inspect(container, "{{.State.Pid}}")
    return Path(f"/proc/{pid}/uid_map").read_text()


@pytest.mark.parametrize("killed", [["dockerd"], ["containerd"], ["dockerd", "containerd"]])
def test_containers_stay_supervised(
    live: Dockerd, place: Place, runtime: str, killed: list[str]
) -> None:
    """With the engine gone and with the next one; and nobody else gets their ids."""
    words = flags(place.directory("v"), runtime)
    with live.container(*words) as one:
        ids = ids_of(live, one)
        live.kill(*killed)
        live.start_killed()
        assert live.inspect(one, "{{.State.Running}}") == "true"
        assert answers(live, one) == ANSWERS
        with live.container(*words) as other:
            assert ids_of(live, other) != ids
            assert answers(live, other) == ANSWERS
        assert ids_of(live, one) == ids
        live.docker("restart", "-t", "5", one)
        assert answers(live, one) == ANSWERS


def cut_power(engine: Dockerd, place: Place) -> None:
    """End all at once, and leave what a disk would have."""
    engine.kill("dockerd", "containerd")
    end_fork_servers(place.state_dir)
    # A process may have made another one meanwhile.
    while left := place.left_processes():
        for line in left:
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[1]), signal.SIGKILL)
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = line.split()[4]
        if target.startswith(f"{place.root}/"):
            subprocess.run(["umount", "-l", target], check=True)
    for line in place.left_cgroups():
        wait_until(partial(_remove, Path(line.removeprefix("cgroup: "))), f"{line} stays")
    for path in (*place.state_dir.iterdir(), engine.top / "x", engine.top / "cd/state"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove(directory: Path) -> bool:
    for path in sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    with suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def test_host_starts_anew(live: Dockerd, place: Place, runtime: str) -> None:
    """The container starts again with what it had written, and alone in its ids."""
    volume, shared = place.directory("v"), place.directory("v")
    words = [*flags(volume, runtime), "-v", f"{shared}:/shared"]
    with live.container(*words) as one:
        live.docker("exec", one, "sh", "-c", "echo mine > /file; echo ours > /shared/file")
        cut_power(live, place)
        live.start_killed()
        assert live.inspect(one, "{{.State.Running}}") == "false"
        with live.container(*words) as other:
            live.docker("start", one)
            assert live.out("exec", one, "cat", "/file", "/shared/file") == "mine\nours"
            assert live.out("exec", one, "stat", "-c", "%u", "/file", "/shared/file") == "0\n0"
            assert os.stat(shared / "file").st_uid == 0
            assert answers(live, one) == answers(live, other) == ANSWERS
            assert ids_of(live, one) != ids_of(live, other)
