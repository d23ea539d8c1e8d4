"""Another version, or none, takes the place of the one that containers run with."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eci_supervisor import __version__
from eci_supervisor.supervisor.keeper import LINGER_SECONDS, REST_SECONDS
from tests.support.bundle import bind, make_spec
from tests.support.docker import IMAGE, SLEEP, Dockerd
from tests.support.fork_servers import end_fork_servers
from tests.support.installation import Installation
from tests.support.waiting import wait_until
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

NEW = "9.9.0"
OTHER_FORMAT = 97
CALLS = (
    "mnt mount none /mnt tmpfs - - , umount2 /mnt - , mount - /vol - MS_REMOUNT|MS_BIND -".split()
)
ANSWERS = ["0", "0", "EPERM"]
LOOP = "while :; do mnt mount none /home tmpfs - - , umount2 /home - >> /out/answers; done"
ALONE = "what they refuse is counted, and not logged"
REFUSAL = "<refused:no-loosening>"


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def program_of(pid: int) -> str:
    """Return what a process executes, as the kernel names it."""
    return str(Path(f"/proc/{pid}/exe").readlink())


def wait_for_rest(keeper: int) -> None:
    """Wait until it is the waiting program."""
    wait_until(lambda: Path(program_of(keeper)).name.startswith("eci-keeper"), "it does not rest")


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


class Box:
    """A container that mounts and unmounts all the time, made by an installation of its own."""

    def __init__(self, name: str, bundles: Bundles, place: Place) -> None:
        """`name`: of the launcher."""
        self.place = place
        self.installed = Installation(place)
        self.link = place.directory("r") / name
        self.link.symlink_to(self.installed.program("eci-runtime"))
        self.bundles = bundles
        self.runtime: Runtime = bundles.runtime(self.link)
        self.out = place.directory("v")
        self.name = self.run(LOOP)
        self.state_dir = self.state_of(self.name)
        self.worker = worker_of(json.loads(self.runtime.call("state", self.name).stdout)["pid"])
        # Of the worker's holder, whose child the worker is.
        self.keeper = parent(parent(self.worker))
        wait_for_rest(self.keeper)

    def bundle(self, name: str, script: str, *, late: bool = False) -> Path:
        """Write a bundle that runs `script`.

        `late`: its listener comes with `start`, with crun, as it must gain no privileges.
        """
        volumes = [bind(self.place.directory("v"), "/vol", "ro"), bind(self.out, "/out")]
        cgroup = self.bundles.cgroup(name)
        spec = make_spec(["sh", "-c", script], cgroup=cgroup, privileged=True, mounts=volumes)
        if late:
            spec["process"]["noNewPrivileges"] = True
        return self.bundles.write(spec)

    def run(self, script: str) -> str:
        """Run `script` in a new container; returns its name."""
        name = self.bundles.name()
        self.bundles.expect(self.runtime, name)
        self.runtime.call("run", "--detach", "--bundle", str(self.bundle(name, script)), name)
        return name

    def state_of(self, name: str) -> Path:
        """Return the state directory of a container."""
        (found,) = self.place.state_dir.glob(f"containers/{name}-*")
        return found

    def exec(self, runtime: Runtime | None = None) -> list[str]:
        """Mount, unmount and try what is refused, in a process that joins the container."""
        return (runtime or self.runtime).call("exec", self.name, *CALLS).stdout.split()

    @property
    def program(self) -> str:
        """What the keeper executes now."""
        return program_of(self.keeper)

    def log(self) -> str:
        """Return what the keeper has said."""
        path = self.state_dir / "keeper.log"
        return path.read_text() if path.exists() else ""

    def mounted(self) -> int:
        """Say how often the loop has mounted and unmounted; no call of it may have failed."""
        words = (self.out / "answers").read_text().split()
        assert set(words) == {"0"}
        return len(words)

    def goes_on(self) -> None:
        """Wait until the loop has made some more calls."""
        before = self.mounted()
        wait_until(lambda: self.mounted() > before + 20, "the loop stands still")

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what the installed `eci status` says of each container."""
        found = json.loads(self.installed.eci("status", "--json").stdout)["containers"]
        return {one["id"]: one for one in found}

    def delete(self, runtime: Runtime | None = None) -> None:
        """Remove it; nothing may be left."""
        (runtime or self.runtime).call("delete", "--force", self.name)
        self.is_gone()

    def is_gone(self) -> None:
        """Wait until nothing of it is left."""
        for process in (self.keeper, self.worker):
            wait_until(partial(_is_gone, process), "a process is left")
        wait_until(lambda: not self.state_dir.exists(), "the state is left")
        assert not list(self.place.state_dir.glob(f"ranges/*/{self.name}-*"))


