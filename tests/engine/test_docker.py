"""Docker as its users know it, with eci-runtime under it, on runc and on crun."""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import DOCKER, IMAGE
from tests.support.rootfs import USER
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

# What Docker 20.10 takes for all capabilities ends with CAP_AUDIT_READ; later ones know more.
DOCKER_CAPS = (1 << 38) - 1
CREATE_FAILED = "OCI runtime create failed: "
HOST_NAMESPACES = (
    "error in the container spec: invalid or unsupported container spec: "
    "eci containers can't share namespaces [{}] with the host "
    "(because they use the linux user-namespace for isolation)"
)
HOST_NETWORK = (
    "error in the container spec: invalid or unsupported container spec: "
    "eci containers can't share a network namespace with the host "
    "(because they use the linux user-namespace for isolation)"
)


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    """Return the members of a tar archive by name, without a leading `./`."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name.removeprefix("./"): member for member in tar.getmembers()}


# -- run ----------------------------------------------------------------------------------


def test_run_passes_output_input_and_exit_status(dockerd: Dockerd, runtime: str) -> None:
    run = ["run", "--rm", "-i", f"--runtime={runtime}", IMAGE, "sh", "-c"]
    done = dockerd.docker(*run, "cat; echo out; echo err >&2; exit 42", check=False, stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (42, "in\nout\n", "err\n")


def test_first_containers_get_the_first_ranges(dockerd: Dockerd, runtime: str) -> None:
    with (
        dockerd.container(f"--runtime={runtime}") as first,
        dockerd.container(f"--runtime={runtime}", "--privileged") as second,
    ):
        for container, base in ((first, "100000"), (second, "165536")):
            for file in ("uid_map", "gid_map"):
                ids = dockerd.out("exec", container, "cat", f"/proc/self/{file}").split()
                assert ids == ["0", base, "65536"]
    # Both ranges were given back.
    again = dockerd.out("run", "--rm", f"--runtime={runtime}", IMAGE, "cat", "/proc/self/uid_map")
    assert again.split() == ["0", "100000", "65536"]


def test_privileged_has_every_capability_in_its_namespace(dockerd: Dockerd, runtime: str) -> None:
    words = ["run", "--rm", f"--runtime={runtime}", "--privileged", IMAGE]
    script = "grep CapEff /proc/self/status; mnt mount none /mnt tmpfs - - , write /mnt/file"
    caps, *results = dockerd.out(*words, "sh", "-c", script).splitlines()
    assert int(caps.split()[1], 16) & DOCKER_CAPS == DOCKER_CAPS
    assert results == ["0", "0"]


def test_files_of_the_image_keep_their_owners(dockerd: Dockerd, runtime: str) -> None:
    words = ["run", "--rm", f"--runtime={runtime}", IMAGE, "stat", "-c", "%u:%g"]
    assert dockerd.out(*words, "/", "/bin/busybox", "/home/user/mine").split() == [
        "0:0",
        "0:0",
        f"{USER}:{USER}",
    ]


def test_run_of_a_missing_program_says_so(dockerd: Dockerd, runtime: str) -> None:
    done = dockerd.docker(
        "run", "--rm", f"--runtime={runtime}", IMAGE, "/no/such/program", check=False
    )
    # The client reads its exit status out of the runtime's wording, and crun's is another.
    assert done.returncode == {"eci": 127, "eci-crun": 125}[runtime]
    assert "/no/such/program" in done.stderr


def test_run_as_another_user(dockerd: Dockerd, runtime: str) -> None:
    words = ["run", "--rm", f"--runtime={runtime}", "-u", f"{USER}:{USER}", "-w", "/home/user"]
    script = "id -u; id -g; pwd; echo made > new && stat -c %u new"
    made = dockerd.out(*words, IMAGE, "sh", "-c", script)
    assert made.split() == ["1000", "1000", "/home/user", "1000"]


def test_run_on_a_terminal(dockerd: Dockerd, runtime: str, mark: Callable[[], str]) -> None:
    name = mark()
    argv = [DOCKER, "run", "-it", f"--name={name}", f"--runtime={runtime}", IMAGE, "sh"]
    try:
        with Terminal(argv, dockerd.environ()) as terminal:
            terminal.send("echo terminal=$(tty)\n")
            terminal.expect("terminal=/dev/pts/0")
            # The terminal is the container's to open, and job control works on it.  The word
            # comes from the job itself: before that ^C would find the shell in the foreground.
            terminal.send("sh -c 'echo up=$((1 + 1)) > /dev/tty; exec sleep 100'\n")
            terminal.expect("up=2")
            terminal.send("\x03")
            terminal.send("echo again=$((6 * 7)); exit 5\n")
            terminal.expect("again=42")
            assert terminal.wait() == 5
    finally:
        dockerd.docker("rm", "-f", name)


# -- create, start, exec ------------------------------------------------------------------


def test_create_start_logs_wait(dockerd: Dockerd, runtime: str) -> None:
    container = dockerd.out("create", f"--runtime={runtime}", IMAGE, "sh", "-c", "echo hi; exit 3")
    try:
        for _ in range(2):  # a container that ended can be started again
            assert dockerd.out("start", container) == container
            assert dockerd.out("wait", container) == "3"
        assert dockerd.out("logs", container) == "hi\nhi"
    finally:
        dockerd.docker("rm", container)


def test_start_attached(dockerd: Dockerd, runtime: str) -> None:
    container = dockerd.out("create", "-i", f"--runtime={runtime}", IMAGE, "sh", "-c", "cat;exit 4")
    try:
        done = dockerd.docker("start", "-ai", container, stdin="through\n", check=False)
        assert (done.returncode, done.stdout) == (4, "through\n")
    finally:
        dockerd.docker("rm", "-f", container)


def test_exec(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        done = dockerd.docker(
            "exec", "-i", "-e", "WORD=hi", "-w", "/tmp", container,
            "sh", "-c", "cat; echo $WORD; pwd; id -u; exit 9",
            stdin="in\n", check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.split()) == (9, ["in", "hi", "/tmp", "0"])
        assert dockerd.out("exec", "-u", "user", container, "id", "-u") == str(USER)
        # It joins the namespaces of the container, the user namespace too.
        init, own = (
            dockerd.out("exec", container, "readlink", f"/proc/{pid}/ns/user")
            for pid in ("1", "self")
        )
        assert init == own


def test_exec_privileged(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        before, after = (
            int(dockerd.out("exec", *flags, container, "grep", "CapEff", "/proc/self/status")
                .split()[1], 16)
            for flags in ([], ["--privileged"])
        )  # fmt: skip
        assert before & DOCKER_CAPS != DOCKER_CAPS
        assert after & DOCKER_CAPS == DOCKER_CAPS


def test_exec_in_a_privileged_container_can_mount(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}", "--privileged") as container:
        words = ["mnt", "mount", "none", "/mnt", "tmpfs", "-", "-", ",", "umount2", "/mnt", "-"]
        for _ in range(3):  # each exec brings a listener of its own
            assert dockerd.out("exec", container, *words).split() == ["0", "0"]
            assert dockerd.out("exec", "--privileged", container, *words).split() == ["0", "0"]


def test_exec_on_a_terminal(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        argv = [DOCKER, "exec", "-it", container, "sh"]
        with Terminal(argv, dockerd.environ()) as terminal:
            terminal.send("echo sum=$((40 + 2)); tty; exit 6\n")
            terminal.expect("sum=42")
            terminal.expect("/dev/pts/")
            assert terminal.wait() == 6


# -- signals and states -------------------------------------------------------------------

LOOP = "while :; do sleep 1000 & wait $!; done"


def test_stop_sends_the_stop_signal(dockerd: Dockerd, runtime: str) -> None:
    command = f"trap 'exit 7' TERM; {LOOP}"
    with dockerd.container(f"--runtime={runtime}", command=command) as container:
        dockerd.docker("stop", "-t", "20", container)
        assert dockerd.inspect(container, "{{.State.Status}} {{.State.ExitCode}}") == "exited 7"


def test_kill(dockerd: Dockerd, runtime: str) -> None:
    command = f"trap 'echo got >> /log' USR1; touch /ready; {LOOP}"
    with dockerd.container(f"--runtime={runtime}", command=command) as container:
        wait = "until [ -e {} ]; do sleep 0.05; done"
        dockerd.docker("exec", container, "sh", "-c", wait.format("/ready"))
        dockerd.docker("kill", "-s", "USR1", container)
        dockerd.docker("exec", container, "sh", "-c", wait.format("/log"))
        dockerd.docker("kill", container)
        assert dockerd.out("wait", container) == "137"


def test_restart_keeps_files_and_isolation(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}", "--privileged") as container:
        dockerd.docker("exec", container, "sh", "-c", "echo kept > /kept; chown 1000 /kept")
        for _ in range(2):
            dockerd.docker("restart", "-t", "20", container)
            script = "cat /kept; stat -c %u /kept; cat /proc/self/uid_map"
            words = dockerd.out("exec", container, "sh", "-c", script).split()
            assert words == ["kept", "1000", "0", "100000", "65536"]
            mount = dockerd.out(
                "exec", container, "mnt", "mount", "none", "/mnt", "tmpfs", "-", "-"
            )
            assert mount == "0"


def test_restarts_in_a_row(dockerd: Dockerd, runtime: str, place: Place) -> None:
    """The shim deletes while the keeper and the hooks clear up: none may fail for another's sake.

    A delete that fails leaves its shim behind, and Docker an id that is in use.
    """
    before = place.leftovers(patience=0)
    for _ in range(3):
        with dockerd.container(f"--runtime={runtime}") as container:
            for _ in range(2):
                dockerd.docker("restart", "-t", "20", container)
                dockerd.docker("exec", container, "true")
    assert place.leftovers(before=before) == []


def test_pause_and_unpause(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        dockerd.docker("pause", container)
        assert dockerd.inspect(container, "{{.State.Status}}") == "paused"
        refused = dockerd.docker("exec", container, "true", check=False)
        assert refused.returncode != 0
        dockerd.docker("unpause", container)
        assert dockerd.inspect(container, "{{.State.Status}}") == "running"
        assert dockerd.out("exec", container, "echo", "on") == "on"


def test_top_and_stats_see_the_container(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        assert "sleep 1000" in dockerd.out("top", container)
        stats = dockerd.out("stats", "--no-stream", "--format", "{{.PIDs}}", container)
        assert int(stats) >= 2


# -- files in and out ---------------------------------------------------------------------


def check_cp_out(dockerd: Dockerd, container: str) -> None:
    """What the container wrote comes out owned by the ids that it has inside."""
    archive = dockerd.tar("cp", f"{container}:/made", "-")
    owners = {name: (info.uid, info.gid) for name, info in members(archive).items()}
    assert owners == {"made": (0, 0), "made/root": (0, 0), "made/user": (USER, USER)}


def tar_of(name: str, content: bytes, owner: int) -> bytes:
    """Return an archive with one file, as `docker cp -` takes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.gid = len(content), owner, owner
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


