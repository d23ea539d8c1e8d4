"""What protection costs work that mounts nothing: nothing, within what the machine makes anyway.

The same work in containers on the same files (ground.py), in turns: in one of this project, and in
two of bare runc.

- `getppid`, `open` (and close), `stat`, `fork+exec`: microseconds of one.
- `compile`: gcc compiles and links a program of one file.
- `apt-get install`: of a package that is there as a file, with a script and some hundred files.

A sample is the fastest of a few batches or runs in a turn: what else the machine does only adds.

In containers with CAP_SYS_ADMIN, which have Docker's seccomp profile with and without this project.
`..., privileged`: bare runc then has no filter at all, and this project one.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.containers import workshop
from benchmarks.frame import summary
from benchmarks.ground import ground, in_turns, turn
from tests.support.debian import compiler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.containers import Program
    from benchmarks.frame import Result, Run
    from benchmarks.ground import Ground

NAME = "untouched"
RUNGS = ("native", "again", "eci")
KINDS = {"": False, ", privileged": True}
"""What is added to the name of a case, and whether its containers are privileged."""
CALLS = ("getppid", "open", "stat", "fork+exec")
"""Cases of work.c."""
RUNS = 3
PROGRAMS = {"compile": "compile", "install": "apt-get install"}
"""Scripts, and their names as cases."""

PREPARE = """\
cat > /srv/one.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        printf("%zu %ld\\n", strlen(argv[i]), strtol(argv[i], NULL, 0));
    return 0;
}
END
mkdir -p /srv/sample/DEBIAN /srv/sample/usr/share/sample
cd /srv/sample
for number in $(seq 300); do echo $number > usr/share/sample/$number; done
cat > DEBIAN/control <<'END'
Package: sample
Version: 1
Architecture: all
Maintainer: x <x@example.org>
Description: sample
END
printf '#!/bin/sh\\nldconfig\\n' > DEBIAN/postinst
chmod 755 DEBIAN/postinst
dpkg-deb --root-owner-group --build . /srv/sample.deb
"""
SCRIPTS = {
    "prepare": PREPARE,
    "compile": "gcc -O2 -o /run/one /srv/one.c",
    "install": "apt-get install -y -q /srv/sample.deb",
    "install-end": "dpkg --purge sample",
}


def measure(run: Run) -> Iterator[Result]:
    """Yield the statistics of each case, in both kinds of containers."""
    with workshop(("work",)) as shop, ground(shop, compiler(), SCRIPTS) as place:
        for suffix, privileged in KINDS.items():
            with ExitStack() as stack:
                rungs = {
                    name: stack.enter_context(place.container(name, privileged=privileged)).program
                    for name in RUNGS
                }
                place.time(rungs["native"], "prepare")
                yield from calls(run, rungs, suffix)
                yield from programs(run, place, rungs, suffix)


def calls(run: Run, rungs: Mapping[str, Program], suffix: str) -> Iterator[Result]:
    """Yield the time of one call of each kind."""
    for case in run.steps(CALLS, f"untouched: calls{suffix}"):
        samples = in_turns(rungs, case, run.pick(60, 400), 2e6)
        for rung, times in samples.items():
            yield summary(NAME, case + suffix, rung, "µs", times)


def programs(
    run: Run, place: Ground, rungs: Mapping[str, Program], suffix: str
) -> Iterator[Result]:
    """Yield the time of a compilation and of an installation."""
    samples: dict[str, dict[str, list[float]]] = {
        script: {rung: [] for rung in rungs} for script in PROGRAMS
    }
    for number in run.steps(range(run.pick(6, 30)), f"untouched: programs{suffix}"):
        for script, of_script in samples.items():
            for rung in turn(number, list(rungs)):
                of_script[rung].append(min(place.time(rungs[rung], script) for _ in range(RUNS)))
    for script, of_script in samples.items():
        for rung, times in of_script.items():
            yield summary(NAME, PROGRAMS[script] + suffix, rung, "ms", times)
