"""The bytes of one input, taken apart; once there are none left, everything is 0 or empty."""

from __future__ import annotations


class Source:
    """What is left of an input."""

    def __init__(self, data: bytes) -> None:
        """Begin with all of it."""
        self._data = data

    def __bool__(self) -> bool:
        """Say whether anything is left."""
        return bool(self._data)

    def rest(self) -> bytes:
        """Take everything that is left."""
        return self.take(len(self._data))

    def take(self, size: int) -> bytes:
        """Take at most `size` bytes."""
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, below: int = 256) -> int:
        """Take one byte, or two where `below` needs them, as a number less than `below`."""
        return int.from_bytes(self.take(1 if below <= 256 else 2), "little") % below

    def upto(self, mark: bytes) -> bytes:
        """Take what stands before the next `mark`, and the mark."""
        taken, _, self._data = self._data.partition(mark)
        return taken
