"""Who clears up when the wrapper is killed before there is a keeper."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eci_supervisor.runtime import cleanup, state
from eci_supervisor.supervisor.orphan import fork_orphan

if TYPE_CHECKING:
    from collections.abc import Callable


def stand(state_root: str) -> Callable[[], None]:
    """Start a guard; call what it returns once the keeper has taken over.

    If this process ends without that call, the guard removes the state of all containers that
    are gone, the half-made one among them.
    """
    watched, held = os.pipe2(os.O_CLOEXEC)

    def watch() -> None:
        if not os.read(watched, 1):
            store = state.open_store(state_root)
            with store.locked():
                cleanup.collect(store, state_root)

    fork_orphan({watched}, watch)
    os.close(watched)

    def relieve() -> None:
        os.write(held, b"K")
        os.close(held)

    return relieve