MAKE = "mkdir /made && echo r > /made/root && echo u > /made/user && chown 1000:1000 /made/user"


def test_cp_into_and_out_of_a_running_container(
    dockerd: Dockerd, runtime: str, place: Place
) -> None:
    source = place.directory("cp")
    (source / "in").write_text("first\n")
    with dockerd.container(f"--runtime={runtime}") as container:
        dockerd.docker("exec", container, "sh", "-c", MAKE)
        check_cp_out(dockerd, container)
        # A new file, then another content under the same name: nothing stale may be seen.
        for content in ("first\n", "second and longer\n"):
            (source / "in").write_text(content)
            dockerd.docker("cp", str(source / "in"), f"{container}:/made/in")
            assert dockerd.out("exec", container, "cat", "/made/in") == content.rstrip()
            assert dockerd.out("exec", container, "stat", "-c", "%u:%g", "/made/in") == "0:0"
        # One that the container has looked at, and then changed.
        dockerd.docker("exec", container, "sh", "-c", "echo third > /made/in")
        dockerd.docker("cp", f"{container}:/made/in", str(source / "out"))
        assert (source / "out").read_text() == "third\n"
        # A directory, and an archive with an owner in it.
        (source / "tree/sub").mkdir(parents=True)
        (source / "tree/sub/leaf").write_text("leaf\n")
        dockerd.docker("cp", str(source / "tree"), f"{container}:/tree")
        assert dockerd.out("exec", container, "cat", "/tree/sub/leaf") == "leaf"
        dockerd.docker(
            "cp", "-a", "-", f"{container}:/made", stdin=tar_of("own", b"x", USER).decode()
        )
        assert dockerd.out("exec", container, "stat", "-c", "%u:%g", "/made/own") == "1000:1000"
        assert dockerd.out("exec", container, "rm", "-r", "/made", "/tree") == ""


