"""The two sides of an attack: containers under eci-runtime, and under plain runc."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, PRIVILEGED
from tests.support.bundle import DEFAULT_CAPS, bind, make_spec
from tests.support.docker import DOCKER, IMAGE, SLEEP
from tests.support.rootfs import build_root
from tests.support.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.attacks import Attack
    from tests.support.docker import Dockerd
    from tests.support.engines import Bundles
    from tests.support.place import Place


# What the attacks need; a machine may have no more to give.
MORE_CAPS = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]

LOOP = os.makedev(7, 0)
"""/dev/loop0: opened, and neither read nor written."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """The directories on the host that the containers of one test module see.

    Each container has `read_only` on /vol, read-only; `writable` on /w; `inner`, read-only, on
    /w/in, /w/d/in and /srv/d/in, where the kernel has locked it, and on /t/in in a tmpfs, where
    the supervisor alone holds it, as it does /s, a read-only tmpfs.
    """

    read_only: Path
    writable: Path
    inner: Path

    @classmethod
    def make(cls, place: Place) -> Volumes:
        """Make them new."""
        read_only, writable, inner = (place.directory("v") for _ in range(3))
        (read_only / "sub").mkdir()
        (read_only / "file").touch()
        (inner / "sub").mkdir()
        (writable / "in").mkdir()
        (writable / "d/in").mkdir(parents=True)
        for name in ("secret/sub/free/inner", "aaaaaa/sub"):
            (writable / name).mkdir(parents=True)
        (writable / "secret/mark").touch()
        os.mknod(writable / "node", stat.S_IFBLK | 0o600, LOOP)
        return cls(read_only, writable, inner)

    def mend(self) -> None:
        """Take away what a successful attack has written, for the sake of the next test."""
        for name in self.written():
            path = Path(name)
            if path.name == "x":
                path.unlink()
            else:
                os.truncate(path, 0)

    def written(self) -> list[str]:
        """Return what has been written where nothing may be."""
        under = (self.writable / "in", self.writable / "d/in")
        sealed = (self.read_only, self.read_only / "sub", self.inner, *under)
        found = [str(path) for top in sealed for path in top.glob("x")]
        file = self.read_only / "file"
        return found + ([str(file)] if file.stat().st_size else [])


@pytest.fixture(scope="module")
def volumes(place: Place) -> Volumes:
    """The volumes of the protected containers."""
    return Volumes.make(place)


# Runs its arguments, then takes away what they have left on /mnt.
AND_CLEAN = """
"$@"
for i in 1 2 3 4 5; do
    [ "$(mnt umount2 /mnt MNT_DETACH)" = 0 ] || break
done
rm -f /mnt/x /mnt/file
"""


class Protected:
    """One container under eci-runtime for each kind; each attack is an exec in one of them."""

    def __init__(self, dockerd: Dockerd, runtime: str, volumes: Volumes) -> None:
        self.dockerd = dockerd
        self._runtime = runtime
        self._volumes = volumes
        self._containers: dict[str, str] = {}

    def container(self, kind: str) -> str:
        """Return the id of the running container of that kind."""
        if kind not in self._containers:
            volumes = self._volumes
            self._containers[kind] = self.dockerd.out(
                "run", "-d", f"--runtime={self._runtime}", *KINDS[kind],
                "-v", f"{volumes.read_only}:/vol:ro", "-v", f"{volumes.writable}:/w",
                "-v", f"{volumes.inner}:/w/in:ro", "-v", f"{volumes.inner}:/w/d/in:ro",
                "-v", f"{volumes.inner}:/srv/d/in:ro",
                "--tmpfs", "/s:ro", "--tmpfs", "/t", "-v", f"{volumes.inner}:/t/in:ro", IMAGE,
                "sh", "-c", f"touch /tmp/file; {SLEEP}",
            )  # fmt: skip
        return self._containers[kind]

    def run(self, kind: str, words: list[str], *, user: int = 0) -> str:
        """Run the words in the container of that kind and return what they print."""
        shell = ["sh", "-c", AND_CLEAN, "sh"]
        return self.dockerd.out("exec", f"-u{user}", self.container(kind), *shell, *words)

    def make(self, kind: str, words: list[str]) -> str:
        """Run the words of one of many, as `run` does as root."""
        return self.run(kind, words)

    def attack(self, one: Attack, kind: str, program: str) -> None:
        """Make the attack, which must fail, and look at what it has done to the host's files."""
        try:
            one.check(self.make(kind, one.words(program)), protected=True)
            assert self._volumes.written() == []
        except BaseException:
            self.renew(kind)
            self._volumes.mend()
            raise

    def renew(self, kind: str) -> None:
        """Remove the container of that kind: an attack that went wrong may have spoilt it."""
        container = self._containers.pop(kind, None)
        if container:
            self.dockerd.docker("rm", "-fv", container)

    def close(self) -> None:
        """Remove all."""
        for kind in KINDS:
            self.renew(kind)


