"""One scenario with each system call of the worker failing in turn, and what must hold then."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import resource
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.errnos import errnos_of, name_of
from tests.faults.scenarios import AWAY, EXPOSED, MASKED, PLACE, SPARED, USER, Scenario
from tests.support.bundle import appearing, bind, make_spec
from tests.support.faults import Agent, Injector, LostError, mounts_of_namespaces, open_files
from tests.support.sides import Volumes
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.bundle import Runtime, Spec
    from tests.support.engines import Bundles

RIGHT = "right"
"""The call was answered as without a fault, and has done what it then does."""
ERROR = "error"
"""It was answered by an error, and has done nothing."""
WARM = 6
"""Calls of one thread after which the worker has open what it keeps open of it."""

Kept = tuple[Counter[str], dict[int, int]]
"""Descriptors, and mounts in each namespace of its own."""
Totals = Counter[tuple[str, str, str]]
"""By system call, errno and outcome."""


def errno_name(error: int) -> str:
    """Return the name of an errno; 0 stands for a call that was not made and says nothing."""
    return errno.errorcode.get(error, "nothing")


class Seen(NamedTuple):
    """What came of one call."""

    answer: str
    before: list[str]
    after: list[str]


class Box:
    """A running container, its worker with an injector beside it, and those who call in it."""

    def __init__(self, bundles: Bundles, program: Path, injector: Path, kind: str) -> None:
        """Start it."""
        self.kind = kind
        self._volumes = Volumes.make(bundles.place)
        self._runtime, self._name = _start(bundles, program, kind, self._volumes)
        self._agents: dict[str, Agent] = {}
        self._injector: Injector | None = None
        try:
            state = json.loads(self._runtime.call("state", self._name).stdout)
            self.worker = worker_of(state["pid"])
            self._home = os.stat(f"/proc/{state['pid']}/ns/mnt").st_ino
            root = self.agent(PLACE)
            for call in ("mkdir /tmp/d", "symlink /mnt /tmp/l"):
                root.call(call)
            for who in (AWAY, USER):
                self.agent(who)
            self.agent(AWAY).call("unshare CLONE_NEWNS")
            self._injector = Injector(injector, self.worker)
        except BaseException:
            self.close()
            raise
        self.clean = {who: agent.table() for who, agent in self._agents.items()}

    def agent(self, who: str) -> Agent:
        """Return the one that calls from there."""
        if who not in self._agents:
            user = 1000 if who == USER else 0
            self._agents[who] = Agent(self._runtime, self._name, user=user)
        return self._agents[who]

    def new_agent(self) -> Agent:
        """Return one more, which has made no call yet; the caller's, to be closed."""
        return Agent(self._runtime, self._name)

    @property
    def injector(self) -> Injector:
        """What makes the worker's system calls fail."""
        assert self._injector is not None
        return self._injector

    def kept(self, wanted: Kept | None = None) -> Kept:
        """Return what the worker holds, when it has come to rest; with `wanted`, at that."""
        deadline = time.monotonic() + 2
        before = None
        while True:
            mounts = mounts_of_namespaces(self.worker, [self._home])
            now = without_asked(open_files(self.worker)), mounts
            if now == (before if wanted is None else wanted) or time.monotonic() > deadline:
                return now
            before = now
            time.sleep(0.005)

    def written(self) -> list[str]:
        """Return what was written on the host where nothing may be."""
        return self._volumes.written()

    def close(self) -> None:
        """Let everything go; the container is removed by whoever made the bundles."""
        if self._injector is not None:
            self._injector.close()
        for agent in self._agents.values():
            agent.close()
        self._agents.clear()


def without_asked(files: Counter[str]) -> Counter[str]:
    """Leave out what is kept of a caller by what has been asked of it: one of each (caller.c)."""
    asked = re.compile(r"/\d+/(stat|comm)")
    return Counter(
        {name: count for name, count in files.items() if count > 1 or not asked.fullmatch(name)}
    )


def _start(bundles: Bundles, program: Path, kind: str, volumes: Volumes) -> tuple[Runtime, str]:
    name = bundles.name()
    flags: list[str] = []
    mounts = [bind(volumes.writable, "/w")]
    options: dict[str, object] = {"privileged": kind != MASKED}
    if kind == MASKED:
        mounts += [
            bind(volumes.read_only, "/vol", "ro"),
            bind(volumes.inner, "/w/in", "ro"),
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []},
            bind(volumes.inner, "/t/in", "ro"),
        ]
    if kind == EXPOSED:
        secret = volumes.writable / "secret"
        hidden = bundles.place.directory("hidden") / "secret"
        secret.rename(hidden)
        options["hooks"] = appearing(hidden, secret)
        settings = bundles.place.directory("set") / "settings.json"
        paths = {"protectedPaths": [str(secret)], "sharedPaths": ["/"]}
        settings.write_text(json.dumps({"configurationFileVersion": 2, "vm": paths}))
        flags = ["--settings", str(settings)]
    spec: Spec = make_spec(
        ["sleep", "1000"],
        cgroup=bundles.cgroup(name),
        cap_add=["CAP_SYS_ADMIN"],
        mounts=mounts,
        **options,  # type: ignore[arg-type]
    )
    runtime = bundles.runtime(program, *flags)
    bundles.expect(runtime, name)
    bundle = bundles.write(spec)
    runtime.call("create", "--bundle", str(bundle), name)
    runtime.start(name)
    return runtime, name


