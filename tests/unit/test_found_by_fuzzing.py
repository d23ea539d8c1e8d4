"""What fuzzing has found, each with its input: tests/fuzz/found/TARGET/NAME.

Targets in C are compiled by gcc here, with its sanitizers; all get their inputs without a search.
"""

from __future__ import annotations

import importlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import build

if TYPE_CHECKING:
    from pathlib import Path

FOUND = build.HERE / "found"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
EVERY = sorted((path.parent.name, path.name) for path in FOUND.glob("*/*"))
CASES = [case for case in EVERY if case[0] in build.TARGETS]
IN_PYTHON = [case for case in EVERY if case[0] not in build.TARGETS]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile each target that has a finding; what several are linked with, once."""
    out = tmp_path_factory.mktemp("targets")
    defines = ["-D_GNU_SOURCE", '-DECI_PYTHON="/x"', '-DECI_VERSION="0"']
    gcc = ["gcc", "-std=gnu11", "-g1", "-w", *defines, *SANITIZERS]
    targets = sorted({target for target, _ in CASES})
    names = {each for target in targets for each in build.TARGETS[target]}
    sources = [str(build.ROOT / "csrc" / f"{name}.c") for name in sorted(names)]
    own = build.HERE / "c"
    subprocess.run([*gcc, *build.NO_MAIN, "-c", *sources], check=True, cwd=out)
    subprocess.run([*gcc, "-c", str(own / "standalone.c")], check=True, cwd=out)
    for target in targets:
        objects = [f"{name}.o" for name in (*build.TARGETS[target], "standalone")]
        words = [str(own / f"{target}.c"), *objects, "-pthread", "-o", target]
        subprocess.run([*gcc, *words], check=True, cwd=out)
    return {target: out / target for target in targets}


@pytest.mark.parametrize(("target", "name"), CASES)
def test_found(programs: dict[str, Path], target: str, name: str) -> None:
    done = subprocess.run(
        [str(programs[target]), str(FOUND / target / name)],
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("target", "name"), IN_PYTHON)
def test_found_in_python(target: str, name: str) -> None:
    one = importlib.import_module(f"tests.fuzz.python.{target}").one
    one((FOUND / target / name).read_bytes())