class Resident(Protected):
    """The same, where all attacks on a container are children of one exec."""

    def __init__(self, dockerd: Dockerd, runtime: str, volumes: Volumes) -> None:
        super().__init__(dockerd, runtime, volumes)
        self._shells: dict[str, Shell] = {}

    def make(self, kind: str, words: list[str]) -> str:
        """Run the words in the shell that stays in the container of that kind, for all of them."""
        if kind not in self._shells:
            argv = [DOCKER, "exec", "-i", self.container(kind), "sh"]
            self._shells[kind] = Shell(argv, self.dockerd.environ())
        return self._shells[kind].run(["sh", "-c", AND_CLEAN, "sh", *words])

    def renew(self, kind: str) -> None:
        """Remove the container of that kind, and its shell with it."""
        super().renew(kind)
        shell = self._shells.pop(kind, None)
        if shell:
            shell.close()


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def protected(
    request: pytest.FixtureRequest, dockerd: Dockerd, volumes: Volumes
) -> Iterator[Protected]:
    """The protected side, on each runtime."""
    side = Resident(dockerd, request.param, volumes)
    yield side
    side.close()


@pytest.fixture
def bare(bundles: Bundles, place: Place, own_root: Path) -> Callable[[str, list[str]], str]:
    """Run words under plain runc in a user namespace, in a container like the protected ones."""
    return lambda kind, words: _run(bundles, place, own_root, kind, words, userns=True)


@pytest.fixture
def plain(bundles: Bundles, place: Place, own_root: Path) -> Callable[[str, list[str]], str]:
    """Run words as `bare` does, but without a user and a PID namespace."""
    return lambda kind, words: _run(bundles, place, own_root, kind, words, userns=False)


def _run(
    bundles: Bundles, place: Place, own_root: Path, kind: str, words: list[str], *, userns: bool
) -> str:
    mine = Volumes.make(place)
    name = bundles.name()
    spec = make_spec(
        words,
        cgroup=bundles.cgroup(name),
        privileged=kind == PRIVILEGED,
        cap_add=["CAP_SYS_ADMIN"],
        mounts=[
            bind(mine.read_only, "/vol", "ro"),
            bind(mine.writable, "/w"),
            bind(mine.inner, "/w/in", "ro"),
            bind(mine.inner, "/w/d/in", "ro"),
            bind(mine.inner, "/srv/d/in", "ro"),
            {"destination": "/s", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []},
            bind(mine.inner, "/t/in", "ro"),
        ],
        identity_userns=userns,
    )
    if not userns:
        caps = [*DEFAULT_CAPS, *MORE_CAPS]
        spec["process"]["capabilities"] = dict.fromkeys(spec["process"]["capabilities"], caps)
        spaces = spec["linux"]["namespaces"]
        spec["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    return bundles.run(bundles.runtime("runc"), name, bundles.write(spec, own_root))


@pytest.fixture(scope="module")
def own_root(place: Place, programs: dict[str, Path]) -> Path:
    """A root file system that the containers without protection may spoil."""
    root = build_root(place.directory("b") / "root", programs.values())
    (root / "tmp/file").touch()
    return root
