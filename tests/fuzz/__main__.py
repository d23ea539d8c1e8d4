"""Fuzzing: ``make fuzz``, or ``python -m tests.fuzz [--seconds N] [--seed N] [--only NAME,...]``.

Each target first gets its corpus, which is in the repository; then new inputs for so many seconds.
What is found on the way is kept in build/fuzz/NAME/found, so that the next run goes on from there;
an input that fails is written to build/fuzz/NAME/, and the target's own output says why.

    --seed N    the same search each time, of RUNS_BY_SEED inputs: from what the repository holds,
                with the same random numbers; nothing is kept of it but an input that fails
    --merge     no search: what was found goes into the corpus, as far as it reaches anything new
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import build

HERE = build.HERE
PYTHON = sorted(
    path.stem for path in (HERE / "python").glob("*.py") if path.stem not in ("run", "source")
)
NAMES = sorted([*build.TARGETS, *PYTHON])
RUNS_BY_SEED = 5000
ONE_INPUT_SECONDS = 10
"""An input that takes longer is a finding."""
MEMORY_MB = 1024
"""What a target may have; beyond that it is a finding, too."""
CORPUS_FILE = 4096
"""Bytes of one file of a corpus, at most."""


class Result(NamedTuple):
    """What became of one target."""

    name: str
    failed: bool
    corpus: int
    """Files of its corpus."""
    runs: int
    """Executions, those of the corpus included."""
    edges: int
    """Edges of the code under test that were reached; libFuzzer's counter `cov`."""
    features: int
    """These with how often, and comparisons; libFuzzer's `ft`."""
    seconds: float
    output: str


def command(name: str) -> list[str]:
    """Return the beginning of a target's command line."""
    if name in build.TARGETS:
        return [str(build.program(name))]
    return [sys.executable, "-m", "tests.fuzz.python.run", name]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        # No leak is looked for where a target leaves a child, or threads, that have a share in it.
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def _run(name: str, seconds: int, seed: int) -> Result:
    """Run one target: the corpus, then the search; by `seed`, where it is not 0."""
    corpus, place = HERE / "corpus" / name, build.OUT / name
    words = [
        *command(name),
        # By a count where it is to be the same each time: how far two seconds lead, nobody knows.
        f"-runs={RUNS_BY_SEED}" if seed else f"-max_total_time={seconds}",
        f"-timeout={ONE_INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={place}/",
        "-max_len=8192",
        "-print_final_stats=1",
        "-verbosity=1",
        f"-seed={seed}",
    ]
    words += [f"-dict={path}" for path in [HERE / "dict" / f"{name}.dict"] if path.exists()]
    began = time.monotonic()
    # A target ends without a word to Python: what it leaves goes with this.
    with tempfile.TemporaryDirectory(prefix="eci-fuzz-") as scratch:
        found = Path(scratch if seed else place, "found")
        found.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True)
        done = subprocess.run(
            [
                *words,
                str(found),
                *(str(path) for path in (corpus, HERE / "found" / name) if path.is_dir()),
            ],
            check=False,
            cwd=build.ROOT,
            env=_environment() | {"TMPDIR": scratch, "PYTHONHASHSEED": str(seed or "random")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    return Result(
        name=name,
        failed=done.returncode != 0,
        corpus=len(list(corpus.iterdir())) if corpus.is_dir() else 0,
        runs=_last(r"number_of_executed_units: (\d+)", done.stdout),
        edges=_last(r" cov: (\d+)", done.stdout),
        features=_last(r" ft: (\d+)", done.stdout),
        seconds=time.monotonic() - began,
        output=done.stdout,
    )


def _merge(name: str) -> None:
    """Bring into the corpus what was found and reaches an edge that nothing in it reaches."""
    corpus, found = HERE / "corpus" / name, build.OUT / name / "found"
    for place in (corpus, found):
        place.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *command(name),
            "-set_cover_merge=1",
            "-use_counters=0",  # edges alone: how often is not worth a file
            f"-max_len={CORPUS_FILE}",
            f"-timeout={ONE_INPUT_SECONDS}",
            *map(str, (corpus, found)),
        ],
        check=True,
        cwd=build.ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    print(f"{name}: {len(list(corpus.iterdir()))} files")  # noqa: T201


def _show(result: Result) -> None:
    print(  # noqa: T201
        f"{result.name:12} {'FAILED' if result.failed else 'ok':6} corpus {result.corpus:3}  "
        f"runs {result.runs:9}  edges {result.edges:5}  features {result.features:6}  "
        f"{result.seconds:5.1f} s",
        flush=True,
    )
    if result.failed:
        lines = [line for line in result.output.splitlines() if not re.match(r"#\d+\s", line)]
        print("\n".join(lines[-60:]), flush=True)  # noqa: T201


def main() -> int:
    """Run what was asked for; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=6, help="of search, for each target")
    parser.add_argument("--seed", type=int, default=0, help="of the search; 0: another each time")
    parser.add_argument("--only", default="", help="targets, with commas between")
    parser.add_argument("--merge", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else NAMES
    unknown = set(names) - set(NAMES)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    build.build([name for name in names if name in build.TARGETS])
    build.launcher()
    if options.merge:
        for name in names:
            _merge(name)
        return 0
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(lambda name: _run(name, options.seconds, options.seed), names):
            _show(result)
            failed = failed or result.failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