@pytest.fixture
def box(runtime: str, bundles: Bundles, place: Place) -> Iterator[Box]:
    """One whose keeper is at rest."""
    made = Box("eci-runtime-crun" if runtime == "eci-crun" else "eci-runtime", bundles, place)
    yield made
    made.installed.install(__version__)  # what is left of a test that failed is removed with it
    end_fork_servers(place.state_dir)


def test_container_outlives_its_version(box: Box, runtimes: dict[str, Path], runtime: str) -> None:
    # The next version takes over.
    box.installed.install(NEW)
    assert box.program.endswith("eci-keeper (deleted)")
    assert box.exec() == ANSWERS
    wait_for_rest(box.keeper)
    assert box.program == str(box.installed.program("eci-keeper"))
    assert box.log().count(REFUSAL) == 1
    later = box.run(SLEEP)
    versions = {id_: one["version"] for id_, one in box.status().items()}
    assert (versions[box.name], versions[later]) == (__version__, NEW)
    box.goes_on()
    # One of another format does not.
    box.installed.install(NEW, OTHER_FORMAT)
    assert box.exec() == ANSWERS
    assert box.program.endswith("eci-keeper (deleted)")
    assert box.log().count(ALONE) == 1
    # One that cannot be imported does not, either, and one that is not there.
    box.installed.install(NEW)
    (box.installed.package / "supervisor/intake.py").write_text("no Python")
    assert box.exec() == ANSWERS
    assert box.log().count("the keeper stays at rest: SyntaxError") == 1
    other = box.bundles.runtime(runtimes[runtime])
    other.root = box.runtime.root
    box.installed.remove()
    assert box.exec(other) == ANSWERS
    box.goes_on()
    box.installed.install(NEW, OTHER_FORMAT)
    assert box.log().count(REFUSAL) == 1
    mine = box.status()[box.name]
    assert mine["why"] == "supervised; refusals are counted, and not logged"
    assert (mine["version"], mine["refusals"], bool(mine["renew"])) == (__version__, 4, True)
    box.goes_on()
    box.delete()


def disturb(path: Path) -> None:
    """Send what is no listener to the socket that listeners come to; each is hung up on."""
    text = b'{"ociVersion": "1.0.2", "fds": ["seccompFd"], "state": {"id": "}{"}}'
    one, other = socket.socketpair()
    with path.open("rb") as lock, one, other:
        for fds in ([], [lock.fileno()], [lock.fileno(), other.fileno()], [lock.fileno()] * 8):
            with socket.socket(socket.AF_UNIX) as sender:
                sender.settimeout(10)
                sender.connect(str(path.parent / "notify.sock"))
                socket.send_fds(sender, [text[:-1]], fds)
                with suppress(BrokenPipeError, ConnectionResetError):
                    sender.sendall(text[-1:])
                    assert sender.recv(1) == b""


@pytest.mark.parametrize("runtime", ["eci"])
def test_old_version_back_tells_what_was_refused_meanwhile(box: Box) -> None:
    box.installed.install(NEW, OTHER_FORMAT)
    assert box.exec() == ANSWERS
    text = box.installed.eci("status").stdout
    assert f"keeps the programs of {__version__}. To have those of {NEW}:" in text
    assert REFUSAL not in box.log()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(box.state_dir / "notify.sock"))
        disturb(box.state_dir / "lock")
        assert box.exec() == ANSWERS
    assert box.log().count("listener refused: Bad message") == 4
    # Killed as well, it is followed by its second, which is of the same version.
    os.kill(box.keeper, signal.SIGKILL)
    wait_until(lambda: "the keeper was killed: process" in box.log(), "nobody goes on")
    box.keeper = int(box.log().partition("the keeper was killed: process ")[2].split()[0])
    assert box.exec() == ANSWERS
    assert box.program.endswith("eci-keeper (deleted)")
    box.installed.install(__version__)
    assert box.exec() == ANSWERS
    wait_until(lambda: box.log().count(REFUSAL) == 4, "the refusals are not told")
    assert not box.status()[box.name]["renew"]


