"""What is known of a bind's source once it is open."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime.errors import StageError
from eci_supervisor.runtime.sources import Sources, identity_of, open_sources

if TYPE_CHECKING:
    from pathlib import Path


def sources_of(bundle: Path, *paths: str) -> Sources:
    """Open binds of these paths."""
    mounts = [
        {"destination": f"/{number}", "type": "bind", "source": path, "options": ["rbind"]}
        for number, path in enumerate(paths)
    ]
    return open_sources({"mounts": mounts}, str(bundle))


def test_a_source_is_what_its_path_leads_to(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    file = tmp_path / "a/b/file"
    file.touch()
    (tmp_path / "link").symlink_to("a/b/../b/file")
    with sources_of(tmp_path, "link", f"{tmp_path}/a/./b/") as sources:
        linked, directory = sources.all
        assert (linked.written, linked.real) == ("link", os.fsencode(file))
        assert stat.S_ISREG(linked.mode)
        assert directory.destination == "/1"
        above = [identity_of(os.stat(path)) for path in (file, *file.parents)]
        assert list(linked.chain) == above
        assert list(directory.chain) == above[1:]
        assert linked.place.path.endswith(os.fsencode(file.relative_to("/")))


def test_only_binds_have_sources(tmp_path: Path) -> None:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/a", "type": "none", "source": str(tmp_path), "options": ["bind"]},
        {"destination": "/b", "type": "bind", "source": str(tmp_path)},
        {"destination": "/c", "type": "tmpfs", "source": str(tmp_path), "options": ["rbind"]},
    ]
    with open_sources({"mounts": mounts}, str(tmp_path)) as sources:
        assert [source.index for source in sources.all] == [1, 2, 3]


def test_a_source_that_is_not_there_says_so(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(StageError, match=r"mounts\[1\]: bind source /none: No such file"):
        sources_of(tmp_path, str(tmp_path), "/none")
    assert sorted(os.listdir("/proc/self/fd")) == before
