"""A directory of the host that the runtime's caller has left open becomes the working directory.

As in CVE-2024-21626, where runc itself had left one open.  runc has refused such a working
directory since; crun 1.8 has not.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.support.bundle import make_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.place import Place

Way: TypeAlias = "Callable[[Bundles, Leak, Path | str], str]"

pytestmark = [pytest.mark.root, pytest.mark.engine]

MARK = "the host's own"
NUMBER = 50
"""Of the descriptor, at least; the runtimes' own come first."""
# crun 1.8 refuses to run where there is a unified hierarchy beside those of version 1.
HIDE = 'umount -l /sys/fs/cgroup/unified 2> /dev/null; exec "$@"'
WITHOUT_UNIFIED = ["unshare", "-m", "sh", "-c", HIDE, "sh"]


class Leak:
    """A directory of the host's, open in whoever is started with it."""

    def __init__(self, place: Place) -> None:
        """Make it, with a file in it that everybody may read."""
        self.directory = place.directory("leak")
        (self.directory / "mark").write_text(MARK)
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, NUMBER)
        os.close(fd)

    @property
    def path(self) -> str:
        """What leads to it, in a process that has it."""
        return f"/proc/self/fd/{self.fd}"

    def call(self, runtime: Runtime, *words: str, before: Sequence[str] = ()) -> str:
        """Run the runtime, which inherits it; return what it prints.  Files: `Runtime.call`."""
        bare = WITHOUT_UNIFIED if runtime.program == "crun" else before
        with TemporaryFile() as stdin, TemporaryFile() as out:
            argv = [*bare, *runtime.argv(*words)]
            subprocess.run(
                argv, pass_fds=[self.fd], stdin=stdin, stdout=out, timeout=30, check=False
            )
            out.seek(0)
            return out.read().decode()


@pytest.fixture
def leak(place: Place) -> Iterator[Leak]:
    """A directory that is left open."""
    made = Leak(place)
    yield made
    os.close(made.fd)


def reads(bundles: Bundles, leak: Leak, program: Path | str) -> str:
    """Run a container that has it for its working directory; return what it reads there."""
    name = bundles.name()
    runtime = bundles.runtime(program)
    bundles.expect(runtime, name)
    spec = make_spec(["cat", "mark"], cgroup=bundles.cgroup(name))
    spec["process"]["cwd"] = leak.path
    return leak.call(runtime, "run", "--bundle", str(bundles.write(spec)), name)


def reads_in_exec(bundles: Bundles, leak: Leak, program: Path | str) -> str:
    """Run a process that has it for its working directory in a container; return what it reads."""
    name = bundles.name()
    runtime = bundles.runtime(program)
    bundles.expect(runtime, name)
    spec = make_spec(["sleep", "1000"], cgroup=bundles.cgroup(name))
    leak.call(runtime, "run", "--detach", "--bundle", str(bundles.write(spec)), name)
    return leak.call(runtime, "exec", "--cwd", leak.path, name, "cat", "mark")


WAYS: list[Way] = [reads, reads_in_exec]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_succeeds_without_protection(bundles: Bundles, leak: Leak, way: Way) -> None:
    assert way(bundles, leak, "crun") == MARK


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_fails(
    bundles: Bundles, runtimes: dict[str, Path], runtime: str, leak: Leak, way: Way
) -> None:
    assert way(bundles, leak, runtimes[runtime]) == ""


# Whoever passes something on has it at 3; systemd says for whom by the pid.
PASS_ON = {
    "in_one_word": ("", ["--preserve-fds=1"]),
    "in_two_words": ("", ["--preserve-fds", "1"]),
    "as_systemd_does": ("export LISTEN_FDS=1 LISTEN_PID=$$;", []),
}


@pytest.mark.parametrize("how", PASS_ON)
def test_what_is_passed_on_arrives(
    bundles: Bundles, runtimes: dict[str, Path], runtime: str, leak: Leak, how: str
) -> None:
    """And no more than that: the leak is still closed."""
    name = bundles.name()
    called = bundles.runtime(runtimes[runtime])
    bundles.expect(called, name)
    reading = f"cat /proc/self/fd/3/mark {leak.path}/mark 2> /dev/null"
    spec = make_spec(["sh", "-c", reading], cgroup=bundles.cgroup(name))
    export, flags = PASS_ON[how]
    words = ("run", *flags, "--bundle", str(bundles.write(spec)), name)
    before = ["sh", "-c", f'{export} exec 3< {leak.directory}; exec "$@"', "sh"]
    assert leak.call(called, *words, before=before) == MARK
