"""Podman with `--runtime eci-runtime`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.place import Place
    from tests.support.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.engine]

CALLS = (
    "mnt mount none /mnt tmpfs - - , write /mnt/x , umount2 /mnt - , "
    "mount - /vol - MS_REMOUNT|MS_BIND - , write /vol/x"
).split()
ANSWERS = ["0", "0", "0", "EPERM", "EROFS"]


def test_run(podman: Podman, runtimes: dict[str, Path], runtime: str, place: Place) -> None:
    before = place.leftovers(patience=0)
    words = ["run", "--rm", *podman.run_words(), "box", "sh", "-c"]
    script = "cat /proc/self/uid_map; stat -c %u /home/user/mine; exit 42"
    done = podman.podman(*words, script, runtime=runtimes[runtime], check=False)
    seen = (done.returncode, done.stdout.split())
    code, ids = seen[0], seen[1]
    assert (code, ids[::2], ids[3]) == (42, ["0", "65536"], "1000"), done.stderr
    assert place.leftovers(before=before) == []


def test_privileged_run_with_a_read_only_volume(
    podman: Podman, runtimes: dict[str, Path], runtime: str, place: Place
) -> None:
    volume = ["-v", f"{place.directory('v')}:/vol:ro"]
    words = ["run", "--rm", "--privileged", *volume, *podman.run_words(), "box", *CALLS]
    done = podman.podman(*words, runtime=runtimes[runtime])
    assert done.stdout.split() == ANSWERS


def test_life_of_a_container(
    podman: Podman, runtimes: dict[str, Path], runtime: str, place: Place
) -> None:
    before = place.leftovers(patience=0)
    program = runtimes[runtime]
    volume = ["-v", f"{place.directory('v')}:/vol:ro"]
    command = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done"]
    # Podman repeats its limits at each exec, which does not pass through our hands: a host that
    # lacks CAP_SYS_RESOURCE cannot grant the default ones, with or without us.
    limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
    words = [*podman.run_words(), *volume, *limits, "--privileged", "box", *command]
    created = podman.podman("create", *words, runtime=program).stdout.strip()
    podman.podman("start", created, runtime=program)
    try:
        assert podman.podman("exec", created, *CALLS, runtime=program).stdout.split() == ANSWERS
        podman.podman("stop", "-t", "20", created, runtime=program)
        code = podman.podman("wait", created, runtime=program).stdout.strip()
        assert code == "7"
    finally:
        podman.podman("rm", "-f", created, runtime=program)
    assert place.leftovers(before=before) == []


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_namespaces_of_the_host_are_refused(
    podman: Podman, runtimes: dict[str, Path], runtime: str, kind: str
) -> None:
    words = ["run", "--rm", f"--{kind}=host", *podman.run_words(), "box", "true"]
    done = podman.podman(*words, runtime=runtimes[runtime], check=False)
    assert done.returncode != 0
    assert f"eci containers can't share namespaces [{kind}] with the host" in done.stderr


RESTRICTED = (
    "error in the container spec: can't mount {} because it's configured as a restricted host mount"
)


def test_host_paths_are_refused_and_what_is_podmans_own_is_not(
    podman: Podman, runtimes: dict[str, Path], place: Place
) -> None:
    program = runtimes["eci"]

    def run(*words: str) -> tuple[int, str]:
        given = ["run", "--rm", f"--cgroup-parent=/{place.cgroup}", *words]
        done = podman.podman(*given, runtime=program, check=False)
        return done.returncode, done.stdout + done.stderr

    mine = place.directory("v")
    (mine / "file").write_text("secret")

    words = [*podman.run_words(), "box", "sh", "-c", "trap 'exit 0' TERM; sleep 100 & wait"]
    other = podman.podman("run", "-d", *words, runtime=program).stdout.strip()
    podman.podman("secret", "create", "s", str(mine / "file"), runtime=program)
    podman.podman("volume", "create", "w", runtime=program)
    try:
        for path in (
            "/etc",
            f"{podman.top}/run/overlay-containers/{other}/userdata/hosts",
            f"{podman.top}/root",
        ):
            code, said = run("--network=none", "-v", f"{path}:/etc/hosts", "box", "true")
            assert (code, RESTRICTED.format(path) in said) == (126, True), said
        shared = (f"--network=container:{other}", f"--ipc=container:{other}")
        given = ["--secret=s", "-v", "w:/w", "-v", f"{mine}:/mine", "box"]
        script = "touch /w/x; cat /run/secrets/s /mine/file && test -s /etc/hosts"
        assert run(*shared, *given, "sh", "-c", script) == (0, "secretsecret")
    finally:
        podman.podman("rm", "-f", other, runtime=program)
        podman.podman("secret", "rm", "s", runtime=program)
        podman.podman("volume", "rm", "w", runtime=program)


def test_a_root_file_system_of_the_users_is_judged(
    podman: Podman, runtimes: dict[str, Path], runtime: str, busybox_root: Path
) -> None:
    def run(root: str) -> tuple[int, str]:
        words = ["run", "--rm", *podman.run_words(), "--rootfs", root, "/bin/sh", "-c", "echo in"]
        done = podman.podman(*words, runtime=runtimes[runtime], check=False)
        return done.returncode, done.stdout + done.stderr

    mine = podman.top / "root/mine"
    mine.mkdir(exist_ok=True)
    for root, path in (("/etc:O", "/etc"), ("/:O", "/"), (str(mine), str(mine))):
        code, said = run(root)
        assert code != 0
        assert f"can't mount {path} because" in said
    assert run(f"{busybox_root}:O") == (0, "in\n")
