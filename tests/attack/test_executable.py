"""A program of the host that enters the container is opened there, and written to once it ends.

As in CVE-2019-5736, where that program was runc.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import make_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

# Waits for the stranger, keeps its executable open, waits for its end, and writes.
ATTACK = """
    self=/proc/self
    while :; do
        for p in /proc/[0-9]*; do
            if grep -q "^$self/fd/" $p/cmdline 2> /dev/null; then
                exec 7< $p/exe
                echo opened
                while [ -d $p ]; do sleep 0.02; done
                { echo owned > $self/fd/7; } 2> /dev/null && echo written || echo refused
                exit
            fi
        done
        sleep 0.02
    done
"""


class Guest:
    """A program of the host's that enters a container, and stays until it is told to end."""

    def __init__(self, place: Place, programs: dict[str, Path]) -> None:
        """Copy it: what is written to it is ours."""
        self.path = place.directory("guest") / "guest"
        shutil.copy(programs["mnt"], self.path)
        self.path.chmod(0o755)
        self.content = self.path.read_bytes()

    def enter(self, pid: int) -> subprocess.Popen[bytes]:
        """Have it enter the container's namespaces, as a runtime does for `exec`."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            words = ["nsenter", "-t", str(pid), "-U", "-p", "-m", f"/proc/self/fd/{fd}", "wait"]
            return subprocess.Popen(words, pass_fds=[fd], stdin=subprocess.PIPE)
        finally:
            os.close(fd)


@pytest.fixture
def guest(place: Place, programs: dict[str, Path]) -> Guest:
    """A program that enters."""
    return Guest(place, programs)


def attacked(bundles: Bundles, program: Path | str, guest: Guest, *, userns: bool) -> list[str]:
    """Run the attack in a container that the guest enters; return what it says."""
    name = bundles.name()
    runtime: Runtime = bundles.runtime(program)
    bundles.expect(runtime, name)
    out = bundles.place.directory("out")
    words = ["sh", "-c", f"exec > /out/said; {ATTACK}"]
    mounts = [{"destination": "/out", "type": "bind", "source": str(out), "options": ["rbind"]}]
    spec = make_spec(
        words, cgroup=bundles.cgroup(name), privileged=True, mounts=mounts, identity_userns=userns
    )
    runtime.call("run", "--detach", "--bundle", str(bundles.write(spec)), name)
    pid = json.loads(runtime.call("state", name).stdout)["pid"]
    said = out / "said"
    with guest.enter(pid) as process:
        wait_until(lambda: said.exists() and "opened" in said.read_text(), "not opened")
        process.communicate(b"x")
    wait_until(lambda: len(said.read_text().split()) > 1, "not written")
    return said.read_text().split()


def test_succeeds_without_protection(bundles: Bundles, guest: Guest) -> None:
    assert attacked(bundles, "runc", guest, userns=True) == ["opened", "written"]
    assert guest.path.read_bytes() == b"owned\n"


def test_fails(bundles: Bundles, runtimes: dict[str, Path], runtime: str, guest: Guest) -> None:
    assert attacked(bundles, runtimes[runtime], guest, userns=False) == ["opened", "refused"]
    assert guest.path.read_bytes() == guest.content
