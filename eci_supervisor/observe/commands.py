"""Commands that a restricted engine socket has refused, in the audit log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from eci_supervisor.observe import audit
from eci_supervisor.observe.limit import Limit
from eci_supervisor.policy.refusals import COMMAND

if TYPE_CHECKING:
    from eci_supervisor.observe.audit import Record


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
        if self._limit.allows(time.monotonic()):
            audit.write_of(self._record(refusal), self._limit)

    def _record(self, refusal: Refusal) -> Record:
        record = audit.refusal("command", COMMAND)
        record.container, record.image = self.container, self.image
        record.call = audit.printable(f"{refusal.method} {refusal.target}")
        record.message = audit.printable(refusal.message)
        return record

    def close(self) -> None:
        """At the end of the socket: say how many have been left out."""
        if self._limit.left_out:
            audit.write_of(audit.left_out(self.container), self._limit)
