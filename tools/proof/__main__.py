"""python -m tools.proof WHAT [PYTEST'S WORDS]: what `make` calls; WHAT is one of `RUNS`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from tools.proof.coverage import coverage
from tools.proof.sanitize import sanitize, threads
from tools.proof.valgrind import valgrind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RUNS: dict[str, Callable[[Sequence[str]], int]] = {
    "sanitize": sanitize,
    "threads": threads,
    "valgrind": valgrind,
    "coverage": partial(coverage, everything=False),
    "coverage-all": partial(coverage, everything=True),
}

if __name__ == "__main__":
    sys.exit(RUNS[sys.argv[1]](sys.argv[2:]))
