"""Protected containers with a program in them, and the same program in them past the filter.

What is compared lives in one container: a process that the runtime started there (`eci`), and
others that came from the host into its namespaces and its cgroup.  So user namespace, mount table,
storage and memory accounting are the same, and only who answers a mount call differs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from eci_supervisor.cli.bundle import Request, Volume, configuration
from eci_supervisor.cli.run import last_capability, runtime_program
from tests.support.fork_servers import end_fork_servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(os.path.dirname(HERE), "csrc")
GCC = ("gcc", "-std=gnu11", "-O2", "-static", "-pthread", "-D_GNU_SOURCE", "-I", INCLUDE)
PROGRAMS = ("calls", "enter", "verdict", "blind", "fork")
"""What a question needs, unless it says otherwise."""
CGROUP = "/sys/fs/cgroup"
MEMORY = "/dev/shm"  # noqa: S108 - a directory of our own is made in it
"""A tmpfs wherever there is one: /run is not, in many a container."""
LOCKED = "/locked"
"""The read-only volume of a container.  It hides something, so every mount call is trapped."""


class NoAnswerError(RuntimeError):
    """A program ended, or said something that it should not."""


class Program:
    """A running `calls` (see calls.c) or one that talks like it, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        if self._line() != "ready":
            raise NoAnswerError(f"{process.args!r} is not ready")

    def _line(self) -> str:
        out = self.process.stdout
        line = out.readline() if out else ""
        if not line.endswith("\n"):
            raise NoAnswerError(f"{self.process.args!r} ended with {self.process.wait(10)}")
        return line[:-1]

    def send(self, *words: object) -> None:
        """Ask for something; `receive` must be the next."""
        if self.process.stdin is None:
            raise NoAnswerError("the program was started without pipes")
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def receive(self) -> list[int]:
        """Return the numbers of an answer."""
        return [int(word) for word in self._line().split()]

    def ask(self, *words: object) -> list[int]:
        """Ask for something, and return the numbers of the answer."""
        self.send(*words)
        return self.receive()

    def close(self) -> None:
        """End its input, and with it the program."""
        self.process.communicate(timeout=60)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Give a program that is ready; it ends with the block, and is killed if the block fails."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            program = Program(process)
            yield program
            program.close()
        except BaseException:
            process.kill()
            raise


@dataclass(frozen=True, slots=True)
class Container:
    """A running protected container."""

    identity: str
    pid: int
    """Of its first process, in the host's PID namespace."""
    program: Program
    """That process."""


