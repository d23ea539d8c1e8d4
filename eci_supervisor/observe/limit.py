"""How much one container may bring into the audit log.

A container makes refusals as it likes, and shall fill no disk and no eyes: BURST of them are
written at once, and one more every SECONDS.  Those left out are counted, and the count is written.
"""

from __future__ import annotations

import msgspec

BURST = 100
SECONDS = 10.0


class Limit(msgspec.Struct):
    """Of one container, or of one other source of refusals."""

    room: float = float(BURST)
    """How many may be written now."""
    at: float = 0.0
    """When that was so: seconds of a clock that only goes on."""
    left_out: int = 0
    """How many were not, since the last time that this was told."""

    def allows(self, now: float) -> bool:
        """Say whether one more may be written at `now`; it is counted in either case."""
        self.room = min(float(BURST), self.room + max(0.0, now - self.at) / SECONDS)
        self.at = now
        if self.room < 1:
            self.left_out += 1
            return False
        self.room -= 1
        return True

    def tell(self) -> int:
        """Return how many were left out, which is told herewith."""
        count, self.left_out = self.left_out, 0
        return count
