"""Processes of the host, ours above all, are looked for, traced, stopped and stolen from.

Shown to succeed in a container without a user and a PID namespace, on a process of the test's own.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.attacks import KINDS, PRIVILEGED, PROGRAMS, SYS_ADMIN
from tests.support.bundle import bind
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Containers
    from tests.support.place import Place
    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

# {pid} is the process, {stack} an address in it.
ATTACKS = {
    "see": "kind /proc/{pid}",
    "signal": "signal {pid} 0",
    "stop": "signal {pid} 19",
    "trace": "trace {pid}",
    "limit": "limit {pid}",
    "write_memory": "poke {pid} {stack}",
    "take_descriptor": "take_fd {pid} 0",
    "join_mount_namespace": "setns /proc/{pid}/ns/mnt CLONE_NEWNS",
    "join_pid_namespace": "setns /proc/{pid}/ns/pid CLONE_NEWPID",
    "join_user_namespace": "setns /proc/{pid}/ns/user CLONE_NEWUSER",
    "look_into_its_root": "kind /proc/{pid}/root/.",
    "open_memory": "open /proc/{pid}/mem rw",
}
# The kernel lets nobody join the user namespace that he is in.
WITHOUT = {"see": "dir", "look_into_its_root": "dir", "join_user_namespace": "EINVAL"}


def stack_of(pid: int) -> str:
    """Return an address in the stack of a process."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    found = re.search(r"^([0-9a-f]+)-.* \[stack\]$", maps, re.MULTILINE)
    assert found
    return f"0x{found[1]}"


@contextmanager
def target() -> Iterator[int]:
    """Run a process to attack."""
    with subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def ours(place: Place) -> dict[str, int]:
    """Return the keepers and what they have started, name -> a pid of each kind."""
    found = {}
    keepers = [line.split()[1] for line in place.left_processes() if "eci_supervisor" in line]
    for keeper in keepers:
        found["keeper"] = int(keeper)
        for child in psutil.Process(int(keeper)).children(recursive=True):
            found[child.name()] = child.pid
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_succeeds_without_protection(plain: Callable[[str, list[str]], str], name: str) -> None:
    with target() as pid:
        words = ATTACKS[name].format(pid=pid, stack=stack_of(pid)).split()
        assert plain(PRIVILEGED, ["mnt", *words]).split() == [WITHOUT.get(name, "0")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_fails(protected: Protected, place: Place, kind: str, program: str) -> None:
    protected.container(kind)
    pids = ours(place)
    assert {"keeper", "eci-holder", "eci-worker"} <= set(pids)
    calls = [
        call.format(pid=pid, stack="0x7fff0000")
        for pid in pids.values()
        for call in ATTACKS.values()
    ]
    words = [program, *" , ".join(calls).split()]
    for call, answer in zip(calls, protected.run(kind, words).split(), strict=True):
        # The engine's profile has an answer of its own to some of them.
        by_profile = kind == SYS_ADMIN and call.split()[0] in {"trace", "poke", "take_fd"}
        assert answer in ({"ESRCH", "EPERM"} if by_profile else {"ESRCH", "ENOENT"}), call


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_of_ours_is_seen(protected: Protected, kind: str) -> None:
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; readlink $p/exe; done"
    seen = protected.run(kind, ["sh", "-c", script])
    assert "sleep" in seen
    assert "eci" not in seen


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_one_of_the_container(protected: Protected, kind: str) -> None:
    """What can be signalled is what /proc shows: nothing is merely hidden."""
    script = """
        for p in $(seq 1 4000); do
            kill -0 $p 2> /dev/null && [ ! -d /proc/$p ] && kill -0 $p 2> /dev/null && echo $p
        done
        true
    """
    assert protected.run(kind, ["sh", "-c", script]).split() == []


def test_the_hosts_procfs_in_a_volume_leads_to_no_namespace_of_ours(
    containers: Containers, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks up a path there, "self" among them, and may follow its own links."""
    settings = place.directory("set") / "settings.json"
    shared = {"protectedPaths": ["/etc"], "sharedPaths": ["/", "/proc"]}
    settings.write_text(json.dumps({"vm": shared}))
    monkeypatch.setenv("ECI_SETTINGS", str(settings))
    box = containers.start(bind(Path("/proc"), "/hp", "ro"), privileged=False)
    pid = worker_of(box.pid)
    entries = [f"/hp/{name}" for name in ("self", "thread-self", f"{pid}", f"{pid}/task/{pid}")]
    assert box.run("sh", "-c", "mkdir -p /m; touch /f") == []
    for entry in entries:
        links = [f"{directory}/{n}" for directory in ("fd", ".") for n in range(20)] + ["ns/mnt"]
        calls = [f"mount {entry}/{link} /f - MS_BIND -" for link in links]
        for part in ("fd", "ns"):
            calls += [f"mount {entry}/{part} /m - MS_BIND -"]
            calls += [f"mount /m/{link} /f - MS_BIND -" for link in (*range(20), "mnt")]
        box.run("mnt", *" , ".join(calls).split())
    shown = box.run("cat", "/proc/self/mountinfo")
    assert [line for line in shown if " /m " in line or " /f " in line] != []
    assert [line for line in shown if " - nsfs " in line] == []
