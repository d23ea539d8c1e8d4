"""What goes on during a soak: mounts, execs, containers that come and go, attacks, kills.

Each load is asked for one `step` after the other.  A step leaves nothing behind, checks what it
did, and raises where that was not as it has to be.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from eci_supervisor.runtime.state import bin_path
from tests.attack import (
    test_devices,
    test_handles,
    test_kernel_fs,
    test_loosening,
    test_uncovering,
)
from tests.soak.meter import ours
from tests.support.attacks import KINDS, Attack
from tests.support.bundle import Runtime, bind, make_spec, write_bundle
from tests.support.docker import IMAGE, SLEEP
from tests.support.fork_servers import end_fork_servers, fork_servers, standing_by
from tests.support.sides import Protected, Volumes
from tests.support.waiting import stop, wait_until
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from tests.support.bundle import Spec
    from tests.support.docker import Dockerd
    from tests.support.place import Place

SAFE = "MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC"
REMOUNT = "mount - /vol - MS_REMOUNT|MS_BIND -"
# Every kind of call that the worker performs or lets pass, and one that it refuses.
MOUNTS = (
    ("mount none /mnt tmpfs - -", "0"),
    ("mount - /mnt - MS_PRIVATE -", "0"),
    ("mkdir /mnt/a", "0"),
    ("mkdir /mnt/b", "0"),
    ("mount /w /mnt/a - MS_BIND|MS_REC -", "0"),
    ("mount - /mnt/a - MS_REMOUNT|MS_BIND|MS_RDONLY -", "0"),
    ("mount - /mnt/a - MS_REMOUNT|MS_BIND -", "0"),
    ("mount /mnt/a /mnt/b - MS_MOVE -", "0"),
    ("umount2 /mnt/b MNT_DETACH", "0"),
    ("clone /w /mnt/a AT_RECURSIVE", "0"),
    ("mount_setattr /mnt/a - MOUNT_ATTR_NOSUID - -", "0"),
    ("umount2 /mnt/a MNT_DETACH", "0"),
    # The program keeps the descriptors of these two.
    ("fsmount tmpfs /mnt/a", "0"),
    ("umount2 /mnt/a MNT_DETACH", "0"),
    ("fsoverlay /mnt/a:/mnt/b /mnt/a", "0"),
    ("umount2 /mnt/a MNT_DETACH", "0"),
    ("mount proc /mnt/a proc - -", "0"),
    ("umount2 /mnt/a -", "0"),
    (f"mount sysfs /mnt/a sysfs {SAFE} -", "0"),
    ("umount2 /mnt/a -", "0"),
    ("mount nowhere /mnt/none tmpfs - -", "ENOENT"),
    (REMOUNT, "EPERM"),
    ("write /vol/x", "EROFS"),
    ("umount2 /mnt MNT_DETACH", "0"),
)
ROUNDS = 20
"""How often an exec makes these calls."""
ATTACKS = (
    *test_loosening.ATTACKS,
    *test_uncovering.ATTACKS,
    *test_kernel_fs.ATTACKS,
    *(replace(one, kinds=("privileged",)) for one in test_devices.ATTACKS),
    *test_handles.ATTACKS,
)
FILL = ("fsopen 15 tmpfs", "fsconfig 15 FSCONFIG_CMD_CREATE - -", "fsmount_at 4 15 -")
KEPT = 64
"""How many mounts of fsmount(2) a worker keeps open: from the beginning as many as ever."""
FILLING = ["mnt", *" , ".join(FILL * KEPT).split()]
LATEST_KILL = 0.06
"""Seconds; a create takes about as long."""


class Load(Protocol):
    """Something that goes on."""

    def step(self, random: Random) -> None:
        """Do it once."""


class Ground:
    """What the loads share: an engine, the runtimes, a root file system and volumes."""

    def __init__(
        self, place: Place, dockerd: Dockerd, runtimes: Mapping[str, Path], root: Path
    ) -> None:
        """Make the volumes."""
        self.place = place
        self.dockerd = dockerd
        self.runtimes = runtimes
        self.root = root
        self.volumes = Volumes.make(place)

    def spec(self, name: str, *, privileged: bool) -> Spec:
        """Return the configuration of a container that sleeps and can mount."""
        return make_spec(
            ["sleep", "1000"],
            cgroup=f"/{self.place.cgroup}/{name}",
            privileged=privileged,
            cap_add=["CAP_SYS_ADMIN"],
            mounts=[bind(self.volumes.read_only, "/vol", "ro"), bind(self.volumes.writable, "/w")],
        )

    def roll_call(self) -> None:
        """Have one container made and refused something: a fork server, and counts, are there."""
        volume = ["-v", f"{self.volumes.read_only}:/vol:ro"]
        words = ["run", "--rm", "--privileged", *volume, IMAGE, "mnt", *REMOUNT.split()]
        assert self.dockerd.out(*words) == "EPERM"


class Mounts:
    """Mounts of every kind, in a container of each runtime and kind that stays."""

    def __init__(self, ground: Ground) -> None:
        """Start the containers."""
        self._dockerd = ground.dockerd
        volumes = ground.volumes
        self.residents = [
            ground.dockerd.out(
                "run", "-d", f"--runtime={runtime}", *flags, "-v", f"{volumes.read_only}:/vol:ro",
                "-v", f"{volumes.writable}:/w", IMAGE, "sh", "-c", SLEEP,
            )
            for runtime in ground.runtimes for flags in KINDS.values()
        ]  # fmt: skip
        for resident in self.residents:
            self._dockerd.docker("exec", resident, *FILLING)

    def step(self, random: Random) -> None:
        """Make the calls in one of them, at times in a mount namespace of their own."""
        calls = [call for call, _ in MOUNTS]
        program = random.choice(("mnt", "mnt32"))
        space = random.choice(([], ["unshare", "CLONE_NEWNS", ","]))
        words = [program, *space, *" , ".join(calls).split()]
        again = f'for i in $(seq {ROUNDS}); do "$@"; done'
        out = self._dockerd.out(
            "exec", random.choice(self.residents), "sh", "-c", again, "sh", *words
        )
        answers = out.split()
        expected = [*(["0"] if space else []), *(answer for _, answer in MOUNTS)] * ROUNDS
        assert answers == expected, out


class Execs:
    """A program is run in a container that stays."""

    def __init__(self, ground: Ground, residents: list[str]) -> None:
        """Run it in one of `residents`."""
        self._dockerd = ground.dockerd
        self._residents = residents

    def step(self, random: Random) -> None:
        """Run it, as root or as another user, in one with all capabilities or with few."""
        flags = random.choice(([], ["-u1000"], ["--privileged"], ["-w/tmp"], ["-eX=1"]))
        word = f"{random.random()}"
        out = self._dockerd.out("exec", *flags, random.choice(self._residents), "echo", word)
        assert out == word


class Engine:
    """Containers of an engine come and go."""

    def __init__(self, ground: Ground) -> None:
        """Make them with the engine of `ground`."""
        self._ground = ground

    def step(self, random: Random) -> None:
        """Make one, use it, end it in one of the ways there are."""
        dockerd, volumes = self._ground.dockerd, self._ground.volumes
        flags = [f"--runtime={random.choice(list(self._ground.runtimes))}"]
        flags += random.choice(([], *KINDS.values()))
        flags += random.choice(([], ["--read-only"], ["--tmpfs", "/t"], ["--network=none"]))
        flags += ["-v", f"{volumes.read_only}:/vol:ro"]
        if random.random() < 0.4:
            assert dockerd.out("run", "--rm", *flags, IMAGE, "echo", "here") == "here"
            return
        name = dockerd.out("run", "-d", *flags, IMAGE, "sh", "-c", SLEEP)
        try:
            assert dockerd.out("exec", name, "echo", "here") == "here"
            if random.random() < 0.3:
                dockerd.docker("restart", "-t", "5", name)
            if random.random() < 0.3:
                dockerd.docker("cp", f"{name}:/etc/passwd", "-")
            dockerd.docker(*random.choice((("stop", "-t", "5"), ("kill",), ("pause",))), name)
        finally:
            dockerd.docker("rm", "-fv", name)


class Bare:
    """Containers without an engine come and go: create, start, exec, kill, delete."""

    def __init__(self, ground: Ground) -> None:
        """Make them of bundles."""
        self._ground = ground
        self._count = 0

    def step(self, random: Random) -> None:
        """Make one, and have it mount."""
        with _Box(self._ground, random, f"b{self._count}") as box:
            self._count += 1
            out = box.runtime.call("exec", box.name, "mnt", *REMOUNT.split()).stdout
            assert out.split() == ["EPERM"]


class _Box:
    """A running container of the runtime alone, which is deleted in the end."""

    def __init__(self, ground: Ground, random: Random, name: str) -> None:
        program = random.choice(list(ground.runtimes.values()))
        self.name = name
        self.top = ground.place.directory(name)
        (self.top / "root").mkdir()
        self.runtime = Runtime(str(program), self.top / "root")
        spec = ground.spec(name, privileged=random.random() < 0.5)
        write_bundle(self.top, spec, ground.root)

    def create(self) -> None:
        """Create it, and start it."""
        self.runtime.call("create", "--bundle", str(self.top), self.name)
        self.runtime.start(self.name)

    def __enter__(self) -> Self:
        try:
            self.create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.runtime.call("kill", self.name, "KILL", check=False)
        self.runtime.call("delete", "--force", self.name, check=False)
        shutil.rmtree(self.top)


class Attacks:
    """Attacks of the tests, on a container of each runtime and kind that stays."""

    def __init__(self, ground: Ground) -> None:
        """Start the containers."""
        self._sides = [
            Protected(ground.dockerd, runtime, ground.volumes) for runtime in ground.runtimes
        ]
        for side in self._sides:
            for kind in KINDS:
                ground.dockerd.docker("exec", side.container(kind), *FILLING)

    def step(self, random: Random) -> None:
        """Make one, which must fail."""
        one: Attack = random.choice(ATTACKS)
        side = random.choice(self._sides)
        side.attack(one, random.choice(one.kinds), random.choice(one.programs))


class Kills:
    """SIGKILL for a process of ours; whatever it was, nothing is open that was closed."""

    def __init__(self, ground: Ground) -> None:
        """Kill in containers that come and go for it."""
        self._ground = ground
        self._count = 0

    def step(self, random: Random) -> None:
        """Kill one."""
        self._count += 1
        name = f"k{self._count}"
        random.choice((self._supervisor, self._server, self._create))(random, name)

    def _supervisor(self, random: Random, name: str) -> None:
        """The worker or the keeper of a running container."""
        with _Box(self._ground, random, name) as box:
            pid = json.loads(box.runtime.call("state", name).stdout)["pid"]
            worker = worker_of(pid)
            keeper = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(random.choice((worker, keeper)), signal.SIGKILL)
            words = ["mnt", *REMOUNT.split(), ",", "write", "/vol/x"]
            out = box.runtime.call("exec", name, *words, check=False).stdout.split()
            assert not out or (out[0] in {"EPERM", "ENOSYS"} and out[1] == "EROFS"), out

    def _server(self, random: Random, name: str) -> None:
        """The fork server: nobody misses it."""
        end_fork_servers(self._ground.place.state_dir)
        with _Box(self._ground, random, name):
            pass

    def _create(self, random: Random, name: str) -> None:
        """Whoever prepares a container, as long as it is not the runtime yet."""
        box = _Box(self._ground, random, name)
        with subprocess.Popen(
            box.runtime.argv("create", "--bundle", str(box.top), name),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(random.random() * LATEST_KILL)
            with suppress(AssertionError, OSError):
                stop(process.pid)
                if os.readlink(f"/proc/{process.pid}/exe").startswith(bin_path("")):
                    process.kill()
            process.send_signal(signal.SIGCONT)
            process.wait()
        box.__exit__()


def settle(ground: Ground, residents: int) -> None:
    """Wait until only the residents and one fork server are there, and every keeper rests."""
    place = ground.place

    def at_rest() -> bool:
        interpreters = {pid for pid, program in ours(place).items() if program == "python"}
        containers = len(os.listdir(place.state_dir / "containers"))
        servers = fork_servers(place.state_dir)
        ready = {one.pid for server in servers for one in standing_by(server)}
        return interpreters == servers | ready and containers == residents

    wait_until(at_rest, f"{residents} containers at rest", 60)