@pytest.mark.parametrize("volumes", ["/v:ro", "/v:ro /v/sub:ro", "/v /v/sub:ro"])
def test_cp_with_read_only_volumes(
    dockerd: Dockerd, runtime: str, place: Place, volumes: str
) -> None:
    """The kernel locks them in the container, and does not give its root without them."""
    source = place.directory("cp")
    (source / "in").write_text("in\n")
    mounted = place.directory("v")
    (mounted / "sub").mkdir()
    words = [f"-v{mounted}:{volume}" for volume in volumes.split()]
    with dockerd.container(f"--runtime={runtime}", *words) as container:
        dockerd.docker("exec", container, "sh", "-c", MAKE)
        check_cp_out(dockerd, container)
        dockerd.docker("cp", str(source / "in"), f"{container}:/made/in")
        assert dockerd.out("exec", container, "stat", "-c", "%u:%g", "/made/in") == "0:0"
        # The directory of the root file system, and not what is mounted there.
        merged = Path(dockerd.inspect(container, "{{.GraphDriver.Data.MergedDir}}"))
        assert os.listdir(merged / "v") == []


def test_view_of_a_read_only_container(dockerd: Dockerd, runtime: str, place: Place) -> None:
    words = [f"--runtime={runtime}", "--read-only", f"-v{place.directory('v')}:/v:ro"]
    with dockerd.container(*words) as container:
        merged = Path(dockerd.inspect(container, "{{.GraphDriver.Data.MergedDir}}"))
        # It stands when the container is made.
        table = Path(f"/proc/{dockerd.pid}/mountinfo").read_text()
        assert re.search(rf" {re.escape(str(merged))} .* fuse\.eci-view ", table)
        with pytest.raises(OSError, match="Read-only file system"):
            (merged / "made").touch()
        assert members(dockerd.tar("export", container))["bin/busybox"].uid == 0


