"""The names that engines know our launcher by, and what stands behind a name of theirs.

    /var/lib/eci/path/runc, crun, …      first in the PATH of dockerd and containerd
    /var/lib/eci/path/eci-runtime, …     what configuration files name
    /var/lib/eci/wrapped/NAME/runc       in the place of a runtime that was registered as NAME,
    /var/lib/eci/wrapped/NAME/runc.real  which this names

All are symbolic links to the launcher (csrc/launcher.c), but for `.real`.  They outlast a move of
this package: `eci enable` sets them anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.journal import LIBRARY, Link
from eci_supervisor.runtime import state

if TYPE_CHECKING:
    from eci_supervisor.engines.files import Tree

SHADOWED = ("runc", "crun", "docker-runc", "buildkit-runc")
"""What engines look up on PATH: the last two are tried first by some, and are runc."""
RUNC_SHIMS = ("containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2")
NAMES = {"eci": "eci-runtime", "eci-crun": "eci-runtime-crun"}
"""Names in configuration files -> names of our links."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOTE = b"eci-runtime launcher"
_SECONDS = 10.0


class Launcher(msgspec.Struct, frozen=True):
    """Where the links are in a tree."""

    tree: Tree
    library: str = LIBRARY

    @property
    def directory(self) -> str:
        """What stands first in a PATH."""
        return f"{self.library}/path"

    def path(self, name: str) -> str:
        """Return the path of one of our links."""
        return f"{self.directory}/{name}"

    def links(self) -> tuple[Link, ...]:
        """Return all links of the directory that stands first in a PATH."""
        program = state.bin_path("eci-runtime")
        if not os.access(program, os.X_OK):
            raise EngineError(f"{program} is missing: the C half is not built (make build)")
        names = (*SHADOWED, *NAMES.values())
        return tuple(Link(self.path(name), program) for name in names)

    def other_shims(self) -> dict[str, str]:
        """Return the shims of containerd, name -> path, that start something else than runc.

        Docker takes `--runtime=io.containerd.kata.v2` for containerd-shim-kata-v2 on PATH.
        """
        found: dict[str, str] = {}
        for directory in PATH.split(":"):
            for name in self.tree.listdir(directory):
                if name.startswith("containerd-shim") and name not in RUNC_SHIMS:
                    found.setdefault(name, f"{directory}/{name}")
        return found

    def shim_links(self) -> tuple[Link, ...]:
        """Return links, before those shims, to our launcher, which refuses to be one."""
        program = state.bin_path("eci-runtime")
        return tuple(Link(self.path(name), program) for name in self.other_shims())

    def wrapped(self, name: str, kind: str, real: str) -> tuple[str, tuple[Link, ...]]:
        """Return what to register in the place of `real`, a runtime of that kind, and its links."""
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:32]
        digest = hashlib.sha256(f"{name}\0{real}".encode()).hexdigest()[:8]
        path = f"{self.library}/wrapped/{readable}-{digest}/{kind}"
        return path, (Link(path, state.bin_path("eci-runtime")), Link(f"{path}.real", real))

    def is_ours(self, path: str) -> bool:
        """Say whether a path or name stands for our launcher."""
        found = self._find(path)
        if found is None:
            return path.startswith(f"{self.library}/")
        try:
            with open(found, "rb") as file:
                return NOTE in file.read(4096)
        except OSError:
            return False

    def _find(self, path: str) -> str | None:
        """Return the file behind a path or a name on PATH, ours left out; None if there is none."""
        if "/" not in path:
            for directory in PATH.split(":"):
                real = self.tree.real(f"{directory}/{path}")
                if os.path.isfile(real):
                    return real
            return None
        real = self.tree.real(path)
        return real if os.path.isfile(real) else None

    def absolute(self, path: str) -> str | None:
        """Return the absolute path, in the tree, of a path or a name on PATH; None without one."""
        if path.startswith("/"):
            return path
        for directory in PATH.split(":"):
            if os.path.isfile(self.tree.real(f"{directory}/{path}")):
                return f"{directory}/{path}"
        return None

    def kind(self, path: str) -> str | None:
        """Return `runc` or `crun` for a program that is one of them, else None.

        Asked is the program itself, `--version`, as a name says little; in another tree, whose
        programs may not run here, the name has to do.
        """
        found = self._find(path)
        if found is None:
            return None
        if self.tree.root == "/":
            try:
                done = subprocess.run(
                    [found, "--version"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_SECONDS,
                    check=False,
                )
            except (OSError, subprocess.SubprocessError):
                return None
            match = re.match(r"(runc|crun) version ", done.stdout)
            return match[1] if match else None
        name = os.path.basename(path)
        return name if name in ("runc", "crun") else None


def installed(tree: Tree, program: str) -> str | None:
    """Return the path, on this machine, of a program of the tree, or None."""
    if tree.root == "/":
        return shutil.which(program, path=f"{PATH}:{os.environ.get('PATH', '')}")
    for directory in PATH.split(":"):
        real = tree.real(f"{directory}/{program}")
        if os.path.isfile(real):
            return real
    return None