class Sweep:
    """One scenario in one container."""

    def __init__(self, box: Box, scenario: Scenario, who: str) -> None:
        self._box = box
        self._scenario = scenario
        self._who = who
        self._agent = box.agent(who)
        self.totals: Totals = Counter()
        self._wanted = self._once()
        refused = self._wanted.answer != "0"
        assert refused == scenario.refused, f"without a fault: {self._wanted.answer}"

    # -- one call -----------------------------------------------------------------------------

    def _prepare(self) -> list[str]:
        for call in self._scenario.before:
            answer = self._agent.call(call)
            assert answer == "0", f"{call}: {answer}: the worker does not go on as before"
        return self._agent.table()

    def _take_back(self) -> None:
        for call in self._scenario.after:
            self._agent.call(call)
        assert self._agent.table() == self._box.clean[self._who], "something is left"

    def _once(self) -> Seen:
        before = self._prepare()
        answer = self._agent.call(self._scenario.call)
        seen = Seen(answer, before, self._agent.table())
        self._take_back()
        return seen

    def _judge(self, seen: Seen) -> str:
        """Return the outcome, or fail."""
        if seen.answer == self._wanted.answer == "0":
            assert seen.after == self._wanted.after, "success without its effect, or with another"
            return RIGHT
        assert seen.answer != "0", "allowed by accident"
        if not self._scenario.partly:
            assert seen.after == seen.before, f"{seen.answer}, and not nothing was done"
        return RIGHT if seen.answer == self._wanted.answer else ERROR

    def _fail(self, nth: int, number: int, error: int, times: int) -> str | None:
        """Return the outcome; None if there was no such system call."""
        before = self._prepare()
        self._box.injector.arm(nth, number, error, times)
        self._agent.send(self._scenario.call)
        calls = self._box.injector.result()
        answer = self._agent.answer()
        outcome = self._judge(Seen(answer, before, self._agent.table()))
        self._take_back()
        return outcome if any(call.failed for call in calls) else None

    def _calls(self) -> list[int]:
        """Return the numbers of the system calls of one undisturbed call."""
        self._prepare()
        self._box.injector.arm()
        self._agent.send(self._scenario.call)
        calls = self._box.injector.result()
        assert self._agent.answer() == self._wanted.answer
        self._take_back()
        return [call.number for call in calls]

    # -- all of them ----------------------------------------------------------------------------

    def run(self, *, every: bool) -> None:
        """Have each system call fail, with `every` errno and twice in a row as well.

        What the worker has kept in the end it must keep no more of when all is done again: on a
        busy machine a thread of its own seems to hang, and another one begins anew (hangs.c).
        """
        self._warm()
        kept = self._box.kept()
        self._fail_each(every=every)
        now = self._box.kept(kept)
        if now != kept:
            self._fail_each(every=every)
            again = self._box.kept(now)
            assert again == now, f"the worker keeps something: first {kept}, then {now}, {again}"
        assert self._box.written() == []

    def _warm(self) -> None:
        for _ in range(WARM):
            self._once()

    def _fail_each(self, *, every: bool) -> None:
        for nth, number in enumerate(self._calls(), 1):
            for error in errnos_of(number, every=every):
                self._try(nth, number, error, 1)
            if every:
                self._try(nth, number, errnos_of(number, every=True)[0], 2)
        self._warm()

    def _try(self, nth: int, number: int, error: int, times: int) -> None:
        name = name_of(number)
        try:
            outcome = self._fail(nth, number, error, times)
        except AssertionError as problem:
            call = self._scenario.call
            problem.add_note(f"{call}: {nth}, {name}: {errno_name(error)}, {times} times")
            raise
        if outcome is not None:
            self.totals[name, errno_name(error), outcome] += 1

    def starve(self, limit: int, values: Iterator[int]) -> None:
        """Let the worker have no more than each of the values of a resource limit."""
        before = resource.prlimit(self._box.worker, limit)
        for value in values:
            start = self._prepare()
            resource.prlimit(self._box.worker, limit, (value, before[1]))
            try:
                answer = self._agent.call(self._scenario.call)
                seen = Seen(answer, start, self._agent.table())
            finally:
                resource.prlimit(self._box.worker, limit, before)
            outcome = self._judge(seen)
            self._take_back()
            self.totals[f"limit {limit}", "", outcome] += 1


def pairs(kind: str, *, every: bool) -> Iterator[tuple[Scenario, str]]:
    """Return the scenarios of a kind of container, and who calls."""
    from tests.faults.scenarios import SCENARIOS  # noqa: PLC0415

    for scenario in SCENARIOS:
        if kind in scenario.kinds and (every or scenario.quick):
            yield from itertools.product([scenario], scenario.who if every else scenario.who[:1])


__all__ = ["ERROR", "RIGHT", "SPARED", "Box", "LostError", "Sweep", "Totals", "pairs"]
