"""The Python half's way in: what it imports from, and what it does where that is not enough."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import eci_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(eci_supervisor.__path__[0])
LOADED = """
import runpy, sys
start = runpy.run_path(sys.argv[1])
start["find_packages"]()
import eci_supervisor, msgspec
print(eci_supervisor.__path__[0], "site" in sys.modules)
"""


def loaded(package: Path) -> list[str]:
    """Return where a bare interpreter finds the package, and whether `site` was needed."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADED, str(package / "start.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Path]:
    """A copy of the package's top, whose directories of dependencies a test may name."""
    package = tmp_path / "eci_supervisor"
    (package / "bin").mkdir(parents=True)
    for name in ("__init__.py", "start.py", "bin/dependencies"):
        shutil.copy(PACKAGE / name, package / name)
    yield package
    shutil.rmtree(package)


def test_finds_the_package_without_site() -> None:
    assert loaded(PACKAGE) == [str(PACKAGE), "False"]


def test_takes_the_package_that_it_lies_in(copied: Path) -> None:
    assert loaded(copied) == [str(copied), "False"]


@pytest.mark.parametrize("text", ["", "/nowhere\n", "relative\n", None])
def test_dependencies_elsewhere_are_found_by_site(copied: Path, text: str | None) -> None:
    if text is None:
        (copied / "bin/dependencies").unlink()
    else:
        (copied / "bin/dependencies").write_text(text)
    assert loaded(copied) == [str(copied), "True"]
