"""Containers that are frozen or killed while a mount call of theirs is under way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import NR_MOUNT, NR_UMOUNT2, call_of, wait_until
from tests.support.workload import PRIVILEGED, Workload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.place import Place
    from tests.support.workload import Workloads

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the image.
    pytest.mark.timeout(120, func_only=True),
]

LOOPS = 4
PAUSES = 6


def words_for(programs: dict[str, Path]) -> list[str]:
    """Return the flags of a privileged container with the program `mnt` and FUSE."""
    return [*PRIVILEGED, f"--volume={programs['mnt']}:/bin/mnt:ro", "--device=/dev/fuse"]


def pids(box: Workload, program: str) -> list[int]:
    """Return the machine's numbers of the container's processes that run `program`."""
    listed = box.dockerd.out("top", box.container, "-o", "pid,comm").splitlines()[1:]
    return [int(line.split()[0]) for line in listed if line.split()[1] == program]


def pause_and_unpause(box: Workload) -> list[int]:
    """Freeze and thaw the container; return in which calls the loops were meanwhile."""
    engine = box.dockerd
    engine.docker("pause", box.container)
    calls = [call_of(pid) for pid in pids(box, "mnt")]
    assert engine.inspect(box.container, "{{.State.Status}}") == "paused"
    engine.docker("unpause", box.container)
    return calls


# `mnt` makes the calls and nothing else, so that at nearly every moment one is under way.  Binds,
# as the kernel itself makes a new file system in such a container.
LOOP = (
    f"for i in {' '.join(str(number) for number in range(LOOPS))}\n"
    "do\n"
    "    mkdir -p /m$i\n"
    "    calls=\n"
    "    for _ in $(seq 200)\n"
    '    do calls="$calls mount /m$i /m$i - MS_BIND - , umount2 /m$i - ,"\n'
    "    done\n"
    "    while [ ! -e /enough ]; do mnt $calls chdir /; done > /out$i &\n"
    "done\n"
    "wait\n"
)


def test_calls_outlive_a_pause(
    workloads: Workloads, programs: dict[str, Path], runtime: str
) -> None:
    """No call fails and none is made twice, however often it is caught half-way."""
    with workloads.start(runtime, *words_for(programs)) as box:
        box.dockerd.docker("exec", "-d", box.container, "bash", "-c", LOOP)
        wait_until(lambda: len(pids(box, "mnt")) == LOOPS, "the loops run", 10)
        caught = [call for _ in range(PAUSES) for call in pause_and_unpause(box)]
        assert {NR_MOUNT, NR_UMOUNT2} & set(caught)
        box.out("touch /enough; while pgrep -x mnt > /dev/null; do sleep 0.05; done")
        assert box.out("sort -u /out*") == "0"
        assert box.out("cat /out* | wc -l") > "0"
        assert [point for point in box.mounts("") if re.fullmatch(r"/m\d", point)] == []


# A FUSE program that is stopped answers nothing: a mount call below it stays under way.
HANG = """\
mkdir -p /lower/d /m
fuse-overlayfs -o lowerdir=/lower /m 2> /dev/null
pkill -STOP -x fuse-overlayfs
mnt mount /lower /m/d - MS_BIND - > /out 2>&1 < /dev/null &
"""


def hang(box: Workload) -> int:
    """Start a mount call that does not end; return the caller."""
    box.out(HANG)
    wait_until(lambda: [call_of(pid) for pid in pids(box, "mnt")] == [NR_MOUNT], "it hangs", 10)
    return pids(box, "mnt")[0]


def test_pending_call_outlives_a_pause(
    workloads: Workloads, programs: dict[str, Path], runtime: str
) -> None:
    with workloads.start(runtime, *words_for(programs)) as box:
        caller = hang(box)
        for _ in range(2):
            assert pause_and_unpause(box) == [NR_MOUNT]
        assert pids(box, "mnt") == [caller]
        box.out("pkill -CONT -x fuse-overlayfs; while [ ! -s /out ]; do sleep 0.05; done")
        assert box.out("cat /out") == "0"
        # Once, although the kernel may have started the call anew at each thaw.
        assert box.mounts("/m") == ["/m", "/m/d"]


@pytest.mark.parametrize("how", ["kill", "rm", "pause_and_rm", "caller"])
def test_killed_while_pending(
    workloads: Workloads, programs: dict[str, Path], runtime: str, how: str, place: Place
) -> None:
    before = place.leftovers(patience=0)
    with workloads.start(runtime, *words_for(programs)) as box:
        hang(box)
        engine = box.dockerd
        if how == "caller":
            # The container lives on, and so do its mount calls, once FUSE answers again.
            box.out("pkill -KILL -x mnt; while pgrep -x mnt; do sleep 0.05; done")
            box.out("pkill -CONT -x fuse-overlayfs; mount -t tmpfs t /m/d; umount /m/d; umount /m")
            assert box.mounts("/m") == []
        if how == "pause_and_rm":
            engine.docker("pause", box.container)
        if how == "kill":
            engine.docker("kill", box.container)
            assert engine.out("wait", box.container) == "137"
    assert place.leftovers(before=before) == []
