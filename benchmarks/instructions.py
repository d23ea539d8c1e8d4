"""How many instructions and system calls the worker takes for one call, without any noise.

`python -m benchmarks.instructions --check` fails where a count has grown over the recorded one;
`--record` writes new ones.  Times differ from run to run and from machine to machine, these do not:
the worker of a real container is single-stepped (steps.c) while a program in it makes the calls.
Valgrind, whose callgrind would do the same, answers ENOSYS to the newer system calls that the
worker lives on (openat2 and statmount, as of the version in Debian 12), and virtual machines often
have no counter of instructions.

Compared are the program's own instructions, how often it calls into libraries, and its system
calls.  Instructions in libraries are shown only: glibc chooses its string functions by the
processor.  Another compiler, or a kernel without PIDFD_GET_INFO (6.13), gives other counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, astuple, dataclass
from errno import ENOENT, EPERM
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from benchmarks.containers import HERE, NoAnswerError, workshop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.containers import Program, Workshop

RECORDED = os.path.join(HERE, "instructions.json")
MAY_GROW = 0.02
"""More than this part more than recorded is a failure."""
BAND = 0.01
"""How far a round may be from the median.  Most calls give the same number each time; a search for
a device number ends sooner or later by a dozen instructions, and the kernel chooses that number
anew for each tmpfs."""
REPEATS = 5
REST = 1.5
"""Seconds, after which a worker without calls is at rest: 5 looks of 0.1 s (csrc/hangs.c)."""
SETTLE_SECONDS = 0.02
"""Between calls, so that the worker waits for each."""

# One round: what is called, in this order, with the errno that it must give.
ROUND = (
    ("tmpfs", 0),
    ("umount", 0),
    ("bind", 0),
    ("remount", 0),
    ("setattr", 0),
    ("move", 0),
    ("back", 0),
    ("umount", 0),
    ("failing", ENOENT),
    ("refused", EPERM),
)
TITLES = (
    "mount tmpfs",
    "umount tmpfs",
    "mount --bind",
    "remount,bind",
    "mount_setattr",
    "move_mount",
    "",
    "umount bind",
    "mount, fails: ENOENT",
    "remount, refused: EPERM",
)
"""What each step of the round is shown as; those without a name are not."""


KINDS: Mapping[str, tuple[bool, tuple[str, ...]]] = {
    "": (True, ()),
    ", few capabilities": (False, ()),
    ", own namespace": (True, ("unshare",)),
}
"""What calls have behind their titles, whether their container is privileged, and what comes before
them.  A container that is not privileged has masks, and callers with fewer capabilities than the
worker; a caller in a mount namespace of its own has the worker go there."""


class CountError(Exception):
    """Nothing was counted, or not what should be; the text says why."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the worker executes from one receive to the next."""

    program: int
    """Instructions of its own."""
    libraries: int
    """Instructions elsewhere, but for the vDSO."""
    entries: int
    """How often it calls into a library."""
    syscalls: int

    @classmethod
    def parse(cls, line: str) -> Counts:
        """Read a line of `steps`."""
        words = line.split()
        if len(words) != len(cls.__slots__):
            raise CountError(f"steps: {line.strip() or 'no answer'}")
        return cls(*map(int, words))


COMPARED = ("program", "entries", "syscalls")


def steady(name: str, counts: list[Counts]) -> Counts:
    """Return their medians; CountError where one of those compared is not within `BAND`."""
    middle = Counts(*(median_low(kind) for kind in zip(*map(astuple, counts), strict=True)))
    for kind in COMPARED:
        wanted = getattr(middle, kind)
        if any(abs(getattr(one, kind) - wanted) > wanted * BAND for one in counts):
            raise CountError(f"{name}: not the same each time: {counts}")
    return middle


def waking(counts: list[Counts]) -> list[Counts]:
    """Return those with most system calls.

    A refusal wakes the keeper where that sleeps, and it has a rhythm of its own: these are those
    that found it asleep, unless none did.
    """
    most = max(one.syscalls for one in counts)
    return [one for one in counts if one.syscalls == most]


def growth(recorded: Mapping[str, Counts], found: Mapping[str, Counts]) -> list[str]:
    """Return a line for each count that has grown by more than `MAY_GROW`, or has no other."""
    lines = [f"{name}: not counted" for name in recorded if name not in found]
    for name, counts in found.items():
        if name not in recorded:
            lines.append(f"{name}: nothing recorded")
            continue
        for kind in COMPARED:
            was, now = getattr(recorded[name], kind), getattr(counts, kind)
            if now > was * (1 + MAY_GROW):
                lines.append(f"{name}: {kind} {was} -> {now} ({now / was - 1:+.1%})")
    return lines


# -- counting -----------------------------------------------------------------------------


