"""Directories of ours that are full, read-only or of a mount without room, and too few descriptors.

A create fails with a line or two and leaves nothing; containers that run go on; what is removed is
removed; the audit log says how much is missing in it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.faults.conftest import EVERY
from tests.support.bundle import bind, make_spec
from tests.support.fork_servers import end_fork_servers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

REFUSED = "mount - /vol - MS_REMOUNT|MS_BIND -"
WORKS = ("mount none /mnt tmpfs - -", "umount2 /mnt -")
ANSWERS = ["0", "0", "EPERM"]
ROOMS = range(1, 40, 3) if EVERY else (3, 40)
"""Files or pages that there is room for: too few at first, enough at last."""
DESCRIPTORS = range(4, 68, 2) if EVERY else (14, 20, 24, 66)


def change(target: Path, options: str) -> None:
    """Mount anew what is mounted there, with these options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(target)], check=True)


class Small:
    """A state directory and one of logs, each a tmpfs of its own, and a runtime that uses them."""

    def __init__(self, bundles: Bundles, program: Path) -> None:
        self.bundles = bundles
        self.place = bundles.place
        self.state = self.place.directory("small")
        self.logs = self.place.directory("logs")
        for directory, mode in ((self.state, "711"), (self.logs, "700")):
            words = ["-t", "tmpfs", "-o", f"mode={mode},size=4m", "small", str(directory)]
            subprocess.run(["mount", *words], check=True)
        self._program = program
        self.volume = self.place.directory("v")

    @property
    def env(self) -> dict[str, str]:
        """The environment of a runtime."""
        return {
            "ECI_STATE_DIR": str(self.state),
            "ECI_LOG_DIR": str(self.logs),
            "ECI_FORK_SERVER": "0",
        }

    def new(self, **env: str) -> Box:
        """Return a container that is still to be made."""
        name = self.bundles.name()
        runtime = self.bundles.runtime(self._program)
        runtime.env |= self.env | env
        self.bundles.expect(runtime, name)
        spec = make_spec(
            ["sleep", "1000"],
            cgroup=self.bundles.cgroup(name),
            cap_add=["CAP_SYS_ADMIN"],
            mounts=[bind(self.volume, "/vol", "ro")],
        )
        return Box(self, runtime, name, self.bundles.write(spec))

    def there(self) -> set[str]:
        """Return all that lies in the state directory, but for what stays."""
        # What goes meanwhile is passed over.
        found = {
            os.path.relpath(f"{directory}/{name}", self.state)
            for directory, names, files in os.walk(self.state)
            for name in (*names, *files)
        }
        return found - {"lock", "containers", "ranges", "counts", "policy"}

    def files(self) -> int:
        """Return how many inodes are used."""
        fs = os.statvfs(self.state)
        return fs.f_files - fs.f_ffree

    def pages(self, directory: Path) -> int:
        """Return how many pages are used."""
        fs = os.statvfs(directory)
        return (fs.f_blocks - fs.f_bfree) * fs.f_frsize // 4096

    @contextmanager
    def read_only(self, directory: Path) -> Iterator[None]:
        """Have it read-only in the block, for all who have not opened something in it before."""
        subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
        change(directory, "bind,ro")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)

    @contextmanager
    def remounted(self, target: Path, options: str, back: str) -> Iterator[None]:
        """Have other options in the block."""
        change(target, options)
        try:
            yield
        finally:
            change(target, back)

    def close(self) -> None:
        """Take both away."""
        self.bundles.close()
        end_fork_servers(self.state)
        for directory in (self.state, self.logs):
            subprocess.run(["umount", "-l", str(directory)], check=True)


class Box:
    """A container, made or not."""

    def __init__(self, small: Small, runtime: Runtime, name: str, bundle: Path) -> None:
        self._small = small
        self.runtime = runtime
        self.name = name
        self.bundle = bundle

    def create(self, **limits: int) -> subprocess.CompletedProcess[str]:
        """Make it, in want of something; returns what came of it."""
        argv = self.runtime.argv("create", "--bundle", str(self.bundle), self.name)

        def limit() -> None:
            for name, value in limits.items():
                resource.setrlimit(getattr(resource, name), (value, value))

        # Files: what create leaves behind has them open.
        out = self._small.place.directory("out")
        with open(out / "in", "w+b") as stdin, open(out / "all", "w+b") as file:
            status = subprocess.run(
                argv,
                stdin=stdin,
                stdout=file,
                stderr=file,
                env=os.environ | self.runtime.env,
                timeout=60,
                check=False,
                preexec_fn=limit if limits else None,
            ).returncode
        text = (out / "all").read_text(errors="replace")
        return subprocess.CompletedProcess(argv, status, text, "")

    def start(self) -> Box:
        """Make and start it."""
        done = self.create()
        assert done.returncode == 0, done.stdout
        self.runtime.start(self.name)
        return self

    def asks(self, *calls: str) -> list[str]:
        """Make calls in it and return the answers."""
        return self.runtime.call(
            "exec", self.name, "mnt", *" , ".join(calls).split()
        ).stdout.split()

    def delete(self) -> subprocess.CompletedProcess[str]:
        """Remove it, whatever state it is in."""
        return self.runtime.call("delete", "--force", self.name, check=False)

    def is_there(self) -> bool:
        """Say whether anything of its state is left."""
        return any(name.startswith(f"containers/{self.name}-") for name in self._small.there())


@pytest.fixture
def small(bundles: Bundles, runtimes: dict[str, Path], place: Place) -> Iterator[Small]:
    """Such directories, and the runtime over runc."""
    assert bundles.place is place
    made = Small(bundles, runtimes["eci"])
    yield made
    made.close()


