"""Compiles the small static C programs that tests run inside containers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCES = Path(__file__).parent
GCC = ["gcc", "-std=gnu11", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]


def compile_programs(out: Path, names: Iterable[str] = ("mnt", "race", "storm")) -> dict[str, Path]:
    """Build the programs into `out` for x86-64 and, with `32` after its name, for i386.

    Returns name -> file.  A missing multilib is an error of gcc's, never a silent skip.
    """
    made = {}
    for name in names:
        for suffix, flags in (("", []), ("32", ["-m32"])):
            target = out / f"{name}{suffix}"
            subprocess.run(
                [*GCC, *flags, "-o", str(target), str(SOURCES / f"{name}.c")], check=True
            )
            made[target.name] = target
    return made


def compile_late(out: Path) -> Path:
    """Build the host's program that holds answers back."""
    return compile_tracer(out, "late")


def compile_tracer(out: Path, name: str) -> Path:
    """Build a program that traces a process of ours on the host: `late` or `moment`."""
    target = out / name
    subprocess.run([*GCC, "-o", str(target), str(SOURCES / f"{name}.c")], check=True)
    return target
