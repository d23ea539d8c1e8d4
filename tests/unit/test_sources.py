"""What is known of a bind's source once it is open."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime import mounts
from eci_supervisor.runtime.errors import RefusedError, StageError
from eci_supervisor.runtime.sources import Sources, identity_of, open_sources, overlay_layers
from eci_supervisor.runtime.stage import Stage

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


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ("lowerdir=/a:/b,upperdir=/u,workdir=/w", ["lowerdir /a /b", "upperdir /u", "workdir /w"]),
        ("ro lowerdir+=/a lowerdir+=/b datadir+=/d", ["lowerdir /a /b", "datadir /d"]),
        ("lowerdir=/a::/d", ["lowerdir /a /d"]),
        ("userxattr", []),
    ],
)
def test_layers_of_an_overlay(options: str, layers: list[str]) -> None:
    found = overlay_layers(0, options.split())
    expected = [(line.split()[0], path) for line in layers for path in line.split()[1:]]
    assert found == expected


@pytest.mark.parametrize("option", ["lowerdir=a:/b", "lowerdir=/a\\:b", "upperdir=../x"])
def test_layers_that_are_not_understood_are_refused(option: str) -> None:
    with pytest.raises(RefusedError, match=r"mounts\[3\]: the layers of an overlay"):
        overlay_layers(3, [option])


@pytest.mark.root
def test_what_was_judged_is_what_is_cloned(tmp_path: Path) -> None:
    """Whatever the path has become since."""
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("good")
    spec = {"mounts": [{"destination": "/x", "source": str(link), "options": ["rbind"]}]}
    with open_sources(spec, "/") as sources:
        link.unlink()
        link.symlink_to("bad")
        stage, taken = Stage("/none", None, 0), SimpleNamespace(shift=True)
        call = SimpleNamespace(container_id="c1")
        request = SimpleNamespace(spec=spec, sources=sources, call=call)
        clones = mounts.clone(stage, request, taken)  # type: ignore[arg-type]
        try:
            inode = os.fstat(clones[0].tree).st_ino
        finally:
            mounts.close(stage, clones)
    assert inode == (tmp_path / "good").stat().st_ino
