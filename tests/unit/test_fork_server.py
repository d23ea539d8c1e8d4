"""Whom a fork server would serve, and where none is left behind."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from eci_supervisor.runtime import fork_server

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_child_is_like_its_parent_until_it_differs() -> None:
    mine = fork_server.likeness(os.getpid())
    for words, same in ((["sleep"], True), (["nice", "sleep"], False), (["setsid", "sleep"], True)):
        with subprocess.Popen([*words, "100"]) as process:
            try:
                while "sleep" not in fork_server._text(f"/proc/{process.pid}/comm"):
                    pass
                assert (fork_server.likeness(process.pid) == mine) is same
            finally:
                process.kill()


def test_a_monitor_with_a_cgroup_of_its_own_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "_text", lambda _: "0::/machine.slice/libpod-conmon-1.scope\n")
    fork_server.offer(str(tmp_path), lambda *_: 0)
    assert list(tmp_path.iterdir()) == []


def test_where_none_can_be_nothing_fails(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    fork_server.offer(str(deep), lambda *_: 0)
    (tmp_path / "fork").write_text("in the way")
    fork_server.offer(str(tmp_path), lambda *_: 0)
