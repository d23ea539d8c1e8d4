"""A container is made, started and removed, while system calls of our programs fail.

Either it runs as if nothing had been, or it does not start, is told of in a line or two, and leaves
nothing.  What it may not is running with less than it should have.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.faults.conftest import EVERY
from tests.faults.errnos import CALLS, errnos_of, name_of
from tests.faults.sweep import ERROR, RIGHT, errno_name
from tests.support.bundle import bind, make_spec
from tests.support.faults import parse
from tests.support.fork_servers import all_standing_by, end_fork_servers, fork_servers
from tests.support.sides import Volumes
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.sweep import Totals
    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.faults import Call

pytestmark = [pytest.mark.root, pytest.mark.engine]

MNT = (
    ("mount none /mnt tmpfs - -", "0"),
    ("umount2 /mnt -", "0"),
    ("mount - /vol - MS_REMOUNT|MS_BIND -", "EPERM"),
    ("umount2 /t/in MNT_DETACH", "EPERM"),
    ("umount2 /w/in MNT_DETACH", "EPERM"),
    ("umount2 /proc/keys MNT_DETACH", "EPERM"),
    ("write /vol/x", "EROFS"),
    ("write /w/in/x", "EROFS"),
    ("write /t/in/x", "EROFS"),
    ("flags /proc/sys", "ro,nosuid,nodev,noexec"),
    ("flags /sys", "ro,nosuid,nodev,noexec"),
    ("flags /dev", "rw,nosuid"),
    ("count /sys/firmware", "0"),
    ("kind /proc/keys", "chr 1:3"),
    ("mount proc /mnt proc - -", "0"),
    ("flags /mnt/sys", "ro"),
    ("umount2 /mnt/sys -", "EINVAL"),
)
"""What is asked in the container, and the right answer."""
CALLING = ("mount ", "umount2 ")
SCRIPT = """
"$@" create --bundle "$BUNDLE" "$NAME" 2> "$OUT/create" || exit 10
"$@" start "$NAME" 2> "$OUT/start" || exit 11
exec "$@" exec "$NAME" mnt $CALLS > "$OUT/answers" 2> "$OUT/exec"
"""
NO_CREATE = 10
PATIENCE = 15.0
STEPS = {"eci-worker": 160, "eci-hook": 9, "eci-runtime": 50, "python3": 900}
"""In `make test` only so many system calls apart, from one that the test's number chooses."""
EVERY_STEPS = {"eci-worker": 8, "eci-hook": 1, "eci-runtime": 6, "python3": 97}
PARTS = 2 if EVERY else 1


class Made(NamedTuple):
    """What became of a container."""

    status: int
    lines: list[str]
    """What create said."""
    answers: list[str]
    calls: list[Call]


