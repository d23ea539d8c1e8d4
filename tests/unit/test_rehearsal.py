"""What the fork server does before anybody asks it."""

from __future__ import annotations

import mmap
import os
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.kernel import syscalls
from eci_supervisor.runtime import rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = 2048


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _faults_of_child(before: Callable[[], None], reserved: int) -> int:
    """Return how many pages a child has to be given to write to memory of its parent's.

    Args:
        before: What the child does first.
        reserved: Bytes of the same mapping that are not used.
    """
    used = PAGES * resource.getpagesize()
    memory = mmap.mmap(-1, used + reserved, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # a fault gives one page, on every machine
    memory.write(b"x" * used)
    answer, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        before()
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for at in range(0, used, resource.getpagesize()):
            memory[at] = 1
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
        os.write(said, b"%d" % faults)
        os._exit(0)
    os.waitpid(pid, 0)
    with os.fdopen(answer, "rb") as file:
        os.close(said)
        return int(file.read())


@pytest.mark.parametrize("reserved", [0, 1 << 30], ids=["alone", "in a large mapping"])
def test_a_child_with_pages_of_its_own_copies_none_later(reserved: int) -> None:
    """However large the mapping is that they are part of: the kernel merges neighbours."""
    assert _faults_of_child(lambda: None, reserved) > PAGES // 2
    assert _faults_of_child(syscalls.own_pages, reserved) < PAGES // 10


def test_what_is_only_reserved_stays_so() -> None:
    """As a sanitizer's shadow of all memory is: once it took a machine's all."""
    size = 1 << 30
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as reserved:
        for at in range(0, PAGES * resource.getpagesize(), resource.getpagesize()):
            reserved[at] = 1
        pid = os.fork()
        if pid == 0:
            before = _resident()
            syscalls.own_pages()
            os._exit(int(_resident() - before > size // 2))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.root
def test_nothing_is_left_of_a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it goes all the way: each part runs as often as it should."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("ECI_STATE_DIR", str(tmp_path / "state"))
    calls = []
    for name in ("_read", "_write", "_keep"):
        part = getattr(rehearsal, name)

        def counted(*args: str, name: str = name, part: Callable[..., None] = part) -> None:
            part(*args)
            calls.append(name)  # where it has not failed

        monkeypatch.setattr(rehearsal, name, counted)
    opened = set(os.listdir("/proc/self/fd"))
    rehearsal.rehearse()
    assert sorted(calls) == sorted(["_read", "_write", "_keep"] * rehearsal.ROUNDS)
    assert list(tmp_path.iterdir()) == []
    assert set(os.listdir("/proc/self/fd")) == opened


@pytest.mark.root
def test_a_rehearsal_that_cannot_be_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    rehearsal.rehearse()
    monkeypatch.undo()
    monkeypatch.setattr(rehearsal, "read_request", None)
    rehearsal.rehearse()
