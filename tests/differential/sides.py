"""The two containers of a comparison, and the program in each that makes the calls.

Both containers are eci-runtime's, so that the kernel has locked the same mounts in both.  In the
one the program comes by the runtime's exec and has its filter.  Into the other it is put from the
host, past runtime and filter: there the kernel alone answers.
"""

from __future__ import annotations

import errno
import json
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias
from urllib.parse import quote

from tests.differential.oracle import COVERED, ELSEWHERE, Oracle, Refusal
from tests.differential.table import Base, Describer, SuperBlocks, Table, below
from tests.support.bundle import (
    ALL_CAPS,
    DEFAULT_CAPS,
    MASKED,
    READONLY,
    Runtime,
    bind,
    make_spec,
    write_bundle,
)
from tests.support.programs import compile_programs
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.place import Place

ECI_RUNTIME = Path(__file__).parents[2] / "eci_supervisor/bin/eci-runtime"
PRIVILEGED = "privileged"
SYS_ADMIN = "sys_admin"
KINDS = (PRIVILEGED, SYS_ADMIN)
PROGRAMS = ("sequence", "sequence32")
PATIENCE = 2.0
"""Seconds until an answer or a trace line counts as lost."""

FAMILY = frozenset(
    ("mount", "umount2", "umount", "expire", "move_mount", "mount_setattr", "fsmount")
)
"""The calls that are trapped."""
ASK, EXEC = 1, 2


def expand(word: str) -> str:
    """Write out what is repeated in a word of a script: `{4000:a}`."""
    return re.sub(r"\{(\d+):([^}]*)\}", lambda found: found[2] * int(found[1]), word)


def encode(line: str) -> str:
    """Turn a line of a script into what the program reads; spaces in texts are %20."""
    return " ".join(
        word[0] + quote(expand(word[1:]), safe="/,=.:@%!*~+-_#") if word[0] in "=>!" else word
        for word in line.split(" ")
    )


# -- one container with a program in it -----------------------------------------------------


@dataclass(slots=True)
class Run:
    """What became of a script."""

    name: str
    """The name that its calls go by in the trace."""
    lines: Sequence[str]
    start: Table
    end: Table
    answers: list[list[str]]
    """For each call what it returned: names of errors, or 0; two where a call makes two."""
    refusals: dict[int, Refusal]
    """What the rules say, by the number of the call; without protection only."""


def _answer(word: str) -> str:
    """Return the name of the error in the program's answer."""
    mark, _, number = word.rpartition("-")
    return word if not number.isdigit() or not int(number) or "-" not in word else (
        mark + errno.errorcode.get(int(number), number)
    )  # fmt: skip


Judge: TypeAlias = "Callable[[Table, int, list[str], Table, Table], Refusal | None]"
"""By the first mount table, the number of the call, its facts, the table now, what is detached."""


class Program:
    """The program as a process in a container, fed through pipes."""

    def __init__(self, argv: Sequence[str], base: int) -> None:
        self._base = base
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin
        self._from = self._process.stdout

    def send(self, name: str, script: Sequence[str], bits: int) -> None:
        """Have a script run; `receive` must be the next."""
        text = "\n".join([f"S {name} {bits:x}", *map(encode, script), "E", ""])
        self._to.write(text.encode())
        self._to.flush()

    def receive(
        self,
        name: str,
        script: Sequence[str],
        judge: Judge | None = None,
    ) -> Run:
        """Return what became of the script; `judge` says which calls are not to be made."""
        tables: list[list[str]] = []
        detached: list[str] = []
        answers: list[list[str]] = [[] for _ in script]
        refusals: dict[int, Refusal] = {}
        start: Table | None = None
        table: Table | None = None
        asked = 0
        for raw in self._from:
            line = raw.decode("utf-8", "surrogateescape").rstrip("\n")
            kind, _, rest = line.partition(" ")
            if kind == "N":
                tables.append([])
                table = None
            elif kind == "M":
                tables[-1].append(rest)
            elif kind == "X":
                detached.append(rest)
            elif kind == "F":
                assert judge is not None
                start = start or Table.read(tables[0], self._base)
                table = table or Table.read(tables[-1], self._base)
                while answers[asked] or script[asked].split(" ")[1] not in FAMILY:
                    asked += 1
                loose = Table.read(detached, self._base)
                detached = []
                refusal = judge(start, asked, rest.split(" "), table, loose)
                if refusal:
                    refusals[asked] = refusal
                self._to.write(b"s" if refusal and refusal.reason else b"g")
                self._to.flush()
            elif kind == "R":
                number, _, word = rest.partition(" ")
                answers[int(number)].append(_answer(word))
            elif kind == "D":
                assert rest == "0", f"the program's child ended with {rest}: {script}"
                start = start or Table.read(tables[0], self._base)
                end = Table.read(tables[-1], self._base)
                return Run(name, script, start, end, answers, refusals)
            else:
                break
        raise AssertionError(f"the program says {raw!r} to {list(script)}")

    def close(self) -> None:
        """End it."""
        self._to.close()
        self._from.close()
        self._process.wait(PATIENCE)


