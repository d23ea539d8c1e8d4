"""Commands that a restricted engine socket has refused, in the audit log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from eci_supervisor.observe import audit, tally
from eci_supervisor.observe.limit import Limit
from eci_supervisor.policy.refusals import COMMAND, REQUEST

if TYPE_CHECKING:
    from eci_supervisor.observe.audit import Record


BY_LIST = "configure the docker socket command list in the admin-settings."
"""What the message ends with, where the settings would allow it."""


class Refusal(Protocol):
    """What is to be known of a request that was not passed on."""

    @property
    def container(self) -> str:
        """The id of the container that sent it."""

    @property
    def method(self) -> str:
        """Of HTTP."""

    @property
    def target(self) -> str:
        """Path and query."""

    @property
    def message(self) -> str:
        """What the client was told."""


class CommandLog:
    """Writes the refusals of one socket, within a limit: a client asks as often as it likes."""

    def __init__(self, container: str, image: str = "") -> None:
        """Write those of this container; `image`: its name, where known."""
        self.container = audit.printable(container)
        self.image = audit.printable(image)
        self._limit = Limit()

    def __call__(self, refusal: Refusal) -> None:
        """Write one down, or count it; nothing fails here."""
        reason = COMMAND if refusal.message.endswith(BY_LIST) else REQUEST
        tally.add(reason)
        if self._limit.allows(time.monotonic()):
            audit.write_of(self._record(refusal, reason), self._limit)

    def _record(self, refusal: Refusal, reason: str) -> Record:
        record = audit.refusal("command", reason)
        record.container, record.image = self.container, self.image
        record.call = audit.printable(f"{refusal.method} {refusal.target}")
        record.message = audit.printable(refusal.message)
        return record

    def close(self) -> None:
        """At the end of the socket: say how many have been left out."""
        if self._limit.left_out:
            audit.write_of(audit.left_out(self.container), self._limit)
