"""How the launcher finds the real runtime: never itself, under whatever name it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import ECI_RUNTIME

if TYPE_CHECKING:
    from tests.support.place import Place

pytestmark = [pytest.mark.engine]

RUNC = shutil.which("runc")
CRUN = shutil.which("crun")


def call(program: str, *path: Path | str) -> subprocess.CompletedProcess[str]:
    """Run `program --version` with these directories on PATH, and no others."""
    return subprocess.run(
        [program, "--version"],
        env={"PATH": ":".join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def first(place: Place) -> Path:
    """A directory for the head of a PATH."""
    return place.directory("path")


@pytest.mark.parametrize("name", ["runc", "docker-runc", "buildkit-runc"])
def test_a_link_first_on_path_leads_to_runc(first: Path, name: str) -> None:
    (first / name).symlink_to(ECI_RUNTIME)
    done = call(str(first / name), first, os.environ["PATH"])
    assert done.stdout.startswith("runc version ")


def test_a_link_named_crun_leads_to_crun(first: Path) -> None:
    (first / "crun").symlink_to(ECI_RUNTIME)
    assert call(str(first / "crun"), first, os.environ["PATH"]).stdout.startswith("crun version ")


def test_a_copy_or_another_version_is_passed_over(first: Path, place: Place) -> None:
    for directory in (first, other := place.directory("path")):
        shutil.copy(ECI_RUNTIME, directory / "runc")
    # Of another length, as another version would be.
    with (other / "runc").open("ab") as file:
        file.write(b"more")
    for directory in (first, other):
        done = call(str(directory / "runc"), first, other, os.environ["PATH"])
        assert done.stdout.startswith("runc version ")


def test_only_itself_is_not_enough(first: Path) -> None:
    (first / "crun").symlink_to(ECI_RUNTIME)
    shutil.copy(ECI_RUNTIME, first / "runc")
    (first / "runc.real").symlink_to(first / "crun")
    done = call(str(first / "runc"), first)
    assert done.returncode == 1
    assert done.stderr == (
        f"eci-runtime: cannot be the runtime, as it is eci-runtime itself: {first}/runc.real\n"
    )


def test_a_script_that_comes_back_ends_the_loop(first: Path, place: Place) -> None:
    (first / "runc").symlink_to(ECI_RUNTIME)
    second = place.directory("path")
    script = second / "runc"
    script.write_text(f'#!/bin/sh\nexec {first}/runc "$@"\n')
    script.chmod(0o755)
    done = call(str(first / "runc"), first, second)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "eci-runtime: what PATH names is no runtime but calls eci-runtime"
    )
    # A script that does lead to a runtime is one.
    script.write_text(f'#!/bin/sh\nexec {RUNC} "$@"\n')
    assert call(str(first / "runc"), first, second).stdout.startswith("runc version ")


def test_it_refuses_to_be_a_shim(first: Path) -> None:
    (first / "containerd-shim-kata-v2").symlink_to(ECI_RUNTIME)
    done = call(str(first / "containerd-shim-kata-v2"), os.environ["PATH"])
    assert done.returncode == 1
    assert "would not be protected; take runc or crun: containerd-shim-kata-v2" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("user", [0, 65534])
def test_an_ordinary_users_own_engine_gets_the_bare_runtime(user: int) -> None:
    words = ["create", "--bundle", "/", "x"]
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={user}", "--clear-groups", "--no-new-privs"),
            *("unshare", "--user", "--map-root-user", str(ECI_RUNTIME), *words),
        ],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    # The host's root stays himself in a namespace of his own: that is no other's engine.
    assert ("is this an OCI bundle?" in done.stderr) == (user == 0)
    assert "config.json" in done.stderr or "JSON specification file" in done.stderr


def test_a_real_beside_it_is_taken_and_no_other(first: Path) -> None:
    (first / "runc").symlink_to(ECI_RUNTIME)
    assert CRUN is not None
    # That it is crun tells it from what PATH has.
    (first / "runc.real").symlink_to(CRUN)
    assert call(str(first / "runc"), os.environ["PATH"]).stdout.startswith("crun version ")
    (first / "runc.real").unlink()
    (first / "runc.real").symlink_to(first / "gone")
    done = call(str(first / "runc"), os.environ["PATH"])
    assert done.returncode == 1
    assert done.stderr == (
        f"eci-runtime: cannot be the runtime: {first}/runc.real: No such file or directory\n"
    )


@pytest.mark.root
@pytest.mark.parametrize("words", [["--new-option", "value", "c"], ["-t", "c"], ["--", "c"]])
def test_exec_goes_to_the_network_of_the_container_whatever_the_options(
    first: Path, place: Place, words: list[str]
) -> None:
    """Else a process that is added to a podman's container would be in the host's network."""
    script = first / "runc"
    script.write_text("#!/bin/sh\nreadlink /proc/self/ns/net\n")
    script.chmod(0o755)
    root = place.directory("rt")
    (root / "c").mkdir()
    sleep = ["unshare", "-n", "sh", "-c", "echo; exec sleep 1000"]
    with subprocess.Popen(sleep, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
            record = f'{{"init_process_pid":{process.pid},"init_process_start":{start}}}'
            (root / "c/state.json").write_text(record)
            network = os.readlink(f"/proc/{process.pid}/ns/net")
            done = subprocess.run(
                [ECI_RUNTIME, "--root", root, "exec", *words, "sh", "-c", "true"],
                env={"PATH": f"{first}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        finally:
            process.kill()
    assert (done.stdout, done.stderr) == (f"{network}\n", "")