class Maker:
    """Makes one container after the other under the injector."""

    def __init__(self, bundles: Bundles, program: Path, injector: Path) -> None:
        self.bundles = bundles
        self.thorough = EVERY and program.name == "eci-runtime"
        self._program = program
        self._injector = injector
        self._volumes = Volumes.make(bundles.place)

    def bundle(self, name: str) -> Path:
        """Return the bundle of a new container, with volumes that hold and hide something."""
        volumes = self._volumes
        spec = make_spec(
            ["sleep", "1000"],
            cgroup=self.bundles.cgroup(name),
            cap_add=["CAP_SYS_ADMIN"],
            mounts=[
                bind(volumes.read_only, "/vol", "ro"),
                bind(volumes.writable, "/w"),
                bind(volumes.inner, "/w/in", "ro"),
                {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []},
                bind(volumes.inner, "/t/in", "ro"),
            ],
        )
        return self.bundles.write(spec)

    def run(
        self, program: str, fault: tuple[int, int, int], words: Sequence[str], **env: str
    ) -> tuple[int, list[Call], Path]:
        """Run words while a system call of `program` fails, `fault`: which, its number, errno.

        Returns the exit status, what was counted, and the directory that OUT names.
        """
        place = self.bundles.place
        out = place.directory("out")
        servers = [str(pid) for pid in self._servers()]
        argv = [str(self._injector), "run", program, *map(str, fault), str(out / "log"), *servers]
        with open(out / "stdin", "w+b") as stdin, open(out / "rest", "w+b") as rest:
            status = subprocess.run(
                [*argv, *words],
                stdin=stdin,
                stdout=rest,
                stderr=rest,
                env=os.environ | env | {"OUT": str(out)},
                timeout=60,
                check=False,
            ).returncode
        log = (out / "log").read_text().splitlines()
        return status, [parse(line.partition(" ")[2]) for line in log], out

    def _servers(self) -> list[int]:
        """Return the fork server, if there is one, and whom it has ready.

        A fault may have ended one of these, who is replaced once somebody has asked: without a
        server, all begins anew.
        """
        state_dir = self.bundles.place.state_dir
        deadline = time.monotonic() + PATIENCE
        while servers := fork_servers(state_dir):
            (server,) = servers
            if ready := all_standing_by(server):
                return [server, *(one.pid for one in ready)]
            if time.monotonic() > deadline:
                end_fork_servers(state_dir)
            time.sleep(0.01)
        return []

    def make(self, program: str, nth: int = 0, number: int = 0, error: int = 0) -> Made:
        """Make one, start it and ask in it; the `nth` system call of `program` fails."""
        name = self.bundles.name()
        runtime = self.runtime()
        env = {
            "BUNDLE": str(self.bundle(name)),
            "NAME": name,
            "CALLS": " , ".join(call for call, _ in MNT),
        }
        words = ["--", "sh", "-fc", SCRIPT, "sh", *runtime.argv()]
        try:
            status, calls, out = self.run(program, (nth, number, error), words, **env)
            if status == NO_CREATE:
                self.must_be_gone(runtime, name)
        finally:
            runtime.call("delete", "--force", name, check=False)
        self.must_be_gone(runtime, name)
        return Made(status, _lines(out / "create"), _lines(out / "answers"), calls)

    def runtime(self) -> Runtime:
        """Return a runtime with a directory of its own."""
        return self.bundles.runtime(self._program)

    def must_be_gone(self, runtime: Runtime, name: str) -> None:
        """Fail where anything is left of the container."""
        place = self.bundles.place

        def left() -> list[str]:
            found = [str(path) for path in place.state_dir.glob(f"containers/{name}-*")]
            found += [str(path) for path in place.state_dir.glob(f"ranges/*/{name}-*")]
            if (runtime.root / name).exists():
                found.append(str(runtime.root / name))
            return found

        wait_until(lambda: not left(), f"nothing is left of {name}: {left()}", PATIENCE)


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def _is_wrong(call: str, right: str, answer: str) -> bool:
    """Say whether the container is more than it should be, or another one."""
    if call.startswith(CALLING):
        # An error is no more than it should have; what is refused must be.
        return answer == "0" and right != "0"
    return answer not in ((right, "ENOENT") if "/mnt" in call else (right,))


def judge(made: Made) -> str:
    """Return the outcome, or fail."""
    wrong = [
        f"{call}: {answer}, not {right}"
        for (call, right), answer in zip(MNT, made.answers, strict=False)
        if _is_wrong(call, right, answer)
    ]
    assert not wrong, "\n".join(wrong)
    if made.status == 0 and made.answers == [right for _, right in MNT]:
        return RIGHT
    if made.status == NO_CREATE:
        assert 1 <= len(made.lines) <= 2, f"create says {made.lines}"
    return ERROR


@pytest.fixture(scope="module", params=("eci", "eci-crun") if EVERY else ("eci",))
def maker(
    request: pytest.FixtureRequest, many: Bundles, runtimes: dict[str, Path], injector: Path
) -> Maker:
    """A maker of containers."""
    made = Maker(many, runtimes[request.param], injector)
    # The first create leaves a fork server behind.
    assert judge(made.make("nothing")) == RIGHT
    return made


def _positions(numbers: Sequence[int], program: str, part: int, *, thorough: bool) -> list[int]:
    """Return which system calls fail: every so many, and if `thorough` the first of each kind."""
    step = (EVERY_STEPS if thorough else STEPS)[program]
    seen: set[int] = set()
    chosen = []
    for nth, number in enumerate(numbers, 1):
        if nth % step == 0 or (thorough and number not in seen):
            chosen.append(nth)
        seen.add(number)
    return chosen[part::PARTS]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("program", STEPS)
def test_a_container_starts_as_it_should_or_not_at_all(
    maker: Maker, totals: Totals, program: str, part: int
) -> None:
    executed = os.path.basename(os.path.realpath("/proc/self/exe")) if "py" in program else program
    plain = maker.make(executed)
    assert judge(plain) == RIGHT
    numbers = [call.number for call in plain.calls]
    assert numbers
    for nth in _positions(numbers, program, part, thorough=maker.thorough):
        if numbers[nth - 1] not in CALLS:
            continue
        errors = errnos_of(numbers[nth - 1], every=True)
        error = errors[nth % len(errors)]
        try:
            made = maker.make(executed, nth, numbers[nth - 1], error)
            outcome = judge(made)
        except AssertionError as problem:
            what = f"{program}: system call {nth}, {name_of(numbers[nth - 1])}"
            problem.add_note(f"{what}, with {errno_name(error)}")
            raise
        failed = [call.number for call in made.calls if call.failed]
        if failed:
            totals[name_of(failed[0]), errno_name(error), outcome] += 1
