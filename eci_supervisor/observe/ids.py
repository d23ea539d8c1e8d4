"""Names of records: short, unique, and in the order of time when sorted as text."""

from __future__ import annotations

import os

# Crockford's base 32: no letter that is read as a digit, and in the order of ASCII.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME = 11
"""Digits of the microseconds since the epoch: enough until 3111."""
_CHANCE = 5


def _digits(value: int, count: int) -> str:
    return "".join(_DIGITS[value >> 5 * place & 31] for place in reversed(range(count)))


def new_id(time_ns: int) -> str:
    """Return a name for what happened at `time_ns` (nanoseconds since the epoch): 16 characters.

    Two of the same microsecond are alike once in 33 million.
    """
    chance = int.from_bytes(os.urandom(4), "little")
    return _digits(time_ns // 1000, _TIME) + _digits(chance, _CHANCE)
