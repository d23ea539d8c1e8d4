"""The keeper comes back, because something has happened that it has to see to.

csrc/keeper.c executes this by way of start.py.
"""

from __future__ import annotations

import functools

from eci_supervisor.runtime import cleanup
from eci_supervisor.supervisor import rest
from eci_supervisor.supervisor.keeper import Keeper, keep


def main(argv: list[str]) -> int:
    """Serve until there is nothing left to keep, or nothing to do; returns the exit code.

    Its one word is the descriptor of what `rest.become` has left.
    """
    known = rest.recall(int(argv[0]))
    clean = functools.partial(cleanup.clean, nonce=known.charge.nonce)
    keep(Keeper.resumed(known, clean))
    return 0
