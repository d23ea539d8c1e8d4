"""The shell in which attacks are made, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import shell
from tests.support.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def here() -> Iterator[Shell]:
    """A shell on the host."""
    made = Shell(["sh"])
    yield made
    made.close()


def test_output_is_what_the_command_printed(here: Shell) -> None:
    assert here.run(["printf", "a'b\n"]) == "a'b\n"
    assert here.run(["printf", "no end of line"]) == "no end of line"
    assert here.run(["cat"]) == ""  # nothing to read but what is its own
    assert here.run(["sh", "-c", 'cd /; echo "$1"', "sh", "$HOME *"]) == "$HOME *\n"


def test_a_failure_is_told(here: Shell) -> None:
    with pytest.raises(AssertionError, match=r"(?s)exit 3.*out.*err"):
        here.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert here.run(["echo", "next"]) == "next\n"


def test_a_shell_that_has_ended_is_told(here: Shell) -> None:
    for _ in range(2):
        with pytest.raises(AssertionError, match="no answer"):
            here.run(["sh", "-c", "kill -9 $PPID"])


def test_a_command_that_hangs_is_told(here: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "PATIENCE", 0.1)
    with pytest.raises(AssertionError, match="no answer"):
        here.run(["sh", "-c", "echo begun; read < /dev/zero; sleep 1"])