@pytest.mark.parametrize("runtime", ["eci-crun"])
@pytest.mark.parametrize("alone", [False, True])
def test_end_under_no_version(
    box: Box, runtimes: dict[str, Path], runtime: str, *, alone: bool
) -> None:
    """Its hook is gone with the package: the keeper clears up with the programs that it has."""
    other = box.bundles.runtime(runtimes[runtime])
    other.root = box.runtime.root
    box.installed.remove()
    if alone:  # it has been woken, and found nothing
        assert box.exec(other) == ANSWERS
    # crun writes to the hook, which cannot be executed, and dies of SIGPIPE where that has ended by
    # then; the next try finds the container further on its way, or gone.
    wait_until(
        lambda: other.call("delete", "--force", box.name, check=False).returncode == 0,
        "it cannot be deleted",
    )
    box.is_gone()


@pytest.mark.parametrize("runtime", ["eci-crun"])
def test_created_under_one_version_and_started_under_another(box: Box) -> None:
    """With crun, whose listener comes so late, the old one still waits for it, and takes it in."""
    name = box.bundles.name()
    box.bundles.expect(box.runtime, name)
    script = "mnt mount none /mnt tmpfs - - > /out/created; " + SLEEP
    box.runtime.call("create", "--bundle", str(box.bundle(name, script, late=True)), name)
    time.sleep(LINGER_SECONDS + 1.5 * REST_SECONDS)  # one that could rest would do so
    box.installed.install(NEW, OTHER_FORMAT)
    box.runtime.start(name)
    answer = box.out / "created"
    wait_until(lambda: answer.exists() and answer.read_text() == "0\n", "it cannot mount")


@pytest.mark.slow
def test_docker_execs_after_an_upgrade(place: Place, busybox_root: Path) -> None:
    installed = Installation(place)
    programs = {"eci": installed.program("eci-runtime")}
    with Dockerd(place, programs, "eci") as daemon:
        daemon.import_image(busybox_root)
        flags = ["--privileged", "-v", "/usr/share:/vol:ro"]
        daemon.docker("run", "-d", "--name", "web", *flags, IMAGE, "sh", "-c", SLEEP)
        for version, form in ((NEW, None), (NEW, OTHER_FORMAT), (__version__, None)):
            installed.install(version, form)
            assert daemon.docker("exec", "web", *CALLS).stdout.split() == ANSWERS
        installed.install(NEW)
        status = json.loads(installed.eci("status", "--json").stdout)["containers"]
        (web,) = [one for one in status if one["name"] == "web"]
        assert (web["version"], web["renew"]) == (__version__, "docker restart web")
        daemon.docker("restart", "-t", "1", "web")
        status = json.loads(installed.eci("status", "--json").stdout)["containers"]
        (web,) = [one for one in status if one["name"] == "web"]
        assert (web["version"], web["renew"]) == (NEW, "")
        assert daemon.docker("exec", "web", *CALLS).stdout.split() == ANSWERS
    end_fork_servers(place.state_dir)


def test_enable_again_takes_the_new_directory(place: Place, tmp_path: Path) -> None:
    """Versions with a directory each: the links lead to the one whose `eci enable` ran last."""
    first, second = Installation(place), Installation(place, NEW)
    tree = tmp_path / "tree"
    (tree / "etc/docker").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    for name in ("dockerd", "runc"):
        (tree / "usr/bin" / name).write_bytes(b"")
        (tree / "usr/bin" / name).chmod(0o755)
    where = ("--root", str(tree))
    link = tree / "var/lib/eci/path/runc"
    first.eci("enable", "--engine", "docker", *where)
    assert link.readlink() == first.program("eci-runtime")
    config = (tree / "etc/docker/daemon.json").read_bytes()
    (told,) = _told(second, where)
    assert str(first.program("eci-runtime")) in told
    second.eci("enable", "--engine", "docker", *where)
    assert link.readlink() == second.program("eci-runtime")
    assert (tree / "etc/docker/daemon.json").read_bytes() == config  # nothing to be restarted
    assert _told(second, where) == []
    second.eci("disable", *where)
    assert not link.exists()


def _told(installed: Installation, where: tuple[str, ...]) -> list[str]:
    """Return what `eci status` says of installations that Docker's links lead to."""
    engines = json.loads(installed.eci("status", "--json", *where).stdout)["engines"]
    (docker,) = [one for one in engines if one["name"] == "docker"]
    return [line for line in docker["problems"] if "another installation" in line]