def test_cp_into_and_out_of_a_stopped_container(
    dockerd: Dockerd, runtime: str, place: Place
) -> None:
    source = place.directory("cp")
    (source / "in").write_text("before\n")
    container = dockerd.out(
        "create", f"--runtime={runtime}", IMAGE,
        "sh", "-c", f"cat /in /late; stat -c %u:%g /in; [ -e /made ] || ({MAKE})",
    )  # fmt: skip
    try:
        dockerd.docker("cp", str(source / "in"), f"{container}:/in")
        assert dockerd.out("start", "-a", container) == "before\n0:0"
        check_cp_out(dockerd, container)
        (source / "late").write_text("late\n")
        dockerd.docker("cp", str(source / "late"), f"{container}:/late")
        assert dockerd.out("start", "-a", container) == "before\nlate\n0:0"
        dockerd.docker("cp", f"{container}:/late", str(source / "out"))
        assert (source / "out").read_text() == "late\n"
    finally:
        dockerd.docker("rm", "-f", container)


def test_diff_is_what_it_is_without_us(dockerd: Dockerd, runtime: str) -> None:
    script = f"{MAKE}; rm /home/user/mine; touch /ready"
    wait = "until [ -e /ready ]; do sleep 0.05; done"
    diffs = []
    for name in ("runc", runtime):
        command = f"{script}; {LOOP}"
        with dockerd.container(f"--runtime={name}", command=command) as container:
            dockerd.docker("exec", container, "sh", "-c", wait)
            running = dockerd.out("diff", container)
            dockerd.docker("kill", container)
            dockerd.docker("wait", container)
            ended = dockerd.out("diff", container)
            diffs.append([sorted(changes.splitlines()) for changes in (running, ended)])
    assert "A /made/user" in diffs[0][0]
    assert diffs[1] == diffs[0]


