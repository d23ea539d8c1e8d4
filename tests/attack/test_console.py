"""What becomes /dev/console is exchanged while the runtime binds it, in a volume that is /dev.

As in CVE-2025-52565: runc before 1.2.8 binds whatever /dev/pts/0 leads to, before anything is
masked.  Here that is a file of procfs that is to be masked, and the terminal again a moment later,
as runc opens it then.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_EXCHANGE = 2  # <linux/fs.h>
MASKED = "/proc/timer_list"
SHOWN = 'echo "console: $(mnt kind /dev/console) end"'
ROUNDS = 6
TRIES_WITHOUT = 60
"""At most; on an idle machine every fourth or so succeeds."""


@pytest.fixture
def dev(place: Place) -> Path:
    """A directory for /dev, in which pts/0 is the terminal, and pts/1 something else."""
    directory = place.directory("v")
    for name in ("other", "pts"):
        (directory / name).mkdir()
    os.mknod(directory / "null", 0o20666, os.makedev(1, 3))
    (directory / "null").chmod(0o666)
    (directory / "ptmx").symlink_to("other/ptmx")
    (directory / "pts/0").symlink_to("../other/0")
    (directory / "pts/1").symlink_to(MASKED)
    return directory


@contextmanager
def swapping(dev: Path) -> Iterator[None]:
    """Exchange the two for the length of the block."""
    stop = threading.Event()
    names = [os.fsencode(dev / f"pts/{number}") for number in range(2)]

    def swap() -> None:
        while not stop.is_set():
            LIBC.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
            time.sleep(0.0001)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def console(bundles: Bundles, program: Path | str, dev: Path) -> str:
    """Run a container on a terminal; return what its console is, or "" if it does not start."""
    name = bundles.name()
    runtime = bundles.runtime(program)
    bundles.expect(runtime, name)
    bare = program == "runc"
    spec = make_spec(["sh", "-c", SHOWN], cgroup=bundles.cgroup(name), identity_userns=bare)
    spec["process"]["terminal"] = True
    pts = next(mount for mount in spec["mounts"] if mount["destination"] == "/dev/pts")
    others = [mount for mount in spec["mounts"] if not mount["destination"].startswith("/dev")]
    spec["mounts"] = [*others, bind(dev, "/dev"), pts | {"destination": "/dev/other"}]
    argv = runtime.argv("run", "--bundle", str(bundles.write(spec)), name)
    with Terminal(argv, dict(os.environ)) as terminal:
        try:
            terminal.expect("nothing says this", 10)
        except AssertionError as said:
            found = re.search(r"console: (.*) end", str(said))
            return found[1] if found else ""
    return ""


def test_succeeds_without_protection(bundles: Bundles, dev: Path) -> None:
    seen = set()
    with swapping(dev):
        for _ in range(TRIES_WITHOUT):
            seen.add(console(bundles, "runc", dev))
            if "reg" in seen:
                return
    pytest.fail(f"never won: {seen}")


def test_fails(bundles: Bundles, runtimes: dict[str, Path], dev: Path) -> None:
    """Where the race is won, it is a masked file that is bound."""
    with swapping(dev):
        seen = {console(bundles, runtimes["eci"], dev) for _ in range(ROUNDS)}
    assert seen <= {"", "chr 136:0", "chr 1:3"}