@dataclass
class Container:
    """A running container."""

    runtime: Runtime
    name: str
    kind: str
    enter: Path | None
    """What puts a program into it past the runtime; None: by the runtime."""
    programs: dict[str, Program] = field(default_factory=dict)

    def program(self, name: str) -> Program:
        """Return the running program of that name."""
        if name not in self.programs:
            path = f"/bin/{name}"
            if self.enter:
                caps = ALL_CAPS if self.kind == PRIVILEGED else [*DEFAULT_CAPS, "CAP_SYS_ADMIN"]
                argv = [str(self.enter), str(self.pid()), f"{_mask(caps):x}", path]
            else:
                argv = self.runtime.argv("exec", self.name, path)
            self.programs[name] = Program(argv, self.base())
        return self.programs[name]

    def base(self) -> int:
        """Return the host's number of the id 0 in it."""
        inside, outside, size = Path(f"/proc/{self.pid()}/uid_map").read_text().split()
        assert (inside, size) == ("0", "65536")
        return int(outside)

    def pid(self) -> int:
        """Return the host's number of its first process."""
        return int(json.loads(self.runtime.call("state", self.name).stdout)["pid"])

    def close(self) -> None:
        """Remove it."""
        for program in self.programs.values():
            program.close()
        self.runtime.call("delete", "--force", self.name)


# -- the trace --------------------------------------------------------------------------------

TRACE_LINE = re.compile(r"\S+ \S+\[\d+\] (\S+): (.*) = (\?|0|-1 \S+) <([^>]+)> \d+us")


Trail: TypeAlias = list[tuple[str, str]]
"""Result and reason of a call, or of two."""


class Trace:
    """The trace of a container, by the names of the calling threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._lines: dict[str, list[tuple[str, str]]] = {}

    def _read(self) -> None:
        if self._file is None:
            if not self._path.exists():
                return
            self._file = self._path.open("rb")
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            found = TRACE_LINE.fullmatch(line.decode())
            assert found, line
            result = found[3].removeprefix("-1 ")
            self._lines.setdefault(found[1], []).append((result, found[4]))

    def take(self, name: str, count: int) -> Trail:
        """Return result and reason of all the calls of that name, when there are `count`."""
        deadline = time.monotonic() + PATIENCE
        while len(self._lines.get(name, [])) < count and time.monotonic() < deadline:
            self._read()
            if len(self._lines.get(name, [])) < count:
                time.sleep(0.001)
        return self._lines.pop(name, [])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


# -- the pair ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Script:
    """Calls, and who makes them where."""

    kind: str
    program: str
    lines: tuple[str, ...]
    over_proc: bool = False
    """The program is started once more over /proc/self/root."""

    def __str__(self) -> str:
        """As it is written in test_found.py."""
        lines = "".join(f"        {line!r},\n" for line in self.lines)
        over = ", over_proc=True" if self.over_proc else ""
        return f"Script({self.kind!r}, {self.program!r}, (\n{lines}    ){over})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a script on both sides."""

    differences: list[str]
    calls: int
    """Calls of the family that were compared."""
    done: int
    """Calls that were successful."""
    refused: int
    """Calls that a rule refused."""


