"""What becomes of a refusal, besides its answer: one call, to which an audit log can be added."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_BYTES = 1 << 20
"""What one container may bring into its log."""


class Refusal(msgspec.Struct, frozen=True):
    """A request that did not get to the engine."""

    container: str
    """The id of the container that sent it."""
    method: str
    target: str
    """As it was judged: cleaned, in ASCII."""
    command: str
    """The docker command that it is (`image push`), or `unknown`."""
    status: int
    """HTTP status of the answer."""
    message: str
    """Text of the answer."""


class Log:
    """A file of JSON lines, bounded; nothing fails here."""

    def __init__(self, path: str) -> None:
        """Write to `path`, mode 0600."""
        self.path = path
        self.room = LOG_BYTES

    def __call__(self, refusal: Refusal) -> None:
        """Write one line, while there is room."""
        record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        line = json.dumps(record | msgspec.structs.asdict(refusal)).encode() + b"\n"
        self.room -= len(line)
        if self.room < 0:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Where it cannot be written, the request is refused all the same.
        with (
            contextlib.suppress(OSError),
            open(os.open(self.path, flags, 0o600), "wb") as file,
        ):
            file.write(line)


hooks: list[Callable[[Refusal], None]] = []
"""Called with each refusal, in the proxy's process, in turn."""


def report(refusal: Refusal) -> None:
    """Tell everybody who wants to know."""
    for hook in hooks:
        hook(refusal)