def _worker_of(pid: int) -> int:
    """Return the pid of the worker that stands in the user namespace of `pid`."""
    namespace = os.stat(f"/proc/{pid}/ns/user").st_ino
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdigit()
                and os.path.basename(os.readlink(f"/proc/{name}/exe")) == "eci-worker"
                and os.stat(f"/proc/{name}/ns/user").st_ino == namespace
                and Path(f"/proc/{name}/comm").read_text() == "eci-worker\n"  # not its holder
            ):
                return int(name)
        except OSError:
            continue  # it has ended meanwhile, or is a thread of the kernel
    raise CountError("the container has no worker")


def measure() -> dict[str, Counts]:
    """Return the counts of each call, or raise CountError.  Needs root."""
    found: dict[str, Counts] = {}
    with workshop(("round", "steps")) as shop:
        for kind, (privileged, before) in KINDS.items():
            counted = _measure_in(shop, before, privileged=privileged)
            found |= {title + kind: counts for title, counts in counted.items()}
    return found


def _measure_in(shop: Workshop, before: Sequence[str], *, privileged: bool) -> dict[str, Counts]:
    """Return the counts of each call in one container."""
    # Of cgroups a machine has one hierarchy or a dozen, and each mount is a grant to search.
    with shop.container(cgroups=False, privileged=privileged) as container:
        for word in before:
            _call(container.program, word, 0)
        # The first calls start what starts only once.
        for word, expected in ROUND[:2]:
            _call(container.program, word, expected)
        # Until its first thread is at rest, so that it is in each call (steps.c).
        time.sleep(REST)
        steps = [shop.program("steps"), str(_worker_of(container.pid))]
        # It ends with the worker, which ends with the container.
        with subprocess.Popen(steps, stdout=subprocess.PIPE, text=True) as stepper:
            counted = _count(container.program, stepper)
            container.program.close()
    return {
        title: steady(title, waking(counts) if error == EPERM else counts)
        for title, (_, error), counts in zip(TITLES, ROUND, counted, strict=True)
        if title
    }


def _call(program: Program, word: str, expected: int) -> None:
    """Have it make one call, which must end with the errno `expected`."""
    answer = program.ask(word)
    if answer != [expected]:
        raise CountError(f"{word}: {answer or 'unknown'} instead of {expected}")


def _count(program: Program, stepper: subprocess.Popen[str]) -> list[list[Counts]]:
    """Make `REPEATS` rounds after one that does not count; return the counts of each step."""
    if stepper.stdout is None or stepper.stdout.readline() != "ready\n":
        raise CountError("the worker cannot be stepped")
    counted: list[list[Counts]] = [[] for _ in ROUND]
    for number in range(REPEATS + 1):
        for step, (word, expected) in enumerate(ROUND):
            _call(program, word, expected)
            counts = Counts.parse(stepper.stdout.readline())
            if number:
                counted[step].append(counts)
            time.sleep(SETTLE_SECONDS)
    return counted


# -- the command --------------------------------------------------------------------------


def _gcc() -> str:
    done = subprocess.run(["gcc", "-dumpfullversion"], check=True, capture_output=True, text=True)
    return f"gcc {done.stdout.strip()}"


def _load() -> tuple[dict[str, str], dict[str, Counts]]:
    with open(RECORDED, encoding="utf-8") as stream:
        record = json.load(stream)
    return record["with"], {name: Counts(**counts) for name, counts in record["calls"].items()}


def _save(found: Mapping[str, Counts]) -> None:
    record = {
        "with": {"compiler": _gcc(), "kernel": os.uname().release},
        "calls": {name: asdict(counts) for name, counts in found.items()},
    }
    with open(RECORDED, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1)
        stream.write("\n")


def _table(found: Mapping[str, Counts]) -> Table:
    table = Table(title=f"instructions of the worker, {REPEATS} rounds within {BAND:.0%}")
    table.add_column("call", no_wrap=True)
    for kind in ("own", "libraries", "calls of them", "system calls"):
        table.add_column(kind, justify="right")
    for name, counts in found.items():
        numbers = (counts.program, counts.libraries, counts.entries, counts.syscalls)
        table.add_row(name, *map(str, numbers))
    return table


@click.command()
@click.option("--check", is_flag=True, help="Fail where a count has grown over the recorded one.")
@click.option("--record", is_flag=True, help="Write what is counted into instructions.json.")
def main(*, check: bool, record: bool) -> None:
    """Count what the worker executes for one call. Needs root."""
    try:
        found = measure()
    except (CountError, NoAnswerError) as error:
        raise click.ClickException(str(error)) from error
    Console().print(_table(found))
    if record:
        _save(found)
    if check:
        conditions, recorded = _load()
        lines = growth(recorded, found)
        for line in lines:
            print(line)
        if lines:
            print(f"recorded with {conditions}; now {_gcc()}, kernel {os.uname().release}")
            print("if it has to grow: python -m benchmarks.instructions --record, and say why")
            sys.exit(1)
        print(f"none has grown by more than {MAY_GROW:.0%}")


if __name__ == "__main__":
    main()
