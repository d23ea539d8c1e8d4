"""Which branches the tests take: all of them where it is decided, and as told elsewhere.

C is counted by clang, conditions one by one; Python by coverage.py, in every process that start.py
begins or that was forked from one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from tools.proof.variant import COVERAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DECIDING = ("csrc/decide.c", "csrc/policy.c")
"""Of these no branch may be left out, and none of `eci_supervisor/policy`."""
TESTS_OF_DECIDING = tuple(
    f"tests/unit/test_{name}.py"
    for name in (
        "api_routes api_target commands decide grants images paths policy_table refusals settings"
    ).split()
)
ALL_TESTS = ("--numprocesses", "logical", "--maxprocesses", "4", "--dist", "loadfile")

CONFIGURATION = """
[run]
branch = True
parallel = True
source = eci_supervisor
data_file = {dir}/python
patch =
    _exit
    execv
    fork
    subprocess

[report]
# What mypy alone reads.
exclude_also = if TYPE_CHECKING:
"""

BEGIN = "    find_packages()\n"
MEASURED = BEGIN + (
    "    import os, coverage\n"
    "    os.environ['COVERAGE_PROCESS_START'] = {configuration!r}\n"
    "    coverage.process_startup()\n"
)
"""In the copy of start.py, as `-I -S` leaves out what would begin it."""


def _tool(*words: str | Path) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


def _start_counting(counts: Path, *, append: bool) -> Path:
    """Forget what was counted, unless `append`; returns the configuration of coverage.py."""
    if not append:
        shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir(exist_ok=True)
    configuration = counts / "coveragerc"
    configuration.write_text(CONFIGURATION.format(dir=counts))
    start = COVERAGE.tree / "eci_supervisor" / "start.py"
    text = start.read_text()
    if text.count(BEGIN) != 1:
        raise SystemExit(f"{start}: where does it begin?")
    start.write_text(text.replace(BEGIN, MEASURED.format(configuration=str(configuration))))
    return configuration


def _branches_in_c(counts: Path, objects: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Return branches taken and branches there are, of each C source in `objects`."""
    merged = counts / "merged.profdata"
    _tool("llvm-profdata", "merge", "-sparse", *counts.glob("*.profraw"), "-o", merged)
    first, *others = objects
    words: list[str | Path] = [first]
    for other in others:
        words += ["-object", other]
    told = _tool("llvm-cov", "export", "-summary-only", f"-instr-profile={merged}", *words)
    found = {}
    for file in json.loads(told)["data"][0]["files"]:
        name = file["filename"].partition("/tree/")[2] or file["filename"]
        branches = file["summary"]["branches"]
        if name.startswith("csrc/"):
            found[name] = (branches["covered"], branches["count"])
    return found


def _branches_in_python(configuration: Path) -> dict[str, tuple[int, int]]:
    """Return the same of each Python file; a line that was not run counts like a branch."""
    rc = f"--rcfile={configuration}"
    run = [COVERAGE.python, "-m", "coverage"]
    subprocess.run([*run, "combine", "--append", "--quiet", rc], cwd=COVERAGE.tree, check=True)
    out = configuration.with_name("summary.json")
    subprocess.run([*run, "json", "--quiet", rc, "-o", out], cwd=COVERAGE.tree, check=True)
    found = {}
    for name, file in json.loads(out.read_text())["files"].items():
        summary = file["summary"]
        taken = summary["covered_branches"] + summary["covered_lines"]
        found[name] = (taken, summary["num_branches"] + summary["num_statements"])
    return found


def _folder(name: str) -> str:
    """Return the folder that is told of: a package of Python, or a C source itself."""
    return name.rpartition("/")[0] if name.endswith(".py") else name


def _tell(found: dict[str, tuple[int, int]]) -> None:
    sums: dict[str, tuple[int, int]] = {}
    for name, (taken, there) in found.items():
        before = sums.get(_folder(name), (0, 0))
        sums[_folder(name)] = (before[0] + taken, before[1] + there)
    for name, (taken, there) in sorted(sums.items()):
        if there:
            print(f"| `{name}` | {taken} of {there} | {100 * taken / there:.0f} % |")


def coverage(words: Sequence[str], *, everything: bool) -> int:
    """Run tests and tell what they cover; not 0 where a branch that decides is left out.

    `words` are pytest's, after `--append` where what was counted before is to count; without
    `everything` only what decides counts, and only its tests are run.
    """
    append = list(words[:1]) == ["--append"]
    words = words[append:]
    COVERAGE.build()
    counts = COVERAGE.directory / "counts"
    configuration = _start_counting(counts, append=append)
    chosen = words or (ALL_TESTS if everything else TESTS_OF_DECIDING)
    run = [COVERAGE.python, "-m", "coverage", "run", f"--rcfile={configuration}"]
    subprocess.run(
        [*run, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tools.proof.slow", *chosen],
        cwd=COVERAGE.tree,
        check=not everything,
    )
    package = COVERAGE.tree / "eci_supervisor"
    (module,) = package.glob("_eci.*.so")
    programs = [path for path in (package / "bin").glob("eci-*") if not path.is_symlink()]
    objects = [module, *(path for path in programs if path.is_file())] if everything else [module]
    in_c = _branches_in_c(counts, objects)
    in_python = _branches_in_python(configuration)
    if everything:
        _tell(in_c)
        _tell(in_python)
    deciding = {name: in_c[name] for name in DECIDING}
    deciding |= {
        name: branches
        for name, branches in in_python.items()
        if name.startswith("eci_supervisor/policy/")
    }
    left_out = {name: both for name, both in deciding.items() if both[0] != both[1]}
    for name, (taken, there) in sorted(left_out.items()):
        print(f"{name}: {there - taken} of {there} branches are taken by no test")
    if left_out:
        _show(configuration, counts / "merged.profdata", module)
        return 1
    print(f"==> every branch of {len(deciding)} files that decide is taken")
    return 0


def _show(configuration: Path, merged: Path, module: Path) -> None:
    """Show where they are."""
    run = [COVERAGE.python, "-m", "coverage", "report", f"--rcfile={configuration}"]
    run += ["--show-missing", "--skip-covered", "--include=eci_supervisor/policy/*"]
    subprocess.run(run, cwd=COVERAGE.tree, check=False)
    sources = [COVERAGE.tree / name for name in DECIDING]
    told = _tool(
        "llvm-cov", "show", "--show-branches=count", f"-instr-profile={merged}", module, *sources
    )
    lines = told.splitlines()
    print("\n".join(line for line in lines if "Branch (" in line and ": 0" in line))
