"""A seed stands for the same scripts, whatever else has been imported or drawn before."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from tests.differential.search import draw

ELSEWHERE = """
import eci_supervisor.runtime.rewrite, random
from hypothesis import find, strategies
find(strategies.integers(), lambda number: number > 1000)
random.seed(7)
from tests.differential.test_seed import fingerprint
print(fingerprint())
"""


ENOUGH = 12
"""Scripts: without `seed_alone` they differ among these already."""


def fingerprint() -> str:
    """Say in short which scripts a seed stands for."""
    digest = hashlib.sha256()
    draw("1.0", lambda script: digest.update(str(script).encode()), ENOUGH)
    return digest.hexdigest()


def test_a_seed_stands_for_the_same_scripts_wherever_it_is_used() -> None:
    argv = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(argv, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == fingerprint()
