"""A shell that stays in a container, for commands that are run there one after the other."""

from __future__ import annotations

import os
import secrets
import select
import shlex
import subprocess
import time
from contextlib import suppress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 60.0
"""Seconds until a command counts as hung."""


class Shell:
    """Runs each command as a process of its own, a child of one `exec`.

    To the container it is the same as an exec for each; an engine takes tenths of a second for
    every one of those.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        """Start it; `argv` executes `sh` in the container, with its stdin and outputs."""
        self._errors = TemporaryFile()  # noqa: SIM115 - it lives as long as this does
        self._process = subprocess.Popen(
            argv,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    def run(self, words: Sequence[str]) -> str:
        """Run a command to its end; returns what it printed.  A failure is an AssertionError."""
        assert self._process.stdin is not None
        mark = secrets.token_hex(8)
        line = f"{shlex.join(words)} < /dev/null; printf '\\n{mark} %s\\n' $?\n"
        with suppress(BrokenPipeError):  # then there is no answer, and what it said is told
            self._process.stdin.write(line.encode())
        output, status = self._answer(f"\n{mark} ".encode(), words)
        assert status == 0, f"{words}: exit {status}\n{output}{self._said()}"
        return output

    def _answer(self, mark: bytes, words: Sequence[str]) -> tuple[str, int]:
        """Read until a line that begins with `mark`; returns what was before it and the number."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        read = b""
        while True:
            output, found, rest = read.rpartition(mark)
            if found and rest.endswith(b"\n"):
                return output.decode(errors="replace"), int(rest)
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, left))
            chunk = self._process.stdout.read(65536) if ready else b""
            assert chunk, f"{words}: no answer\n{read.decode(errors='replace')}{self._said()}"
            read += chunk

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def close(self) -> None:
        """End it, by the end of its input; what hangs in it goes with the container."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
