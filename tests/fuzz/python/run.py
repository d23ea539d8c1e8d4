"""Runs one target under atheris: ``python -m tests.fuzz.python.run NAME [libFuzzer's arguments]``.

What is instrumented, so that its branches guide the search, is this project's own code.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    """Import the target with its branches counted, and hand over to libFuzzer: does not return."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["eci_supervisor"]):
        target = importlib.import_module(f"tests.fuzz.python.{name}")
    # What libFuzzer has a shell start anew, where it works in parts (-merge).
    sys.argv[0] = f"{sys.executable} -m tests.fuzz.python.run {name}"
    atheris.Setup(sys.argv, target.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
