"""What this program itself consists of on the host: its code, settings, state and log.

Who can write to it is the host's root at the next container.
"""

from __future__ import annotations

import os
import sys

import eci_supervisor
from eci_supervisor.observe import audit
from eci_supervisor.policy import settings
from eci_supervisor.runtime import state

LIBRARY = "/var/lib/eci"
"""Launchers of the engines: unless ECI_LIBRARY names another."""


def paths(named: str | None) -> list[str]:
    """Return them; `named`: the file of settings that the caller names, if any."""
    file = named or os.environ.get("ECI_SETTINGS") or settings.DEFAULT_PATH
    environment = [sys.prefix] if sys.prefix != sys.base_prefix else []
    return [
        *eci_supervisor.__path__,
        *environment,
        os.environ.get("ECI_LIBRARY") or LIBRARY,
        # Of a directory that has other things in it as well, the file alone: what it lies in cannot
        # be had writable either.
        file if os.path.exists(file) else os.path.dirname(os.path.abspath(file)),
        audit.directory(),
        state.root(),
    ]
