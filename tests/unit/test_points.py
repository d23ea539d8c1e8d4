"""Making mount points where somebody else is at work."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime import points

if TYPE_CHECKING:
    from pathlib import Path


def test_mode_of_a_new_directory(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    os.close(points.make(root, "a/b", points.IN_ROOT, directory=True, mode=0o1777))
    os.close(root)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o1777


def test_mode_is_not_given_to_what_a_link_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with the same root file system can have made a link of it meanwhile."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    tree.mkdir()
    elsewhere.mkdir(mode=0o700)
    make_one = points._make_one

    def make_and_swap(parent: int, name: str, *, directory: bool) -> None:
        make_one(parent, name, directory=directory)
        (tree / name).rename(tree / "away")
        (tree / name).symlink_to(elsewhere)

    monkeypatch.setattr(points, "_make_one", make_and_swap)
    root = os.open(tree, os.O_PATH)
    with pytest.raises(OSError, match="new"):
        points.make(root, "new", points.IN_ROOT, directory=True, mode=0o1777)
    os.close(root)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
