"""valgrind's memcheck: the Python module in its own tests, the short-lived programs in real use.

Not the worker: valgrind does not know statmount(2), without which it cannot start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from tools.proof.variant import HERE, VALGRIND

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MEMCHECK = (
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    f"--suppressions={HERE}/valgrind.supp",
)
PROGRAMS = ("eci-runtime", "eci-hook", "eci-cleanup")
OF_MODULE = ("tests/unit/test_decide.py", "tests/unit/test_ring.py", "tests/unit/test_watch.py")
OF_PROGRAMS = (
    "tests/engine/test_runtime_bundle.py",
    "tests/kernel/test_stage.py",
    "-k",
    "failed_hook or last_hook",
)
"""Containers that begin, end, and fail to begin.  None with an exec: there the launcher installs a
filter by seccomp(2), which valgrind 3.19 does not know.  Nor the keeper at rest: who looks after it
knows it by its program."""

WRAPPER = """#!/bin/sh
exec valgrind --quiet {memcheck} --log-file={reports}/%p.%n {real}/"${{0##*/}}" "$@"
"""
ERROR = re.compile(r"^==\d+== *\S", re.MULTILINE)
"""What else it writes are remarks on itself, between hyphens: calls that it does not know."""


def _wrap(reports: Path) -> None:
    """Put scripts in the places of the programs, which run these under valgrind."""
    package = VALGRIND.tree / "eci_supervisor"
    real = package / "real"  # start.py is looked for above the directory of the launcher
    real.mkdir()
    wrapper = WRAPPER.format(memcheck=" ".join(MEMCHECK), reports=reports, real=real)
    for name in (*PROGRAMS, "eci-runtime-crun"):
        (package / "bin" / name).rename(real / name)
        (package / "bin" / name).write_text(wrapper)
        (package / "bin" / name).chmod(0o755)


def _of_ours(text: str) -> list[str]:
    """Return the errors in memcheck's `text` that the Python module has a part in."""
    names = "|".join(re.escape(path.name) for path in (VALGRIND.tree / "csrc").glob("*.c"))
    ours = re.compile(rf"\((?:{names}):\d+\)|/_eci\.")
    errors = re.split(r"^==\d+== *\n", text, flags=re.MULTILINE)
    return [error for error in errors if ours.search(error)]


def _check_module(reports: Path) -> list[str]:
    out = reports / "module"
    words = ["valgrind", "--quiet", *MEMCHECK, f"--log-file={out}"]
    words += [VALGRIND.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += ["-p", "tools.proof.slow", "--timeout=0", *OF_MODULE]
    environment = dict(os.environ, PYTHONMALLOC="malloc", ECI_EXAMPLES="10")
    subprocess.run(words, cwd=VALGRIND.tree, env=environment, check=True)
    return _of_ours(out.read_text())


def _check_programs(reports: Path, words: Sequence[str]) -> list[str]:
    _wrap(reports)
    run = [VALGRIND.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    # The server reads what a launcher was told from its command line, which is valgrind's here.
    environment = dict(os.environ, ECI_FORK_SERVER="0")
    subprocess.run(run, cwd=VALGRIND.tree, env=environment, check=True)
    found = []
    logs = list(reports.glob("*.*"))
    for log in logs:
        text = log.read_text(errors="replace")
        if ERROR.search(text):
            found.append(text)
    if not logs:
        raise SystemExit("valgrind has looked at no program")
    return found


def _see_it_report(reports: Path) -> None:
    """Provoke an error: a run without any proves nothing where none arrives."""
    canary, log = VALGRIND.directory / "canary", reports / "canary"
    VALGRIND.compile([HERE / "canary.c"], canary, "-O0", "-pthread")
    words = ["valgrind", "--quiet", *MEMCHECK, f"--log-file={log}", str(canary), "/", "heap"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=False)
    if "Invalid write" not in log.read_text():
        raise SystemExit("valgrind does not report a write behind a block")
    log.unlink()


def valgrind(words: Sequence[str]) -> int:
    """Run the tests; `words` are pytest's, for the programs.  Not 0 where valgrind says a word."""
    VALGRIND.build()
    reports = VALGRIND.report_dir
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    _see_it_report(reports)
    found = [*_check_programs(reports, words or OF_PROGRAMS), *_check_module(reports)]
    print("\n\n".join(found) or "==> valgrind has nothing to say")
    return int(bool(found))
