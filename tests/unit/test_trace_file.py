"""The file of a trace: bounded, whoever writes to it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from eci_supervisor.supervisor.trace_file import TraceFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LINE = "x" * 99


def test_two_files_at_most_and_the_newest_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace"
    file = TraceFile(str(path), most=1000)
    for number in range(100):
        file.write(f"{number:099}")
    file.close()
    old = path.with_name("trace.1")
    assert sorted(path.parent.iterdir()) == [path, old]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (path.stat().st_size, old.stat().st_size) == (1000, 1000)
    kept = (old.read_text() + path.read_text()).split()
    assert [int(line) for line in kept] == list(range(80, 100))


def test_two_writers_share_one_file(tmp_path: Path) -> None:
    """Neither goes on writing to the file that the other has put aside."""
    path = tmp_path / "trace"
    one, two = (TraceFile(str(path), most=1000) for _ in range(2))
    for _ in range(50):
        one.write(LINE)
        two.write(LINE)
    for file in (one, two):
        file.close()
    assert sorted(os.listdir(tmp_path)) == ["trace", "trace.1"]
    assert path.stat().st_size <= 1000
    assert (tmp_path / "trace.1").stat().st_size <= 1000


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("before\n")
    file = TraceFile(str(path))
    file.write("after")
    file.close()
    assert path.read_text() == "before\nafter\n"


def test_another_process_goes_on_with_it(tmp_path: Path) -> None:
    """It has the descriptor and the name, and begins a new file where it is time to."""
    path = tmp_path / "trace"
    first = TraceFile(str(path), most=150)
    first.write(LINE)
    second = TraceFile(str(path), most=150, fd=os.dup(first.fileno()))
    first.close()
    second.write(LINE)
    second.close()
    assert sorted(os.listdir(tmp_path)) == ["trace", "trace.1"]
    assert TraceFile.of(None) is None


def test_standard_error_is_no_file(capfd: pytest.CaptureFixture[str]) -> None:
    file = TraceFile("stderr", most=1)
    file.write("one")
    file.write("two")
    file.close()
    assert capfd.readouterr().err == "one\ntwo\n"


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """Never put aside: a pipe, or the machine's /dev/null."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = TraceFile(str(path), most=1)
    file.write("one")
    file.write("two")
    file.close()
    assert os.read(reader, 100) == b"one\ntwo\n"
    os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"]
