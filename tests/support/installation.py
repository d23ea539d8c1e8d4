"""A second installation of the project: a copy of the package, which upgrades replace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import eci_supervisor

if TYPE_CHECKING:
    from tests.support.place import Place

PACKAGE = Path(eci_supervisor.__path__[0])
CSRC = PACKAGE.parent / "csrc"
GCC = ["gcc", "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-static-pie", "-fPIE"]
ECI = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from eci_supervisor.cli.main import main
main(prog_name="eci")
"""


class Installation:
    """One directory, as an administrator's package manager sees it: versions come and go there."""

    def __init__(self, place: Place, version: str = eci_supervisor.__version__) -> None:
        """Install `version`, which is the project as it is under another number."""
        self.place = place
        self.top = place.directory("installed")
        self.package = self.top / "eci_supervisor"
        self.install(version)

    def program(self, name: str) -> Path:
        """Return the path of one of its programs."""
        return self.package / "bin" / name

    def install(self, version: str, form: int | None = None) -> None:
        """Put this version in the place of what is there.

        `form`: it leaves another format to those that come after it, and reads no other.
        """
        new = self.top / "new"
        shutil.copytree(PACKAGE, new, symlinks=True)
        _edit(new / "__init__.py", eci_supervisor.__version__, version)
        if form is not None:
            _edit(new / "runtime/state.py", "\nFORMAT = 1\n", f"\nFORMAT = {form}\n")
            (new / "supervisor/formats").write_text(f"{form}\n")
        if version != eci_supervisor.__version__:
            launcher = new / "bin/eci-runtime"
            launcher.unlink()
            shutil.copy(_launcher(self.place, version), launcher)
        self.remove()
        new.rename(self.package)

    def remove(self) -> None:
        """Take it away, programs that run included."""
        if self.package.exists():
            old = self.package.rename(self.top / "old")
            shutil.rmtree(old)

    def eci(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run its `eci`; fails where that does."""
        argv = [sys.executable, "-c", ECI, str(self.top), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))


def _launcher(place: Place, version: str) -> Path:
    """Compile it as setup.py does, once per session: its version is in it."""
    target = place.root / f"launcher-{version}"
    if not target.exists():
        defines = [f'-DECI_PYTHON="{sys.executable}"', f'-DECI_VERSION="{version}"']
        sources = [str(CSRC / name) for name in ("launcher.c", "fork_client.c")]
        subprocess.run([*GCC, *defines, *sources, "-o", str(target)], check=True)
    return target
