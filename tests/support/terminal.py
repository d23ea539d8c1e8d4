"""Programs on a pseudo-terminal, talked to as a person would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from typing import Self


class Terminal:
    """A program whose stdin, stdout and stderr are one new pseudo-terminal."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        """Start `argv`."""
        self._master, slave = pty.openpty()
        try:
            self.process = subprocess.Popen(
                argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
            )
        finally:
            os.close(slave)
        self.seen = ""

    def __enter__(self) -> Self:
        """Return the terminal, which is up."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the program, if it has not ended, and close the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def send(self, text: str) -> None:
        """Type `text`."""
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout: float = 20) -> None:
        """Read until `text` has been shown since the last `expect`."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(left, 0))
            try:
                read = os.read(self._master, 4096) if ready else b""
            except OSError:  # EIO: the last program on the terminal has gone
                read = b""
            if not read:
                message = f"no {text!r} on the terminal, but {self.seen!r}"
                raise AssertionError(message)
            self.seen += read.decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def wait(self, timeout: float = 20) -> int:
        """Wait for the program's end and return its exit status."""
        return self.process.wait(timeout)
