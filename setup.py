"""Builds the C half: the cffi extension and the small static helper programs.

The extension (``eci_supervisor._eci``) lets Python call the same ``decide``, table and
system-call code that the worker runs.  The programs land in ``eci_supervisor/bin`` and are
ordinary executables that hold no interpreter.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"

HARDENING = [
    "-std=gnu11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wformat=2",
    "-Werror",
    "-D_GNU_SOURCE",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=3",
    "-fstack-protector-strong",
    "-fcf-protection",
    "-fvisibility=hidden",
    "-fPIE",
]
LINK = ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]

COMPILER = shlex.split(os.environ.get("CC", "gcc"))
# For instrumented builds (tools/proof): words for the compiler that count more than those above.
# What they bring along needs a dynamic linker.
MORE = shlex.split(os.environ.get("ECI_PROGRAM_WORDS", ""))

# Program name -> its sources and the extra words for the linker.
PROGRAMS: dict[str, tuple[list[str], list[str]]] = {
    # Called several times per container: without a dynamic linker they start in half the time.
    "eci-runtime": (["launcher.c", "fork_client.c"], ["-static-pie"]),
    "eci-hook": (["hook.c", "privilege.c", "filters.c"], ["-static-pie"]),
    "eci-cleanup": (["cleanup.c", "watch.c", "privilege.c", "filters.c"], ["-static-pie"]),
    # One per container waits, and a dynamic linker's pages would be most of it.
    "eci-keeper": (
        ["keeper.c", "alone.c", "intake.c", "second.c", "privilege.c"],
        ["-static-pie"],
    ),
    "eci-worker": (
        [
            "worker.c",
            "hangs.c",
            "memory.c",
            "notify.c",
            "calls.c",
            "caller.c",
            "remote.c",
            "resolve.c",
            "facts.c",
            "kernfs.c",
            "exchange.c",
            "decide.c",
            "perform.c",
            "tree.c",
            "privilege.c",
            "filters.c",
            "policy.c",
            "recover.c",
            "ring.c",
            "watch.c",
        ],
        ["-pie", "-pthread"],
    ),
    "eci-view": (
        [
            "view.c",
            "view_server.c",
            "view_nodes.c",
            "view_names.c",
            "view_attributes.c",
            "view_files.c",
            "privilege.c",
            "filters.c",
        ],
        ["-pie", "-lfuse3", "-pthread"],
    ),
}


class BuildWithPrograms(build_ext):
    """``build_ext`` that also compiles the programs of ``PROGRAMS``."""

    def run(self) -> None:
        """Compile the extension, then each program into ``eci_supervisor/bin``."""
        super().run()
        base = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
        out = base / "eci_supervisor" / "bin"
        out.mkdir(parents=True, exist_ok=True)
        for name, (sources, libs) in PROGRAMS.items():
            command = [
                *COMPILER,
                *HARDENING,
                *MORE,
                f'-DECI_PYTHON="{sys.executable}"',
                f'-DECI_VERSION="{self.distribution.get_version()}"',
                *(["-I/usr/include/fuse3"] if name == "eci-view" else []),
                *[str(CSRC / source) for source in sources],
                "-o",
                str(out / name),
                *LINK,
                *("-pie" if MORE and word == "-static-pie" else word for word in libs),
            ]
            subprocess.run(command, check=True)
        # Where start.py finds what the package imports, when `site` is left out.
        places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (out / "dependencies").write_text("".join(f"{place}\n" for place in places))
        # Called by this name it is crun that does the work.
        link = out / "eci-runtime-crun"
        link.unlink(missing_ok=True)
        link.symlink_to("eci-runtime")


setup(
    cffi_modules=["csrc/build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": BuildWithPrograms},
)
