"""The keeper comes back, because something has happened that it has to see to.

csrc/keeper.c executes this by way of start.py, which goes back to it if `come_back` fails.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from eci_supervisor.runtime import cleanup
from eci_supervisor.supervisor import privileges, rest
from eci_supervisor.supervisor.keeper import Keeper, keep

if TYPE_CHECKING:
    from collections.abc import Sequence


def come_back(words: Sequence[str]) -> Keeper:
    """Return the keeper that has rested.

    `words`: those of the waiting program, without its name.  After any exception this process can
    still become that program again.
    """
    privileges.give_up()
    known = rest.recall(words)
    keeper = Keeper.resumed(known, functools.partial(cleanup.clean, nonce=known.charge.nonce))
    rest.take(known, words)
    keeper.have_second()
    return keeper


def serve(keeper: Keeper) -> int:
    """Serve until there is nothing left to keep, or nothing to do; returns the exit code."""
    keep(keeper)
    return 0