def test_commit(dockerd: Dockerd, runtime: str) -> None:
    image = f"committed-{runtime}"
    with dockerd.container(f"--runtime={runtime}") as container:
        dockerd.docker("exec", container, "sh", "-c", f"{MAKE}; rm -r /home/user")
        dockerd.docker("commit", container, image)
    try:
        look = "stat -c %u /made /made/root /made/user; ls /home"
        for name in ("runc", runtime):
            seen = dockerd.out("run", "--rm", f"--runtime={name}", image, "sh", "-c", look)
            assert seen.split() == ["0", "0", "1000"]
    finally:
        dockerd.docker("rmi", image)


def test_export(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        dockerd.docker("exec", container, "sh", "-c", MAKE)
        tree = members(dockerd.tar("export", container))
    owners = {tree[name].uid for name in ("bin/busybox", "made", "made/root")}
    assert owners == {0}
    assert tree["made/user"].uid == tree["home/user/mine"].uid == USER
    assert {info.uid for info in tree.values()} == {0, USER}


# -- volumes ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["volume", "directory"])
def test_volume_shared_by_two_containers(
    dockerd: Dockerd, runtime: str, kind: str, place: Place, mark: Callable[[], str]
) -> None:
    if kind == "volume":
        source = dockerd.out("volume", "create", mark())
        on_disk = dockerd.data_root / "volumes" / source / "_data"
    else:
        on_disk = place.directory("v")
        source = str(on_disk)
    volume = ["-v", f"{source}:/data"]
    try:
        with (
            dockerd.container(f"--runtime={runtime}", *volume) as one,
            dockerd.container(f"--runtime={runtime}", *volume) as two,
        ):
            dockerd.docker("exec", one, "sh", "-c", "echo 1 > /data/a; chown 1000:1000 /data/a")
            dockerd.docker("exec", two, "sh", "-c", "echo 2 > /data/b; echo more >> /data/a")
            for container in (one, two):
                owners = dockerd.out("exec", container, "stat", "-c", "%u:%g", "/data/a", "/data/b")
                assert owners.split() == ["1000:1000", "0:0"]
            assert dockerd.out("exec", one, "cat", "/data/a", "/data/b").split() == [
                "1",
                "more",
                "2",
            ]
            maps = {dockerd.out("exec", name, "cat", "/proc/self/uid_map") for name in (one, two)}
            assert len(maps) == 2
        # On disk nothing was shifted: root's file is root's.
        assert [(on_disk / name).stat().st_uid for name in "ab"] == [USER, 0]
    finally:
        if kind == "volume":
            dockerd.docker("volume", "rm", source)


def test_file_volume_and_what_the_image_has_in_a_volume(
    dockerd: Dockerd, runtime: str, place: Place, mark: Callable[[], str]
) -> None:
    file = place.directory("v") / "file"
    file.write_text("file\n")
    name = mark()
    try:
        seen = dockerd.out(
            "run", "--rm", f"--runtime={runtime}",
            "-v", f"{file}:/file", "-v", f"{name}:/home/user",
            IMAGE, "sh", "-c", "echo more >> /file; stat -c %u /home/user/mine",
        )  # fmt: skip
        assert seen == str(USER)
        assert file.read_text() == "file\nmore\n"
    finally:
        dockerd.docker("volume", "rm", name)


def test_image_directories_stay_unshifted_on_disk(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}") as container:
        dockerd.docker("exec", container, "sh", "-c", MAKE)
        upper = dockerd.inspect(container, "{{.GraphDriver.Data.UpperDir}}")
        owners = {
            name: os.lstat(os.path.join(upper, name)).st_uid
            for name in ("", "made", "made/root", "made/user")
        }
        assert owners == {"": 0, "made": 0, "made/root": 0, "made/user": USER}


def test_read_only_root_and_tmpfs(dockerd: Dockerd, runtime: str) -> None:
    words = ["--read-only", "--tmpfs", "/scratch:size=1m,mode=1777"]
    calls = "mnt write /file , write /scratch/file , write /home/user/file"
    seen = dockerd.out("run", "--rm", f"--runtime={runtime}", *words, IMAGE, *calls.split())
    assert seen.split() == ["EROFS", "0", "EROFS"]
    user = ["-u", f"{USER}:{USER}"]
    seen = dockerd.out("run", "--rm", f"--runtime={runtime}", *user, *words, IMAGE, *calls.split())
    assert seen.split() == ["EROFS", "0", "EROFS"]


def test_read_only_root_with_volumes_that_the_image_lacks(
    dockerd: Dockerd, runtime: str, place: Place
) -> None:
    """The destinations have to be made before the root file system is sealed."""
    directory = place.directory("v")
    file = place.directory("v") / "f"
    file.write_text("f\n")
    seen = dockerd.out(
        "run", "--rm", f"--runtime={runtime}", "--read-only",
        "-v", f"{directory}:/not/there/yet", "-v", f"{file}:/nor/this:ro", "--tmpfs", "/nor/that",
        IMAGE, *"mnt write /not/there/yet/x , write /nor/this , write /nor/that/x".split(),
    )  # fmt: skip
    assert seen.split() == ["0", "EROFS", "0"]


def test_init(dockerd: Dockerd, runtime: str) -> None:
    words = ["run", "--rm", "--init", f"--runtime={runtime}", IMAGE]
    done = dockerd.docker(*words, "sh", "-c", "cat /proc/1/comm; echo $$; exit 8", check=False)
    comm, pid = done.stdout.split()
    assert "init" in comm
    assert (done.returncode, pid != "1") == (8, True)


# -- networks -----------------------------------------------------------------------------


def test_network_none(dockerd: Dockerd, runtime: str) -> None:
    words = ["run", "--rm", "--network=none", f"--runtime={runtime}", IMAGE]
    assert dockerd.out(*words, "ls", "/sys/class/net").split() == ["lo"]


SERVE = "mkdir /www && echo served > /www/index.html && exec httpd -f -p 80 -h /www"
FETCH = "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://{}/ && exit; sleep 0.1; done; exit 1"


def test_network_bridge(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}", command=SERVE) as server:
        address = dockerd.inspect(server, "{{.NetworkSettings.IPAddress}}")
        run = ["run", "--rm", f"--runtime={runtime}", IMAGE, "sh", "-c"]
        assert dockerd.out(*run, FETCH.format(address)) == "served"
        # The network is the container's own to administer, where it has the capability.
        admin = ["run", "--rm", "--cap-add=NET_ADMIN", f"--runtime={runtime}", IMAGE]
        dockerd.docker(*admin, "ip", "address", "add", "10.9.8.7/32", "dev", "eth0")


def test_network_of_another_container(dockerd: Dockerd, runtime: str) -> None:
    with dockerd.container(f"--runtime={runtime}", command=SERVE) as server:
        run = ["run", "--rm", f"--runtime={runtime}", f"--network=container:{server}", IMAGE]
        assert dockerd.out(*run, "sh", "-c", FETCH.format("127.0.0.1")) == "served"
        both = [
            ["exec", server, "sh", "-c"],
            [*run, "sh", "-c"],
        ]
        look = "readlink /proc/self/ns/user /proc/self/ns/net; cat /proc/self/uid_map"
        first, second = (dockerd.out(*words, look) for words in both)
        assert first == second
        # The range stays taken while one of the two has it.
        joined = dockerd.out("create", *run[2:], "sh", "-c", LOOP)
        try:
            dockerd.docker("start", joined)
            dockerd.docker("kill", server)
            dockerd.docker("wait", server)
            words = ["run", "--rm", f"--runtime={runtime}", IMAGE, "cat", "/proc/self/uid_map"]
            assert dockerd.out(*words).split() == ["0", "165536", "65536"]
        finally:
            dockerd.docker("rm", "-f", joined)


@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_other_namespaces_of_another_container(dockerd: Dockerd, runtime: str, kind: str) -> None:
    ipc = ["--ipc=shareable"] if kind == "ipc" else []
    with dockerd.container(f"--runtime={runtime}", *ipc) as other:
        look = f"readlink /proc/self/ns/{kind} /proc/self/ns/user; cat /proc/self/uid_map"
        first = dockerd.out("exec", other, "sh", "-c", look)
        words = ["run", "--rm", f"--runtime={runtime}", f"--{kind}=container:{other}", IMAGE]
        assert dockerd.out(*words, "sh", "-c", look) == first


# -- namespaces of the host ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "network"])
@pytest.mark.parametrize("extra", [[], ["--privileged"]], ids=["plain", "privileged"])
def test_namespaces_of_the_host_are_refused(
    dockerd: Dockerd, runtime: str, kind: str, extra: list[str]
) -> None:
    words = ["run", "--rm", f"--runtime={runtime}", f"--{kind}=host", *extra, IMAGE, "true"]
    done = dockerd.docker(*words, check=False)
    assert done.returncode == 125
    # The client may log before that it waits for the container in vain.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
    assert lines[0].startswith("docker: Error response from daemon: ")
    message = HOST_NETWORK if kind == "network" else HOST_NAMESPACES.format(kind)
    assert CREATE_FAILED + message in done.stderr


def test_userns_host_gets_a_user_namespace(dockerd: Dockerd, runtime: str) -> None:
    words = ["run", "--rm", f"--runtime={runtime}", "--userns=host", "--privileged", IMAGE]
    assert dockerd.out(*words, "cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]


# -- devices ------------------------------------------------------------------------------

DEVICE_CALLS = (
    "mnt kind /dev/fuse , open /dev/fuse rw , kind /dev/loop-control , kind /dev/kvm , "
    "kind /dev/vda , kind /dev/kmsg , open /dev/null rw , open /dev/tty rw , "
    "mknod /dev/new c 10 229 , mknod /mnt/new c 1 1"
)


@pytest.mark.parametrize("extra", [[], ["--privileged"]], ids=["plain", "privileged"])
@pytest.mark.parametrize("named", [False, True])
def test_devices(dockerd: Dockerd, runtime: str, extra: list[str], named: bool) -> None:  # noqa: FBT001 - a parameter of the test
    device = ["--device=/dev/fuse"] if named else []
    words = ["run", "--rm", f"--runtime={runtime}", *extra, *device, IMAGE]
    fuse = ["chr 10:229", "0"] if named else ["ENOENT", "ENOENT"]
    absent = ["ENOENT"] * 4
    # /dev/tty exists, and this process has no terminal.
    default = ["0", "ENXIO"]
    refused = ["EPERM", "EPERM"]
    seen = dockerd.out(*words, *DEVICE_CALLS.split()).splitlines()
    assert seen == [*fuse, *absent, *default, *refused]


def test_device_permissions_are_for_the_user_in_the_container(
    dockerd: Dockerd, runtime: str
) -> None:
    words = ["run", "--rm", f"--runtime={runtime}", "--device=/dev/fuse", IMAGE]
    assert dockerd.out(*words, "stat", "-c", "%u:%g", "/dev/fuse") == "0:0"
    assert stat.S_ISCHR(os.stat("/dev/fuse").st_mode)  # the host's own is untouched
    assert os.stat("/dev/fuse").st_uid == 0


# -- build --------------------------------------------------------------------------------

DOCKERFILE = """\
FROM box
COPY --chown=1000:1000 given /given
RUN stat -c %u:%g /given > /owner && cat /proc/self/uid_map > /map
RUN echo other:x:2000:2000::/:/bin/sh >> /etc/passwd
RUN touch /byother && chown other /byother && rm /home/user/mine
USER user
RUN id -u > /tmp/user
CMD ["cat", "/owner", "/map", "/tmp/user"]
"""


@pytest.fixture
def _default_runtime(dockerd: Dockerd, runtime: str) -> Iterator[None]:
    """Make `runtime` the daemon's default for a while: the builder takes no other."""
    before = dockerd.default
    if runtime == before:
        yield
        return
    dockerd.set_default_runtime(runtime)
    yield
    dockerd.set_default_runtime(before)


@pytest.mark.usefixtures("_default_runtime")
def test_legacy_build(dockerd: Dockerd, runtime: str, place: Place) -> None:
    context = place.directory("build")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "given").write_text("given\n")
    image = f"built-{runtime}"
    dockerd.docker("build", "--no-cache", "-t", image, str(context))
    try:
        owner, *ids, user = dockerd.out("run", "--rm", "--runtime=runc", image).split()
        assert (owner, ids, user) == ("1000:1000", ["0", "100000", "65536"], "1000")
        look = ["sh", "-c", "stat -c %u /byother; ls /home/user"]
        assert dockerd.out("run", "--rm", f"--runtime={runtime}", image, *look) == "2000"
    finally:
        dockerd.docker("rmi", image)


# -- nothing left -------------------------------------------------------------------------


def test_failed_start_leaves_nothing(dockerd: Dockerd, runtime: str, place: Place) -> None:
    """Each way to fail: refused by us, by the runtime before and after the container exists."""
    before = place.leftovers(patience=0)
    for words in (
        ["--pid=host", IMAGE, "true"],
        [IMAGE, "/no/such/program"],
        ["-w", "/bin/busybox/no", IMAGE, "true"],
    ):
        done = dockerd.docker("run", "--rm", f"--runtime={runtime}", *words, check=False)
        assert done.returncode != 0, words
    assert place.leftovers(before=before) == []
    work = [path for path in dockerd.data_root.glob("overlay2/*/*") if "eci" in path.name]
    assert work == []


def test_removed_containers_leave_no_work_directory(
    dockerd: Dockerd, runtime: str, place: Place
) -> None:
    before = place.leftovers(patience=0)
    dockerd.docker("run", "--rm", "--privileged", f"--runtime={runtime}", IMAGE, "touch", "/x")
    container = dockerd.out("create", f"--runtime={runtime}", IMAGE, "touch", "/x")
    dockerd.docker("start", "-a", container)
    assert place.leftovers(before=before) == []
    layer = Path(dockerd.inspect(container, "{{.GraphDriver.Data.UpperDir}}")).parent
    assert sorted(os.listdir(layer)) == ["diff", "link", "lower", "work"]
    dockerd.docker("rm", container)
