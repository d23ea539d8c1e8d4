"""SECURITY.md names tests for what it claims; they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"\b([a-z]+/test_\w+\.py)(?:::(test_\w+))?( †)?", TEXT)))
WITHOUT = re.compile(r"^def test_\w*(?:without_protection|without_us)\w*\(", re.MULTILINE)


def test_some_are_named() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "test", "both"), NAMED)
def test_each_is_there(file: str, test: str, both: str) -> None:
    """With a dagger the file has the attack without protection as well."""
    source = (TESTS / file).read_text()
    assert not test or f"\ndef {test}(" in source
    assert not both or WITHOUT.search(source)