class WornError(Exception):
    """A script has changed a file system that the next ones find in the container."""


class Pair:
    """A container whose calls the supervisor gets and one where the kernel does, of one kind."""

    def __init__(self, sides: Sides, kind: str) -> None:
        place = sides.place
        self._kind = kind
        number = sides.next_number()
        trace = place.directory("trace") / "lines"
        self._trace = Trace(trace)
        traced = Runtime(str(ECI_RUNTIME), place.directory("rt"), env={"ECI_TRACE": str(trace)})
        self.protected = sides.start(traced, f"d{number}", kind)
        try:
            untraced = Runtime(str(ECI_RUNTIME), place.directory("rt"))
            self.bare = sides.start(untraced, f"k{number}", kind, bare=True)
        except BaseException:
            self.protected.close()
            raise
        self._count = 0
        self._first: list[SuperBlocks] = []

    def run(self, script: Script) -> Comparison:
        """Run the script on both sides; `WornError` if they are not as they were at first."""
        self._count += 1
        name = f"{self._count:x}"
        bits = EXEC if script.over_proc else 0
        masked, readonly = ((), ()) if self._kind == PRIVILEGED else (MASKED, READONLY)
        small = script.program.endswith("32")
        oracles: list[Oracle] = []

        def judge(
            start: Table, number: int, facts: list[str], table: Table, detached: Table
        ) -> Refusal | None:
            line = script.lines[number]
            if line.startswith("u"):
                return None
            if not oracles:
                oracles.append(Oracle(Base(start), masked, readonly, 32 if small else 64))
            return oracles[0].judge(expand(line).split(" ")[1:], facts, table, detached)

        protected = self.protected.program(script.program)
        control = self.bare.program(script.program)
        protected.send(name, script.lines, bits)
        control.send(name, script.lines, bits | ASK)
        bare = control.receive(name, script.lines, judge)
        ours = protected.receive(name, script.lines)
        assert Base(bare.start).layout == Base(ours.start).layout, "the two have other mounts"
        found_as = [Base(run.start).super_blocks for run in (bare, ours)]
        self._first = self._first or found_as
        if self._first != found_as:
            raise WornError
        # Only i386 has umount(2) without flags.
        family = FAMILY if small else FAMILY - {"umount"}
        traces = [self._take(ours, number, family) for number in range(len(script.lines))]
        ends = (number for number, trace in enumerate(traces)
                if _is_covered(bare, ours, number)
                or _is_undecided(trace)
            or _is_unknown(bare, ours, number)
                or _is_held(bare, ours, number))  # fmt: skip
        end = next(ends, None)
        found = [
            f"{number} {line}: {text}"
            for number, line in enumerate(script.lines[:end])
            for text in _differ(bare, ours, number, traces[number])
        ]
        return Comparison(
            found + (_tables(bare, ours) if end is None else _unmasked(ours)),
            calls=sum(line.split(" ")[1] in FAMILY for line in script.lines[:end]),
            done=sum(answer.count("0") for answer in ours.answers[:end]),
            refused=sum(bool(one.reason) for one in bare.refusals.values()),
        )

    def _take(self, ours: Run, number: int, family: frozenset[str]) -> Trail | None:
        """Return what the trace has of a call; None of one that is not trapped or was not made."""
        answer = ours.answers[number]
        if ours.lines[number].split(" ")[1] not in family or answer[0].startswith("U"):
            return None
        return self._trace.take(f"{ours.name}.{number}", len(answer))

    def close(self) -> None:
        """Remove both."""
        self._trace.close()
        self.protected.close()
        self.bare.close()


def _differ(bare: Run, ours: Run, number: int, trail: Trail | None) -> Iterator[str]:
    """Say what is different of a call."""
    answer, refusal = ours.answers[number], bare.refusals.get(number)
    expected = _expected(bare, ours, number)
    if _settled(answer) != _settled(expected):
        rule = f" <{refusal.reason}>" if refusal else ""
        yield f"{answer}, expected {expected}{rule}"
    if trail is None:
        return
    if len(trail) != len(answer):
        yield f"the trace has {trail}"
    for seen, (result, reason) in zip(answer, trail, strict=False):
        if result not in {"?", seen}:
            yield f"the trace has {result}, the caller {seen}"
        if not _is_due(reason, refusal):
            yield f"<{reason}>, expected {refusal.reason if refusal else 'no refusal'}"


