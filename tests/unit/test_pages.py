"""Manual pages and completion: in order, and complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import eci_supervisor
from eci_supervisor.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(eci_supervisor.__path__[0])
PAGES = sorted((PACKAGE / "man").iterdir())
ECI = Path(sys.executable).parent / "eci"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_has_no_fault(page: Path) -> None:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    words = ["man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert len(done.stdout) > 1000


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Give every command there is, with its words."""
    yield name, command
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from commands(inner, f"{name} {word}".strip())


def test_page_names_every_command_and_option() -> None:
    text = re.sub(r"\\f.|\\", "", (PACKAGE / "man/eci.1").read_text())
    for name, command in commands(main, ""):
        assert name in text or name.split()[-1] in text, name
        for parameter in command.params:
            for word in parameter.opts if isinstance(parameter, click.Option) else ():
                assert word in text, f"{name} {word}"


def test_page_names_every_variable() -> None:
    """Of the environment, that the program looks at; those of the tests aside."""
    text = "".join(page.read_text() for page in PAGES)
    found = set()
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "csrc").glob("*.c")]:
        found |= set(
            re.findall(r'(?:environ[^\n]*|getenv\(|SWITCH = )"(ECI_\w+)"', path.read_text())
        )
    assert {"ECI_SETTINGS", "ECI_RUNTIME", "ECI_LOG_DIR", "ECI_FORK_SERVER"} <= found
    assert {name for name in found if name not in text} <= {"ECI_RANGES"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_asks_this_program(shell: str) -> None:
    done = subprocess.run([ECI, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_ECI_COMPLETE={shell}_complete" in done.stdout
    assert done.stderr == ""


def test_bash_completes_commands() -> None:
    script = "\n".join(
        [
            f'PATH="{ECI.parent}:$PATH"',
            'source <("$1" completion bash)',
            "COMP_WORDS=(eci tr) COMP_CWORD=1",
            "_eci_completion eci",
            'echo "${COMPREPLY[@]}"',
        ]
    )
    words = ["bash", "-c", script, "bash", str(ECI)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["trace"]
