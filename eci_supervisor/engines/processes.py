"""Processes of engines, as /proc shows them: daemons, and what stands beside each container."""

from __future__ import annotations

import os
import time
import tomllib
from typing import TYPE_CHECKING

import msgspec
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ADDRESS = "/run/containerd/containerd.sock"
"""Where a containerd listens unless told otherwise."""


class Beside(msgspec.Struct, frozen=True):
    """A container that an engine's helper process looks after."""

    engine: str
    """`docker`, `containerd:NAMESPACE` or `podman`."""
    id: str
    name: str
    """What podman calls it; empty elsewhere."""
    pid: int
    """Its first process, in the host's PID namespace."""
    bundle: str
    address: str = ""
    """The socket of the containerd that starts its processes; empty for podman."""


class Daemon(msgspec.Struct, frozen=True):
    """A dockerd or containerd that runs."""

    name: str
    pid: int
    config: str
    """The file that it was started with."""
    path: str
    """Its PATH."""
    begun: float
    """When it was started, in seconds since the epoch."""
    address: str
    """Where a containerd listens; empty for a dockerd."""


def alive(pid: int) -> bool:
    """Say whether this process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def value_of(words: Sequence[str], *flags: str, default: str = "") -> str:
    """Return the value of the first of these flags on a command line: `-f V`, `--f V`, `--f=V`."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in flags:
            if equals:
                return value
            return words[index + 1] if index + 1 < len(words) else default
    return default


def _own() -> Iterator[tuple[psutil.Process, list[str]]]:
    """Give the processes of this PID namespace, and not those of engines in containers."""
    here = os.stat("/proc/self/ns/pid").st_ino
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"]
        try:
            if words and os.stat(f"/proc/{process.pid}/ns/pid").st_ino == here:
                yield process, words
        except OSError:
            continue


def read_pid(path: str) -> int:
    """Return the pid in a file; 0 where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _of_shim(pid: int, words: list[str]) -> Iterator[Beside]:
    """Give the containers of a shim: in a pod it looks after several, whose bundles lie together.

    A shim works in the bundle of the first one, `…/NAMESPACE/ID`; each has a file init.pid.
    """
    namespace = value_of(words, "-namespace", "--namespace")
    try:
        parent = os.path.dirname(os.readlink(f"/proc/{pid}/cwd"))
        names = sorted(os.listdir(parent))
    except OSError:
        return
    engine = "docker" if namespace == "moby" else f"containerd:{namespace}"
    for name in names:
        init = read_pid(f"{parent}/{name}/init.pid")
        if init and alive(init):
            address = value_of(words, "-address", "--address", default=ADDRESS)
            yield Beside(engine, name, "", init, f"{parent}/{name}", address)


def beside() -> list[Beside]:
    """Return the running containers of containerd (Docker's among them) and podman."""
    found: dict[int, Beside] = {}
    for process, words in _own():
        program = os.path.basename(words[0])
        if program.startswith("containerd-shim"):
            for one in _of_shim(process.pid, words):
                found.setdefault(one.pid, one)
        elif program == "conmon":
            init = read_pid(value_of(words, "-p", "--container-pidfile"))
            if init and alive(init):
                found[init] = Beside(
                    "podman",
                    value_of(words, "-c", "--cid"),
                    value_of(words, "-n", "--name"),
                    init,
                    value_of(words, "-b", "--bundle"),
                )
    return list(found.values())


def _begun(pid: int) -> float:
    """Return when a process was started, in seconds since the epoch, to a clock tick.

    proc_pid_stat(5): in ticks after the boot, which psutil knows to a second only.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - up + (ticks + 1) / os.sysconf("SC_CLK_TCK")


def _address(config: str) -> str:
    """Return where a containerd with this configuration listens, if no flag says otherwise."""
    try:
        with open(config, "rb") as file:
            grpc = tomllib.load(file).get("grpc")
    except (OSError, tomllib.TOMLDecodeError):
        return ADDRESS
    found = grpc.get("address") if isinstance(grpc, dict) else None
    return found if isinstance(found, str) and found else ADDRESS


def daemons() -> list[Daemon]:
    """Return the dockerd and containerd processes that run."""
    found = []
    for process, words in _own():
        name = os.path.basename(words[0])
        if name not in ("dockerd", "containerd"):
            continue
        try:
            path = process.environ().get("PATH", "")
            begun = _begun(process.pid)
        except (psutil.Error, OSError):
            continue
        usual = "/etc/docker/daemon.json" if name == "dockerd" else "/etc/containerd/config.toml"
        config = value_of(words, "--config-file", "--config", "-c", default=usual)
        address = value_of(words, "--address", "-a") or _address(config)
        if name == "dockerd":
            address = ""
        found.append(Daemon(name, process.pid, config, path, begun, address))
    return found


def keepers() -> dict[str, int]:
    """Return state directory -> pid of the keeper that holds its lock open.

    Its second (csrc/second.c) does as well, and is its child.
    """
    found: dict[str, dict[int, int]] = {}
    for process, words in _own():
        try:
            with open(f"/proc/{process.pid}/comm", encoding="ascii", errors="replace") as file:
                # One that takes up its work again gets its name a moment after it began.
                if file.read().strip() != "eci-keeper" and "resume" not in words:
                    continue
            for fd in os.listdir(f"/proc/{process.pid}/fd"):
                target = os.readlink(f"/proc/{process.pid}/fd/{fd}")
                if target.endswith("/lock"):
                    found.setdefault(os.path.dirname(target), {})[process.pid] = process.ppid()
        except (OSError, psutil.NoSuchProcess):
            continue
    return {
        directory: next(pid for pid, parent in parents.items() if parent not in parents)
        for directory, parents in found.items()
    }