def _settled(answers: list[str]) -> list[str]:
    """Return the first and the last one: of MNT_EXPIRE, which is asked until it says more."""
    return [answers[0], answers[-1]] if len(answers) > 2 else answers


def _is_undecided(trail: Trail | None) -> bool:
    """Say whether it could not be found out whether a path is protected: here none is.

    So of a file whose name leads nowhere from the caller's root.  What follows is not compared.
    """
    return trail == [("EPERM", "refused:host-protected-path")]


def _expected(bare: Run, ours: Run, number: int) -> list[str]:
    """Return what the protected side has to answer; its own answer where others will do as well."""
    answer, kernels = ours.answers[number], bare.answers[number]
    refusal = bare.refusals.get(number)
    if refusal is ELSEWHERE:
        unlike = kernels not in (["EINVAL"] * len(answer), ["ENOENT"])
        sure = unlike or not set(answer) <= {"EPERM", "EBUSY"}
    elif refusal is COVERED:
        # Something else may be wrong with the call, of which "too revealing" tells nothing.
        sure = kernels != ["EPERM"]
    elif refusal:
        return [refusal.error] * len(answer)
    else:
        sure = not _is_other_descriptor(ours, number, kernels)
    return kernels if sure else answer


def _is_due(reason: str, refusal: Refusal | None) -> bool:
    """Say whether the reason of the trace is what the rules say."""
    if refusal is ELSEWHERE:
        return True
    if refusal and refusal.reason:
        return reason == refusal.reason
    return not reason.startswith("refused:")


def _is_covered(bare: Run, ours: Run, number: int) -> bool:
    """Say whether the call made a procfs or sysfs that only the supervisor makes.

    What follows is not compared: the kernel alone has no such mount.
    """
    return (
        bare.refusals.get(number) is COVERED
        and ours.answers[number] == ["0"]
        and bare.answers[number] == ["EPERM"]
    )


def _is_unknown(bare: Run, ours: Run, number: int) -> bool:
    """Say whether a mount was refused of which the oracle knows nothing, and not by the kernel."""
    return (
        bare.refusals.get(number) is ELSEWHERE
        and set(ours.answers[number]) <= {"EPERM", "EBUSY"}
        and bare.answers[number] == ["0"]
    )


def _is_held(bare: Run, ours: Run, number: int) -> bool:
    """Say whether the worker itself kept a mount busy that has no name from the caller's root.

    What has none is unmounted by a descriptor of it, or not at all where something that cannot be
    told from there may lie on it.  A known difference, and the stricter answer.
    """
    _, call, path, *_ = ours.lines[number].split(" ")
    name = path[1:].rstrip("/").rpartition("/")[2]
    return (
        call in {"umount", "umount2"}
        and (name in {"", ".", "..", "cwd", "root"} or name.isdigit())
        and ours.answers[number] == ["EBUSY"]
        and bare.answers[number] in (["0"], ["EINVAL"])
    )


def _is_other_descriptor(ours: Run, number: int, kernels: list[str]) -> bool:
    """Say whether a directory's descriptor was given where the kernel makes an O_PATH one.

    fsmount does so in a container with masks (ARCHITECTURE.md, "In the caller's place").
    """
    call = ours.lines[number].split(" ")[1]
    return (
        any("fsmount" in one for one in ours.lines)
        and call in {"fsconfig", "fsmount", "mount_setattr"}
        and (ours.answers[number], kernels) == (["EINVAL"], ["EBADF"])
    )


