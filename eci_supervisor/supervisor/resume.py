"""The keeper comes back, because something has happened that it has to see to.

    python -I -m eci_supervisor.supervisor.resume MEMORY

csrc/keeper.c executes this.  MEMORY is the descriptor of what `rest.become` has left.
"""

from __future__ import annotations

import functools
import sys

from eci_supervisor.runtime import cleanup
from eci_supervisor.supervisor import rest
from eci_supervisor.supervisor.keeper import Keeper, keep


def main(argv: list[str]) -> None:
    """Serve until there is nothing left to keep, or nothing to do."""
    known = rest.recall(int(argv[0]))
    clean = functools.partial(cleanup.clean, nonce=known.charge.nonce)
    keep(Keeper.resumed(known, clean))


if __name__ == "__main__":
    main(sys.argv[1:])
