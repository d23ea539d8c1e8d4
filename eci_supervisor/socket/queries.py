"""What the parameters of a request may ask for, where the command list alone cannot say.

Pure.  As bodies.py: what is judged here, the engine does by itself (SECURITY.md, "The restricted
socket").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eci_supervisor.policy.api_target import values_of
from eci_supervisor.socket.bodies import BodyRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def judge_start(query: str) -> None:
    """Judge the parameters of POST /containers/NAME/start.

    The engine joins the name of a checkpoint to the path of the container's, and does not look.
    """
    if values_of(query, "checkpoint-dir"):
        raise BodyRefusedError("checkpoint-dir can be any directory of the host")
    for name in values_of(query, "checkpoint"):
        if name and _CHECKPOINT.fullmatch(name) is None:
            raise BodyRefusedError("the name of a checkpoint may not lead elsewhere")


JUDGES: dict[tuple[str, str], Callable[[str], None]] = {
    ("POST", "/containers/{*}/start"): judge_start,
}
"""By method and path of a route: how its query is judged.  BodyRefusedError."""