def refuses_cleanly(small: Small, **limits: int) -> bool:
    """Make a container; True if it was, which must then work, False if it failed as it should."""
    before = small.there()
    box = small.new()
    done = box.create(**limits)
    if done.returncode == 0:
        box.runtime.start(box.name)
        assert box.asks(*WORKS, REFUSED) == ANSWERS
    else:
        lines = done.stdout.splitlines()
        assert 1 <= len(lines) <= 2, lines
        assert "Traceback" not in done.stdout
        wait_until(lambda: small.there() <= before, f"{small.there() - before} is left: {lines}")
    box.delete()
    wait_until(lambda: small.there() <= before, f"{small.there() - before} is left")
    return done.returncode == 0


def works_again(small: Small) -> None:
    box = small.new().start()
    assert box.asks(*WORKS, REFUSED) == ANSWERS
    box.delete()
    wait_until(lambda: not box.is_there(), "it is removed")


def test_state_directory_without_room_for_a_file(small: Small) -> None:
    running = small.new().start()
    used = small.files()
    made = []
    for room in ROOMS:
        with small.remounted(small.state, f"nr_inodes={used + room}", "nr_inodes=10k"):
            made.append(refuses_cleanly(small))
        assert running.asks(*WORKS, REFUSED) == ANSWERS
    assert not made[0]
    assert made[-1]
    works_again(small)


def test_state_directory_without_room_for_a_page(small: Small) -> None:
    running = small.new().start()
    used = small.pages(small.state)
    made = []
    for room in ROOMS:
        with small.remounted(small.state, f"size={(used + room) * 4}k", "size=4m"):
            made.append(refuses_cleanly(small))
        assert running.asks(*WORKS, REFUSED) == ANSWERS
    assert not made[0]
    assert made[-1]
    works_again(small)


def test_full_state_directory_does_not_keep_a_container_from_being_removed(small: Small) -> None:
    box = small.new().start()
    used = small.pages(small.state)
    with small.remounted(small.state, f"size={used * 4}k,nr_inodes={small.files()}", "size=4m"):
        box.delete()
        wait_until(lambda: not box.is_there(), "it is removed")
    change(small.state, "nr_inodes=10k")
    works_again(small)


def test_read_only_state_directory(small: Small) -> None:
    running = small.new().start()
    with small.read_only(small.state):
        assert not refuses_cleanly(small)
        assert running.asks(*WORKS, REFUSED) == ANSWERS
    assert running.asks(*WORKS, REFUSED) == ANSWERS
    works_again(small)


def test_removed_while_read_only_is_cleared_up_by_the_next_create(small: Small) -> None:
    box = small.new().start()
    with small.read_only(small.state):
        box.delete()
        assert box.is_there()
    small.new().start().delete()
    with_same_name = Box(small, box.runtime, box.name, box.bundle).start()
    assert with_same_name.asks(*WORKS, REFUSED) == ANSWERS
    with_same_name.delete()
    wait_until(lambda: not box.is_there(), "it is removed")


def test_too_few_descriptors(small: Small) -> None:
    works_again(small)  # what the first create of all finds out is kept
    made = [refuses_cleanly(small, RLIMIT_NOFILE=most) for most in DESCRIPTORS]
    assert not made[0]
    works_again(small)


def log_of(small: Small) -> list[dict[str, object]]:
    text = (small.logs / "audit.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def test_full_audit_log_opens_nothing_and_says_what_is_missing(small: Small) -> None:
    box = small.new().start()
    assert box.asks(REFUSED) == ["EPERM"]
    wait_until(lambda: (small.logs / "audit.log").exists() and log_of(small), "one is written")
    known = len(log_of(small))
    filler = small.logs / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    # To the end of the log's last page there is room.
    log = small.logs / "audit.log"
    with open(log, "ab") as file:
        file.write(b" " * (-log.stat().st_size % 4096 - 1) + b"\n")
    for _ in range(3):
        assert box.asks(*WORKS, REFUSED) == ANSWERS
    filler.unlink()
    # The keeper looks into the ring every few seconds at most, once it rests.
    wait_until(lambda: _told(small, box, known), "what is missing is told", 40)
    box.delete()
    wait_until(lambda: not box.is_there(), "it is removed")


def _told(small: Small, box: Box, known: int) -> bool:
    """Have one more refused, and say whether all of them are there or told to be left out."""
    assert box.asks(REFUSED) == ["EPERM"]
    new = log_of(small)[known:]
    return sum(int(str(line.get("left_out", 0))) for line in new) >= 3


def test_full_disk_under_the_trace(small: Small) -> None:
    trace = small.logs / "trace"
    box = small.new(ECI_TRACE=str(trace)).start()
    assert box.asks(*WORKS, REFUSED) == ANSWERS
    wait_until(lambda: "MS_REMOUNT" in trace.read_text(), "it is traced")
    used = small.pages(small.logs)
    with small.remounted(small.logs, f"size={used * 4}k", "size=4m"):
        for _ in range(6):
            assert box.asks(*WORKS, REFUSED) == ANSWERS
    assert box.asks(*WORKS, REFUSED) == ANSWERS
    box.delete()
    wait_until(lambda: not box.is_there(), "it is removed")


def test_read_only_log_directory(small: Small) -> None:
    with small.read_only(small.logs):
        box = small.new().start()
        assert box.asks(*WORKS, REFUSED) == ANSWERS
        traced = small.new(ECI_TRACE=str(small.logs / "trace"))
        done = traced.create()
        assert done.returncode != 0
        assert len(done.stdout.splitlines()) == 1
        assert not traced.is_there()
        box.delete()
        wait_until(lambda: not box.is_there(), "it is removed")
