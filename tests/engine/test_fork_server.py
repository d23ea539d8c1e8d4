"""The fork server: whom it serves, and what becomes of a create when one of the two is lost.

A launcher that lies alone in a directory finds no start.py, so it works where it is served and
says so where it is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import psutil
import pytest

import eci_supervisor.runtime.spare
from tests.support.bundle import make_spec
from tests.support.fork_servers import all_standing_by, end_fork_servers, fork_servers
from tests.support.waiting import call_of, stop, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

NOT_SERVED = "eci-runtime: cannot find start.py above the directory of this program"
FLOCK = 73
CALLS = "mount none /mnt tmpfs - - , umount2 /mnt -".split()


class Bench:
    """A runtime with a fork server, and a launcher that can do nothing without one."""

    def __init__(
        self, bundles: Bundles, place: Place, program: Path, *, serve: bool = True
    ) -> None:
        self.bundles = bundles
        self.place = place
        self.runtime = bundles.runtime(program)
        alone = place.directory("alone") / program.name
        shutil.copy(program, alone)
        self.alone = bundles.runtime(alone)
        self.alone.root = self.runtime.root
        self.go_on: Callable[[], None] = lambda: None
        """Lets a create that is held up go on."""
        end_fork_servers(place.state_dir)
        if serve:
            self.life(self.runtime)
            wait_until(self.is_ready, "nobody stands by")

    def is_ready(self) -> bool:
        """Whether the server has read its code, and forked whom the next launcher asks."""
        servers = fork_servers(self.place.state_dir)
        return any(all_standing_by(one) for one in servers)

    def bundle(self) -> tuple[str, Path]:
        """Return a name and a bundle for it."""
        name = self.bundles.name()
        self.bundles.expect(self.runtime, name)
        spec = make_spec(["sleep", "1000"], cgroup=self.bundles.cgroup(name), privileged=True)
        return name, self.bundles.write(spec)

    def life(self, runtime: Runtime) -> None:
        """Make a container, use it and remove it."""
        name, bundle = self.bundle()
        runtime.call("create", "--bundle", str(bundle), name)
        runtime.start(name)
        assert runtime.call("exec", name, "mnt", *CALLS).stdout.split() == ["0", "0"]
        runtime.call("delete", "--force", name)

    @contextmanager
    def held_up(self) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
        """A create that does not get on, because the lock of the state is held; and who does it."""
        name, bundle = self.bundle()
        (server,) = fork_servers(self.place.state_dir)
        argv = self.alone.argv("create", "--bundle", str(bundle), name)
        with TemporaryFile() as empty, (self.place.state_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.go_on = lambda: fcntl.flock(lock, fcntl.LOCK_UN)
            with subprocess.Popen(
                argv, stdin=empty, stdout=empty, stderr=subprocess.PIPE, text=True
            ) as launcher:

                def waiting() -> list[psutil.Process]:
                    children = psutil.Process(server).children()
                    return [one for one in children if call_of(one.pid) == FLOCK]

                wait_until(waiting, "nobody prepares it, and waits")
                (child,) = waiting()
                yield launcher, child


@pytest.fixture
def bench(bundles: Bundles, place: Place, runtimes: dict[str, Path], runtime: str) -> Bench:
    """One for each runtime, with a server."""
    return Bench(bundles, place, runtimes[runtime])


def test_who_comes_next_is_served(bench: Bench) -> None:
    first = fork_servers(bench.place.state_dir)
    assert len(first) == 1
    for _ in range(3):
        bench.life(bench.alone)
    assert fork_servers(bench.place.state_dir) == first


def test_nobody_is_served_without_a_server(
    bundles: Bundles, place: Place, runtimes: dict[str, Path]
) -> None:
    bench = Bench(bundles, place, runtimes["eci"], serve=False)
    name, bundle = bench.bundle()
    done = bench.alone.call("create", "--bundle", str(bundle), name, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"{NOT_SERVED}: No such file or directory")
    bench.runtime.env["ECI_FORK_SERVER"] = "0"
    bench.life(bench.runtime)
    assert fork_servers(place.state_dir) == set()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))


def _sooner_killed() -> None:
    Path("/proc/self/oom_score_adj").write_text("777")


def _one_processor() -> None:
    os.sched_setaffinity(0, {0})


@pytest.mark.parametrize(
    "change",
    [lambda: os.umask(0o77), _limit, _sooner_killed, _one_processor, lambda: os.nice(1)],
)
def test_who_is_unlike_the_server_is_not_served(bench: Bench, change: Callable[[], object]) -> None:
    name, bundle = bench.bundle()
    for runtime in (bench.alone, bench.runtime):
        with TemporaryFile() as empty, TemporaryFile("w+") as error:
            done = subprocess.run(
                runtime.argv("create", "--bundle", str(bundle), name),
                stdin=empty, stdout=empty, stderr=error, check=False,
                preexec_fn=change,
            )  # fmt: skip
            error.seek(0)
            text = error.read()
        assert (done.returncode, NOT_SERVED in text) == ((1, True) if runtime is bench.alone
                                                         else (0, False)), text  # fmt: skip
    bench.runtime.call("delete", "--force", name)


def test_another_mount_namespace_has_a_server_of_its_own(bench: Bench) -> None:
    name, bundle = bench.bundle()
    words = bench.alone.argv("create", "--bundle", str(bundle), name)
    done = subprocess.run(["unshare", "-m", *words], capture_output=True, text=True, check=False)
    assert NOT_SERVED in done.stderr


def test_words_directory_environment_and_stderr_are_the_callers(bench: Bench, place: Place) -> None:
    directory = place.directory("set")
    settings = directory / "settings.json"
    settings.write_text('{"configurationFileVersion": 2, "vm": {"protectedPaths": 7}}')
    name, bundle = bench.bundle()
    runtime = bench.alone
    runtime.env["ECI_SETTINGS"] = "settings.json"
    argv = runtime.argv("--log", "log", "--log-format", "json", "create", "-b", str(bundle), name)
    done = subprocess.run(
        argv, cwd=directory, env=os.environ | runtime.env,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("settings.json: line 1: vm.protectedPaths")
    assert json.loads((directory / "log").read_text())["msg"] == done.stderr.strip()


def test_a_server_that_is_killed_is_not_missed(bench: Bench) -> None:
    (before,) = fork_servers(bench.place.state_dir)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not fork_servers(bench.place.state_dir), "it lives")
    bench.life(bench.runtime)
    (after,) = fork_servers(bench.place.state_dir)
    assert after != before


def test_a_server_that_is_stopped_does_nothing_later(bench: Bench) -> None:
    (server,) = fork_servers(bench.place.state_dir)
    before = bench.place.leftovers(patience=0)
    stop(server)
    try:
        bench.life(bench.alone)  # by the child that was there
        bench.life(bench.runtime)
    finally:
        os.kill(server, signal.SIGCONT)
    bench.life(bench.alone)
    assert bench.place.leftovers(before=before) == []


def test_a_server_with_old_code_ends(bench: Bench) -> None:
    module = Path(eci_supervisor.runtime.spare.__file__)
    stat = module.stat()
    os.utime(module, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        name, bundle = bench.bundle()
        done = bench.alone.call("create", "--bundle", str(bundle), name, check=False)
    finally:
        os.utime(module, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert NOT_SERVED in done.stderr
    wait_until(lambda: not fork_servers(bench.place.state_dir), "it goes on")


def test_whoever_prepares_is_killed(bench: Bench) -> None:
    before = bench.place.leftovers(patience=0)
    with bench.held_up() as (launcher, child):
        child.kill()
        _, error = launcher.communicate(timeout=10)
    assert (launcher.returncode, error) == (
        1, "eci-runtime: the process that prepared the container has ended: try again\n"
    )  # fmt: skip
    assert bench.place.leftovers(before=before) == []
    bench.life(bench.alone)


def test_the_keeper_that_stands_by_is_killed(bench: Bench) -> None:
    """It has nothing to keep yet, and is replaced; the same where the server is killed before."""
    before = bench.place.leftovers(patience=0)
    with bench.held_up() as (launcher, child):
        (server,) = fork_servers(bench.place.state_dir)
        others = [one for one in psutil.Process(server).children() if one != child]
        for one in others:  # the keeper, and what waits for the next to ask
            one.kill()
        wait_until(lambda: not any(one.is_running() for one in others), "they live")
        bench.go_on()
        assert launcher.wait(10) == 0
    (name,) = (path.name.rpartition("-")[0] for path in bench.place.state_dir.glob("containers/*"))
    bench.runtime.start(name)
    assert bench.runtime.call("exec", name, "mnt", *CALLS).stdout.split() == ["0", "0"]
    bench.runtime.call("delete", "--force", name)
    assert bench.place.leftovers(before=before) == []


def test_whoever_asked_is_killed(bench: Bench) -> None:
    before = bench.place.leftovers(patience=0)
    with bench.held_up() as (launcher, _):
        launcher.kill()
    assert bench.place.leftovers(before=before) == []
    bench.life(bench.alone)
