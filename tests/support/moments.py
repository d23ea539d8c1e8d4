"""Moments of a worker's work: `moment.c`, which kills it there or holds it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Literal

from tests.support.faults import Lines

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Moment:
    """One moment of the call that a worker receives next; there may be none of that number."""

    def __init__(
        self, program: Path, worker: int, number: int, what: Literal["kill", "hold"]
    ) -> None:
        """Return once it is ready for the call."""
        self._process = subprocess.Popen(
            [program, str(worker), str(number), what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin
        self._lines = Lines(self._process.stdout.fileno())
        try:
            assert self.said() == "ready"
        except BaseException:
            self.close()
            raise

    def said(self) -> str:
        """Return what became of it: "killed", "held", or "whole" when the call is over."""
        return self._lines.next("the moment does not come, and the call does not end")

    def go_on(self) -> None:
        """Let the thread go on that is held."""
        self._to.write(b"\n")
        self._to.flush()

    def close(self) -> None:
        """Let go of the worker."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the worker."""
        self.close()
