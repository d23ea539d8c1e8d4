"""The engine's view of a running container's files (csrc/view.c), as the keeper starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eci_supervisor.supervisor.charge import Charge


class ViewError(Exception):
    """The view did not come up; the text says why."""


def start(charge: Charge, pid: int, engine_rootfs: str) -> None:
    """Placeholder until the view's interface is settled."""
    msg = f"no view of {engine_rootfs} for {charge.key} ({pid})"
    raise ViewError(msg)