def _unmasked(ours: Run) -> list[str]:
    """Find what is missing on a procfs or sysfs: the first ones have all that each must have."""
    base = Base(ours.start)
    missing = []
    for mount in ours.end.mounts.values():
        if mount.fstype not in {"proc", "sysfs"} or mount.root != "/":
            continue
        first = next(one for one in base.table.mounts.values()
                     if (one.fstype, one.root) == (mount.fstype, "/"))  # fmt: skip
        has, wanted = (
            {
                (below(one.point, top.point), one.root, word)
                for one in table.mounts.values()
                if one.parent == top.ident and one.point != top.point
                for word in one.options & {"rw", "ro"} | {"rw"}
            }
            for table, top in ((ours.end, mount), (base.table, first))
        )
        missing += [f"{mount.point} is without {one}" for one in wanted - has]
    return missing


def _tables(bare: Run, ours: Run) -> list[str]:
    """Compare what is mounted at the end."""
    kernels, mine = (Describer(Base(run.start)).describe(run.end) for run in (bare, ours))
    if kernels == mine:
        return []
    return [f"- {line}" for line in kernels if line not in mine] + [
        f"+ {line}" for line in mine if line not in kernels
    ] or ["the mount tables have another order"]


class Sides:
    """Pairs of containers, started when they are needed."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._numbers = 0
        self._pairs: dict[str, Pair] = {}
        self._programs = compile_programs(place.directory("c"), ("sequence",))
        self._enter = compile_programs(place.directory("c"), ("enter",))["enter"]

    def next_number(self) -> int:
        """Return a number that no container has."""
        self._numbers += 1
        return self._numbers

    def pair(self, kind: str) -> Pair:
        """Return the running containers of that kind."""
        if kind not in self._pairs:
            self._pairs[kind] = Pair(self, kind)
        return self._pairs[kind]

    def run(self, script: Script) -> Comparison:
        """Run the script on both sides."""
        try:
            try:
                return self.pair(script.kind).run(script)
            except WornError:
                self.renew(script.kind)
                return self.pair(script.kind).run(script)
        except BaseException:
            self.renew(script.kind)
            raise

    def renew(self, kind: str) -> None:
        """Take new containers for the next script."""
        pair = self._pairs.pop(kind, None)
        if pair:
            pair.close()

    def close(self) -> None:
        """Remove all."""
        for kind in KINDS:
            self.renew(kind)

    def start(self, runtime: Runtime, name: str, kind: str, *, bare: bool = False) -> Container:
        """Start a container; in a `bare` one the programs are put past the supervisor."""
        place = self.place
        root = build_root(place.directory("b") / "root", self._programs.values())
        read_only, writable, inner, flagged = (place.directory("v") for _ in range(4))
        for path in (read_only / "sub", writable / "in", writable / "sub", flagged / "sub"):
            path.mkdir()
        for path in (read_only, writable, inner, flagged):
            (path / "file").touch()
        spec = make_spec(
            ["sleep", "1000000"],
            cgroup=f"/{place.cgroup}/{name}",
            privileged=kind == PRIVILEGED,
            cap_add=["CAP_SYS_ADMIN"],
            mounts=[
                bind(read_only, "/vol", "ro"),
                bind(writable, "/w"),
                bind(inner, "/w/in", "ro"),
                bind(flagged, "/n", "nosuid", "nodev", "noexec"),
            ],
        )
        spec["linux"]["namespaces"].append({"type": "cgroup"})
        bundle = write_bundle(place.directory("bundle"), spec, root)
        container = Container(runtime, name, kind, self._enter if bare else None)
        try:
            runtime.call("create", "--bundle", str(bundle), name)
            runtime.start(name)
        except BaseException:
            runtime.call("delete", "--force", name, check=False)
            raise
        return container


def _mask(caps: Sequence[str]) -> int:
    """Return capabilities as a bit mask."""
    text = Path("/usr/include/linux/capability.h").read_text()
    numbers = dict(re.findall(r"^#define (CAP_\w+)\s+(\d+)$", text, re.MULTILINE))
    return sum(1 << int(numbers[cap]) for cap in caps)


@contextmanager
def sides_in(place: Place) -> Iterator[Sides]:
    """Yield sides that are removed at the end."""
    sides = Sides(place)
    try:
        yield sides
    finally:
        sides.close()
