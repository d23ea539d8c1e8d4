"""Compiles the targets in C: libFuzzer, ASan and UBSan, by clang (package libclang-rt-14-dev).

The flags are these targets' own; what is shipped is built by setup.py.
"""

from __future__ import annotations

import ast
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUT = ROOT / "build" / "fuzz"


def _programs() -> dict[str, list[str]]:
    """Return the sources of each program, without `.c`, as setup.py has them."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            continue
        if ast.unparse(node.target) == "PROGRAMS":
            programs = ast.literal_eval(node.value)
            return {
                name: [file.removesuffix(".c") for file in files]
                for name, (files, _) in programs.items()
            }
    raise ValueError("setup.py: no PROGRAMS")


_PROGRAMS = _programs()


def _rest(program: str, *included: str) -> list[str]:
    return [name for name in _PROGRAMS[program] if name not in included]


# Target -> the sources of csrc that are linked to it; what it includes itself is not among them.
TARGETS: dict[str, list[str]] = {
    "calls": _rest("eci-worker", "notify"),
    "cleanup": _rest("eci-cleanup", "cleanup"),
    "control": _rest("eci-worker", "worker"),
    "facts": _rest("eci-worker", "facts"),
    "fork_client": [],
    "hook": [],
    "intake": [],
    "launcher": _rest("eci-runtime", "launcher"),
    "options": _rest("eci-worker", "perform"),
    "policy": ["decide", "policy"],
    "procfs": _rest("eci-worker", "caller", "resolve"),
    "records": _rest("eci-worker", "exchange", "kernfs"),
    "remote": ["remote"],
    "resolve": _rest("eci-worker"),
    "ring": ["ring", "watch"],
    "view": _rest("eci-view", "view"),
}
NO_MAIN = ["-Dmain=main_of_program"]
"""For a source of csrc: the one of a program begins elsewhere here."""
LIBRARIES = {"view": ["-lfuse3"]}

SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined".split()
FLAGS = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fno-common",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-gnu-variable-sized-type-not-at-end",  # struct statmount, with room behind it
    "-D_GNU_SOURCE",
    '-DECI_PYTHON="/nonexistent"',
    '-DECI_VERSION="0"',
    "-I/usr/include/fuse3",
]


def _clang(*words: str | Path) -> None:
    subprocess.run(["clang", *FLAGS, *map(str, words)], check=True)


def _is_current(made: Path, sources: list[Path]) -> bool:
    headers = [*(ROOT / "csrc").glob("*.h"), *(HERE / "c").glob("*.h"), Path(__file__)]
    return made.exists() and all(
        source.stat().st_mtime <= made.stat().st_mtime for source in [*sources, *headers]
    )


def _object(name: str) -> None:
    source, made = ROOT / "csrc" / f"{name}.c", OUT / f"{name}.o"
    if not _is_current(made, [source]):
        _clang(*SANITIZERS, *NO_MAIN, "-fsanitize=fuzzer-no-link", "-c", source, "-o", made)


def _target(name: str) -> None:
    source, made = HERE / "c" / f"{name}.c", OUT / f"fuzz-{name}"
    objects = [OUT / f"{each}.o" for each in TARGETS[name]]
    # It includes some source of csrc: which one, is not worth to be found out.
    if not _is_current(made, [source, *objects, *(ROOT / "csrc").glob("*.c")]):
        extra = ["-fsanitize=fuzzer", "-pthread", *LIBRARIES.get(name, [])]
        _clang(*SANITIZERS, source, *objects, "-o", made, *extra)


def build(names: list[str]) -> None:
    """Compile these targets, as far as a source has changed; CalledProcessError."""
    OUT.mkdir(parents=True, exist_ok=True)
    objects = sorted({each for name in names for each in TARGETS[name]})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_object, objects))
        list(pool.map(_target, names))


def program(name: str) -> Path:
    """Return where the target is that `build` has made."""
    return OUT / f"fuzz-{name}"


def launcher() -> Path:
    """Compile the launcher's reading of words as a library, for a target in Python; its path."""
    source, made = HERE / "c" / "launcher.c", OUT / "launcher.so"
    OUT.mkdir(parents=True, exist_ok=True)
    if not _is_current(made, [source, ROOT / "csrc" / "launcher.c"]):
        _clang("-shared", "-fPIC", source, ROOT / "csrc" / "fork_client.c", "-o", made)
    return made