class Workshop:
    """A directory with the compiled programs, and containers that run the first of them."""

    def __init__(self, directory: str, state: str, programs: Sequence[str] = PROGRAMS) -> None:
        """Make it in the two directories; `state`: of what is in /run otherwise."""
        self.directory = directory
        self.state = state
        self._first = programs[0]
        self.environment = {
            **os.environ,
            "ECI_STATE_DIR": os.path.join(state, "eci"),
            "ECI_LOG_DIR": os.path.join(directory, "log"),
            "ECI_SYSLOG": "0",
        }
        for name in programs:
            source = os.path.join(HERE, f"{name}.c")
            subprocess.run([*GCC, "-o", self.program(name), source], check=True)
        os.mkdir(os.path.join(directory, "locked"))

    def program(self, name: str) -> str:
        """Return the path of a compiled program."""
        return os.path.join(self.directory, name)

    def runtime(self, *words: str) -> list[str]:
        """Return a command of the runtime that protects."""
        return [runtime_program(), "--root", os.path.join(self.state, "runc"), *words]

    def bundle(
        self, identity: str, *, cgroups: bool = True, privileged: bool = True, locked: bool = True
    ) -> str:
        """Make the bundle of a container that may mount, and return its path."""
        bundle = os.path.join(self.directory, identity)
        rootfs = os.path.join(bundle, "rootfs")
        os.mkdir(bundle, 0o700)
        for name in ("proc", "sys", "dev", "eci", "locked"):
            os.makedirs(os.path.join(rootfs, name))
        shutil.copy(self.program(self._first), rootfs)
        request = Request(
            command=(f"/{self._first}", "/eci"),
            rootfs=rootfs,
            hostname="bench",
            volumes=(Volume(os.path.join(self.directory, "locked"), LOCKED, readonly=locked),),
            privileged=privileged,
            capabilities=("CAP_SYS_ADMIN",),
        )
        config: dict[str, Any] = configuration(request, last_capability())
        if not cgroups:
            mounts = config["mounts"]
            config["mounts"] = [one for one in mounts if one["destination"] != CGROUP]
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(config, stream)
        return bundle

    @contextmanager
    def container(
        self,
        *,
        cgroups: bool = True,
        privileged: bool = True,
        locked: bool = True,
        settings: str | None = None,
    ) -> Iterator[Container]:
        """Give a running container, with or without its cgroups mounted.

        Not privileged, it has masks, and of the rarer capabilities CAP_SYS_ADMIN alone.  If not
        `locked`, its volume can be written to, and a privileged one is spared what no rule asks
        about (eci_supervisor/runtime/spare.py).
        `settings`: the administrator's settings that hold for it, where it is not the machine's.
        """
        environment = self.environment | ({"ECI_SETTINGS": settings} if settings else {})
        bundle = self.bundle(f"bundle-{secrets.token_hex(6)}", cgroups=cgroups,
                             privileged=privileged, locked=locked)  # fmt: skip
        with self.alive(self.runtime(), bundle, environment) as container:
            yield container

    @contextmanager
    def alive(
        self, runtime: Sequence[str], bundle: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[Container]:
        """Give the running container of a bundle, by that runtime; both are gone afterwards."""
        identity = f"eci-bench-{secrets.token_hex(6)}"
        environment = environment or self.environment
        try:
            command = [*runtime, "run", "--bundle", bundle, identity]
            with running(command, environment) as program:
                yield Container(identity, self._pid(runtime, identity), program)
        finally:
            # Where `run` was killed, it could not clear up; else there is nothing to delete.
            subprocess.run([*runtime, "delete", "--force", identity], env=self.environment,
                           check=False, capture_output=True)  # fmt: skip
            shutil.rmtree(bundle)

    def _pid(self, runtime: Sequence[str], identity: str) -> int:
        done = subprocess.run([*runtime, "state", identity], env=self.environment, check=True,
                              capture_output=True)  # fmt: skip
        return int(json.loads(done.stdout)["pid"])

    @contextmanager
    def entered(self, container: Container, name: str, filtering: str = "none",
                listener: Sequence[str] = ()) -> Iterator[Program]:  # fmt: skip
        """Give a first program in the container, past its filter; `calls` works in /NAME.

        `filtering` and `listener`: see enter.c.
        """
        words = [f"/{self._first}", f"/{name}"]
        command = [self.program("enter"), str(container.pid), filtering, *words]
        with running([*command, *(["--", *listener] if listener else [])]) as program:
            _join_cgroups(pid_of(program), container.pid)
            yield program


def pid_of(program: Program) -> int:
    """Return the process, in the host's PID namespace, of a program that was put into a container.

    It is the innermost of those that `enter` has made.
    """
    return int(psutil.Process(program.process.pid).children(recursive=True)[-1].pid)


def _cgroups(pid: int) -> Iterator[str]:
    """Yield the directories of a process's cgroups; of version 2, of version 1 or of both."""
    both = os.path.isdir(f"{CGROUP}/unified")
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        for line in stream:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            name = controllers.removeprefix("name=") or ("unified" if both else "")
            yield os.path.join(CGROUP, name, path.lstrip("/"))


def _join_cgroups(pid: int, other: int) -> None:
    """Put a process into the cgroups of another."""
    for directory in _cgroups(other):
        with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as stream:
            stream.write(str(pid))


@contextmanager
def workshop(programs: Sequence[str] = PROGRAMS) -> Iterator[Workshop]:
    """Give a workshop; its directories are removed at the end."""
    with ExitStack() as stack:
        places = []
        # A state is in memory, as /run is.
        for above in (tempfile.gettempdir(), MEMORY):
            places.append(tempfile.mkdtemp(prefix="eci-bench-", dir=above))
            stack.callback(shutil.rmtree, places[-1])
            # A container's root goes through it to its state; the bundles in it are closed.
            os.chmod(places[-1], 0o711)
        directory, state = places
        shop = Workshop(directory, state, programs)
        stack.callback(end_fork_servers, shop.environment["ECI_STATE_DIR"])
        yield shop
