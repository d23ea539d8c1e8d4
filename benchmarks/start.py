"""What a container costs that does nothing: time to begin and to end, memory, wake-ups.

- `create`, `start`, `exec`, `state`, `kill`, `delete`: milliseconds of these calls of the runtime.
  `native` is bare runc, with a user namespace of the same size; the two take turns.
- With ever more containers alive, and idle for some seconds: memory of all processes of this
  project, proportional (PSS) and private, and their open descriptors, each by the number of
  containers; and how often they are woken in a minute, all together.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.bare import BASE, unprotected
from benchmarks.containers import NoAnswerError, workshop
from benchmarks.frame import summary
from tests.support.fork_servers import fork_servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.containers import Workshop
    from benchmarks.frame import Result, Run

NAME = "start"
PROGRAM = ("/calls", "/eci")
CALLS = ("create", "start", "exec", "state", "kill", "delete")
OURS = {
    "eci-worker", "eci-holder", "eci-keeper", "eci-view", "eci-runtime", "eci-fork-server",
    "eci-standby", "eci-prepare",
}  # fmt: skip
REST = 4.0
"""Seconds until the keepers are at rest."""


def measure(run: Run) -> Iterator[Result]:
    """Yield the times of the calls, and then what stays."""
    with workshop() as shop:
        yield from calls(run, shop)
        yield from idle(run, shop)


@dataclass(frozen=True, slots=True)
class Rung:
    """A runtime, and a bundle for it."""

    command: tuple[str, ...]
    bundle: str
    environment: Mapping[str, str]

    def call(self, *words: str, stdin: int = subprocess.DEVNULL) -> float:
        """Make one call of the runtime; return how many milliseconds it took."""
        began = time.monotonic()
        # Nothing to be read from: the container keeps what it inherits.
        done = subprocess.run(
            [*self.command, *words],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            check=False,
        )
        took = (time.monotonic() - began) * 1000
        if done.returncode:
            raise NoAnswerError(f"{self.command[0]} {words[0]}: exit {done.returncode}")
        return took

    def is_running(self, identity: str) -> bool:
        """Say whether the container runs, after its runtime."""
        state = subprocess.run([*self.command, "state", identity], env=self.environment,
                               check=True, capture_output=True)  # fmt: skip
        return bool(json.loads(state.stdout)["status"] == "running")

    def life(self, identity: str) -> dict[str, float]:
        """Lead a container through its life; return the time of each call."""
        # Its program ends with its input.
        theirs, ours = os.pipe()
        try:
            times = {
                "create": self.call("create", "--bundle", self.bundle, identity, stdin=theirs),
                "start": self.call("start", identity),
                "exec": self.call("exec", identity, *PROGRAM),
                "state": self.call("state", identity),
                "kill": self.call("kill", identity, "KILL"),
            }
        finally:
            os.close(theirs)
            os.close(ours)
        while self.is_running(identity):
            time.sleep(0.01)
        return times | {"delete": self.call("delete", identity)}

    def clear_up(self, identity: str) -> None:
        """Remove what a life that was cut short has left."""
        subprocess.run([*self.command, "delete", "--force", identity], env=self.environment,
                       check=False, capture_output=True)  # fmt: skip


def calls(run: Run, shop: Workshop) -> Iterator[Result]:
    """Yield the statistics of each call of the runtime."""
    rungs = {
        "native": Rung(
            ("runc", "--root", os.path.join(shop.state, "bare")), bare(shop), shop.environment
        ),
        "eci": Rung(tuple(shop.runtime()), shop.bundle("life"), shop.environment),
    }
    times: dict[str, dict[str, list[float]]] = {name: {} for name in rungs}
    for number in run.steps(range(run.pick(5, 40)), "start: calls"):
        for name, rung in rungs.items():
            identity = f"eci-bench-{name}-{number}-{secrets.token_hex(4)}"
            try:
                for call, took in rung.life(identity).items():
                    times[name].setdefault(call, []).append(took)
            finally:
                rung.clear_up(identity)
    for call in CALLS:
        for name in rungs:
            yield summary(NAME, call, name, "ms", times[name][call])


def bare(shop: Workshop) -> str:
    """Make the same bundle with a user namespace in it, and return its path."""
    bundle = shop.bundle("bare")
    file = os.path.join(bundle, "config.json")
    with open(file, encoding="utf-8") as stream:
        config: dict[str, Any] = json.load(stream)
    with open(file, "w", encoding="utf-8") as stream:
        json.dump(unprotected(config), stream)
    os.chmod(bundle, 0o711)
    for directory, _, names in os.walk(os.path.join(bundle, "rootfs")):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            os.chown(path, BASE, BASE)
    return bundle


def ours() -> set[int]:
    """Return the processes of this project that there are, of all containers."""
    found = set()
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        words = process.info["cmdline"] or [""]
        if OURS & {os.path.basename(words[0]), process.info["name"]}:
            found.add(int(process.info["pid"]))
    return found


def idle(run: Run, shop: Workshop) -> Iterator[Result]:
    """Yield what the processes of ever more idle containers take."""
    # The fork server has come with the first create, and counts.
    before = ours() - fork_servers(shop.environment["ECI_STATE_DIR"])
    with ExitStack() as stack:
        alive = 0
        for count in run.steps(run.pick((1, 10), (1, 20, 100)), "start: memory"):
            for _ in range(count - alive):
                stack.enter_context(shop.container())
            alive = count
            time.sleep(REST)
            pids = ours() - before
            point = f"containers {count}"
            pss, private = memory(pids)
            yield one(f"PSS per container, {point}", "MiB", pss / count / 1024)
            yield one(f"private per container, {point}", "MiB", private / count / 1024)
            descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
            yield one(f"descriptors per container, {point}", "fds", descriptors / count)
        seconds = run.pick(5, 30)
        woken = switches(pids)
        time.sleep(seconds)
        yield one("wake-ups per minute", "1/min", (switches(pids) - woken) * 60 / seconds)


def one(case: str, unit: str, value: float) -> Result:
    """Return the result of a single look."""
    return summary(NAME, case, "eci", unit, [value])


def memory(pids: set[int]) -> tuple[int, int]:
    """Return proportional and private memory of processes, in KiB (proc_pid_smaps_rollup)."""
    pss = private = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            for line in stream:
                word, *rest = line.split()
                if word == "Pss:":
                    pss += int(rest[0])
                elif word in ("Private_Clean:", "Private_Dirty:"):
                    private += int(rest[0])
    return pss, private


def switches(pids: set[int]) -> int:
    """Return how often the threads of processes have been put on a processor."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as stream:
                total += sum(int(line.split()[1]) for line in stream if "ctxt_switches" in line)
    return total
