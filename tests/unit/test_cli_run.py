"""`eci run` around a stand-in for eci-runtime: words, environment, exit codes, tidiness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from eci_supervisor.cli import run as run_module
from eci_supervisor.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


class Stage:
    """A stand-in for eci-runtime and what it was told."""

    def __init__(self, place: Path) -> None:
        self.program = place / "eci-runtime"
        self.temporary = place / "tmp"
        self.temporary.mkdir()
        self.record = place / "record"
        self.record.mkdir()
        self.becomes("exit 0")

    def becomes(self, script: str) -> None:
        """Let the stand-in keep what it is told, and then do this."""
        self.program.write_text(
            "#!/bin/sh\n"
            f'echo "$@" >>{self.record}/calls\n'
            f"env >{self.record}/environment\n"
            f'[ "$1" = run ] && cp "$3/config.json" {self.record}/config.json\n'
            f"{script}\n"
        )
        self.program.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Return the words of each call."""
        return [line.split() for line in (self.record / "calls").read_text().splitlines()]

    def environment(self) -> dict[str, str]:
        """Return what it found in its environment."""
        lines = (self.record / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def config(self) -> Any:
        """Return the configuration in the bundle."""
        return json.loads((self.record / "config.json").read_text())


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Put the stand-in in place, and the temporary directories where a test can count them."""
    stage = Stage(tmp_path)
    monkeypatch.setattr(run_module, "runtime_program", lambda: str(stage.program))
    monkeypatch.setattr(tempfile, "tempdir", str(stage.temporary))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("ECI_TRACE", "ECI_RUNTIME", "ECI_SETTINGS"):
        monkeypatch.delenv(name, raising=False)
    return stage


def invoke(*words: str) -> Result:
    """Run `eci` with these words."""
    return CliRunner().invoke(main, words)


def test_bundle_is_run_and_nothing_stays(stage: Stage) -> None:
    result = invoke("run", "echo", "a b", "-v", "--privileged")
    assert result.exit_code == 0, result.output
    ((verb, flag, _bundle, identity),) = stage.calls()
    assert (verb, flag) == ("run", "--bundle")
    assert identity.startswith("eci-run-")
    # What follows the command is the command's.
    assert stage.config()["process"]["args"] == ["echo", "a b", "-v", "--privileged"]
    assert stage.config()["process"]["terminal"] is False
    assert stage.config()["root"]["path"].startswith(f"{stage.temporary}/")
    assert list(stage.temporary.iterdir()) == []


def test_options_reach_the_bundle_and_the_environment(stage: Stage, tmp_path: Path) -> None:
    rootfs = tmp_path / "own-root"
    rootfs.mkdir()
    settings = tmp_path / "settings.json"
    settings.write_text("{}")
    result = invoke(
        *("run", "-v", f"{rootfs}:/data:ro", "--cap-add", "sys_admin", "--rootfs", str(rootfs)),
        *("--runtime", "crun", "--settings", str(settings), "--trace", "--", "true"),
    )
    assert result.exit_code == 0, result.output
    config = stage.config()
    assert config["root"]["path"] == str(rootfs)
    assert config["process"]["args"] == ["true"]
    assert "CAP_SYS_ADMIN" in config["process"]["capabilities"]["bounding"]
    assert config["mounts"][-1]["options"] == ["rbind", "rprivate", "ro"]
    environment = stage.environment()
    assert environment["ECI_TRACE"] == "stderr"
    assert environment["ECI_RUNTIME"] == "crun"
    assert environment["ECI_SETTINGS"] == str(settings)
    assert rootfs.is_dir()


def test_without_options_the_environment_is_the_users(stage: Stage) -> None:
    invoke("run", "true")
    assert not {"ECI_TRACE", "ECI_RUNTIME", "ECI_SETTINGS"} & set(stage.environment())


@pytest.mark.parametrize("code", [1, 42, 125, 127, 143])
def test_exit_code_passes_through(stage: Stage, code: int) -> None:
    stage.becomes(f"exit {code}")
    assert invoke("run", "true").exit_code == code
    assert list(stage.temporary.iterdir()) == []


def test_killed_runtime_leaves_no_container(stage: Stage) -> None:
    stage.becomes('[ "$1" = run ] && kill -9 $$')
    assert invoke("run", "true").exit_code == 128 + signal.SIGKILL
    (_, _, _, identity), delete = stage.calls()
    assert delete == ["delete", "--force", identity]
    assert list(stage.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-v", "/nowhere/at/all:/b", "true"], 125, "/nowhere/at/all: no such file"),
        (["-v", "data:/b", "true"], 2, "no absolute path"),
        (["--cap-add", "SYS_AMDIN", "true"], 2, "SYS_AMDIN: no such capability"),
        (["--rootfs", "/nowhere/at/all", "true"], 2, "does not exist"),
        (["--settings", "/nowhere/at/all", "true"], 2, "does not exist"),
        (["--runtime", "youki", "true"], 2, "youki"),
        ([], 2, "CMD"),
    ],
)
def test_wrong_words_start_nothing(stage: Stage, words: list[str], code: int, says: str) -> None:
    result = invoke("run", *words)
    assert result.exit_code == code
    assert says in result.output
    assert not (stage.record / "calls").exists()
    assert list(stage.temporary.iterdir()) == []


def test_missing_program_is_one_clear_line(stage: Stage) -> None:
    stage.program.unlink()
    result = invoke("run", "true")
    assert result.exit_code == 125
    assert result.output == (
        f"Error: {stage.program} is missing: the C half is not built (make build)\n"
    )


def test_only_root_makes_containers(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = invoke("run", "true")
    assert (result.exit_code, result.output) == (125, "Error: making containers needs root\n")
    assert not (stage.record / "calls").exists()


def test_terminated_eci_ends_the_runtime_and_tidies_up(stage: Stage, tmp_path: Path) -> None:
    stage.becomes(f"trap 'exit 7' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done")
    script = (
        "import os, sys\n"
        "from eci_supervisor.cli import run as module\n"
        "from eci_supervisor.cli.main import main\n"
        "os.geteuid = lambda: 0\n"
        "program = sys.argv.pop(1)\n"
        "module.runtime_program = lambda: program\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(stage.program), "run", "true"],
        env={**os.environ, "TMPDIR": str(stage.temporary)},
        stdin=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7
    assert list(stage.temporary.iterdir()) == []


def test_version_is_told() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith("eci, version ")
