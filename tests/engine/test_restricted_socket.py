"""The restricted engine socket before a real dockerd, by docker's own client and by raw HTTP."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eci_supervisor.kernel.syscalls import CAP_DAC_OVERRIDE
from tests.support.docker import DOCKER
from tests.support.restricted import Clients, Reader, Restricted, request
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

LINES = (Path(__file__).parents[1] / "support/engine-api.txt").read_text().splitlines()
PUBLISHED = [tuple(line.split()) for line in LINES if line and line[0] not in "#["]
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


def blocked(target: str) -> str:
    """Return the refusal of a target."""
    return (
        f'enhanced container isolation: docker command "{target}" is blocked; if you wish to allow '
        "it, configure the docker socket command list in the admin-settings."
    )


@pytest.fixture(scope="module")
def sockets(place: Place, dockerd: Dockerd) -> Iterator[Callable[..., Restricted]]:
    """Restricted sockets by command list, each made when first asked for."""
    made: dict[tuple[str, ...], Restricted] = {}

    def find(kind: str, *commands: str) -> Restricted:
        if (kind, *commands) not in made:
            made[kind, *commands] = Restricted(place, dockerd.socket, kind, commands)
        return made[kind, *commands]

    yield find
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def free(sockets: Callable[..., Restricted]) -> Restricted:
    """A restricted socket without any command denied by the settings."""
    return sockets("deny")


@pytest.fixture(scope="module")
def direct(dockerd: Dockerd) -> Clients:
    """The engine's own socket."""
    return Clients(str(dockerd.socket))


@pytest.fixture(scope="module")
def running(dockerd: Dockerd) -> Iterator[str]:
    """A container that runs, with a volume of the engine's."""
    with dockerd.container("--name", "sleeper", "-v", "kept:/kept") as container:
        yield container
    dockerd.docker("volume", "rm", "-f", "kept")


# -- routes ---------------------------------------------------------------------------------


NOTHING = "filters=%7B%22label%22%3A%5B%22no-such%22%5D%7D"
"""Of a prune: what has a label that nothing has."""
QUERIES = {
    "/containers/{id}/archive": "path=/x",
    "/containers/{name}/copy": "path=/x",
    "/events": "since=1&until=2",
    "/images/create": "fromSrc=-&repo=/",
    "/images/search": "term=127.0.0.1:1/x",
    "/plugins/privileges": "remote=127.0.0.1:1/x",
    "/containers/prune": NOTHING,
    "/images/prune": NOTHING,
    "/networks/prune": NOTHING,
    "/volumes/prune": NOTHING,
    "/build/prune": NOTHING,
}


def _target(path: str) -> str:
    name = "127.0.0.1:1/no-such" if path.startswith("/distribution") else "no-such"
    query = QUERIES.get(path)
    return "/v1.41" + re.sub(r"\{\w+\}", name, path) + (f"?{query}" if query else "")


@pytest.mark.parametrize(("method", "path"), PUBLISHED)
def test_every_route_is_passed_on_or_refused(
    sockets: Callable[..., Restricted], direct: Clients, method: str, path: str
) -> None:
    target = _target(path)
    body = b"" if method in ("GET", "HEAD", "DELETE") else b"{}"
    hazard = path.startswith(("/plugins", "/swarm", "/services")) or "checkpoint" in path
    through = sockets("deny").ask(method, target, body)
    if through.status == 403:
        assert hazard
        assert through.message == blocked(target)
    else:
        assert through.status == direct.ask(method, target, body).status
    refused = sockets("allow").ask(method, target, body)
    if path == "/_ping":
        assert refused.status == 200
    else:
        assert refused.status == 403
        if method != "HEAD":
            assert refused.message == blocked(target)


# -- the client, by family ------------------------------------------------------------------

BLOCKED = "enhanced container isolation: docker command"


@pytest.mark.parametrize(
    ("family", "commands"),
    [
        (
            "container*",
            [
                "create --name made box true",
                "start -a made",
                "logs made",
                "wait made",
                "inspect --type container made",
                "diff made",
                "commit made made-image",
                "rename made remade",
                "rm remade",
                "ps",
                "exec sleeper true",
                "top sleeper",
                "stats --no-stream sleeper",
                "port sleeper",
                "pause sleeper",
                "unpause sleeper",
                "update --cpu-shares 512 sleeper",
                "cp sleeper:/etc/passwd -",
                "export -o FILE sleeper",
                "run --rm box true",
                "container ls",
                "container prune -f --filter label=no-such",
            ],
        ),
        (
            "image*",
            [
                "images",
                "image ls",
                "tag box tagged",
                "history box",
                "image inspect box",
                "save -o FILE box",
                "rmi tagged",
                "image prune -f --filter label=no-such",
            ],
        ),
        (
            "volume*",
            [
                "volume create made",
                "volume ls",
                "volume inspect made",
                "volume rm made",
                "volume prune -f --filter label=no-such",
            ],
        ),
        (
            "network*",
            [
                "network create made",
                "network ls",
                "network inspect made",
                "network connect made sleeper",
                "network disconnect made sleeper",
                "network rm made",
                "network prune -f --filter label=no-such",
            ],
        ),
        ("build*", ["build -q -t built -", "builder prune -f"]),
        ("system*", ["system df", "info", "events --since 1 --until 2"]),
    ],
)
@pytest.mark.usefixtures("running")
def test_a_family_of_commands_by_the_docker_client(
    sockets: Callable[..., Restricted], place: Place, family: str, commands: list[str]
) -> None:
    """All work where they alone are allowed; denied, none does."""
    stdin = "FROM box\nRUN true\n"
    file = str(place.directory("out") / "file")
    commands = [command.replace("FILE", file) for command in commands]
    for command in commands:
        done = sockets("allow", family).docker(*command.split(), stdin=stdin)
        assert done.returncode == 0, (command, done.stderr)
    for command in commands:
        done = sockets("deny", family).docker(*command.split(), stdin=stdin)
        assert done.returncode != 0, command
        assert BLOCKED in done.stderr + done.stdout, command
    other = "images" if family == "container*" else "ps"
    assert sockets("deny", family).docker(other).returncode == 0
    assert BLOCKED in sockets("allow", family).docker(other).stderr


SINGLE = ("push", "pull", "login", "search", "import")


@pytest.mark.parametrize(
    "command",
    ["push box", "pull box", "login -u a -p b 127.0.0.1:1", "search 127.0.0.1:1/x", "import -"],
)
def test_a_command_of_its_own_by_the_docker_client(
    sockets: Callable[..., Restricted], command: str
) -> None:
    denied = sockets("deny", *SINGLE).docker(*command.split())
    assert denied.returncode != 0
    assert BLOCKED in denied.stderr
    for other in (sockets("deny"), sockets("allow", *SINGLE)):
        assert BLOCKED not in other.docker(*command.split()).stderr


def test_push_is_refused_to_the_letter(sockets: Callable[..., Restricted]) -> None:
    done = sockets("deny", *SINGLE).docker("push", "myimage")
    assert done.returncode == 1
    target = "/v1.41/images/myimage/push?tag=latest"
    assert done.stderr.strip() == f"Error response from daemon: {blocked(target)}"
    assert sockets("deny", *SINGLE).refusals()[-1] | {"time": ""} == {
        "time": "",
        "container": "c" * 64,
        "method": "POST",
        "target": target,
        "command": "image push",
        "status": 403,
        "message": blocked(target),
    }


def test_refused_command_is_audited(place: Place, sockets: Callable[..., Restricted]) -> None:
    mark = "audited-by-its-name"
    assert sockets("deny", "push").ask("POST", f"/images/{mark}/push").status == 403

    def records() -> list[dict[str, object]]:
        lines = (place.log_dir / "audit.log").read_text().splitlines()
        return [record for record in map(json.loads, lines) if mark in record.get("call", "")]

    wait_until(records, "it is not in the audit log")
    (record,) = records()
    assert record["reason"] == "refused:command"
    assert record["call"] == f"POST /images/{mark}/push"
    assert record["container"] == "c" * 64
    assert record["message"] == blocked(f"/images/{mark}/push")


@pytest.mark.parametrize(
    "command",
    [
        "plugin install --grant-all-permissions 127.0.0.1:1/x",
        "plugin enable x",
        "swarm init",
        "swarm join --token x 127.0.0.1:1",
        "service create --name x box",
    ],
)
def test_what_gives_the_host_takes_an_allow_list(
    sockets: Callable[..., Restricted], command: str
) -> None:
    for one in (sockets("deny"), sockets("allow", "container*", "image*")):
        done = one.docker(*command.split())
        assert done.returncode != 0
        assert BLOCKED in done.stderr
    named = sockets("allow", "plugin*").docker("plugin", "enable", "x")
    assert 'plugin "x" not found' in named.stderr


# -- connections without HTTP ----------------------------------------------------------------


def test_run_brings_stdin_to_the_container_and_its_output_back(free: Restricted) -> None:
    done = free.docker("run", "--rm", "-i", "box", "cat", stdin="there and back\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "there and back\n", "")


def test_exec_ends_when_its_stdin_does(free: Restricted, running: str) -> None:
    text = "x" * 300_000 + "\n"
    done = free.docker("exec", "-i", running, "cat", stdin=text)
    assert (done.returncode, done.stdout) == (0, text)
    assert free.docker("exec", running, "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("headers", [UPGRADE, {}])
def test_attach_with_and_without_upgrade(
    dockerd: Dockerd, free: Restricted, headers: dict[str, str]
) -> None:
    created = dockerd.out("create", "-i", "box", "sh", "-c", "cat; echo end")
    try:
        with free.connect() as client:
            target = f"/v1.41/containers/{created}/attach?stream=1&stdin=1&stdout=1"
            client.sendall(request("POST", target, b"", headers))
            reader = Reader(client)
            assert reader.head().status == (101 if headers else 200)
            dockerd.docker("start", created)
            client.sendall(b"hello\n")
            assert reader.exactly(14) == b"\x01\0\0\0\0\0\0\x06hello\n"
            client.shutdown(socket.SHUT_WR)
            assert reader.rest() == b"\x01\0\0\0\0\0\0\x04end\n"
    finally:
        dockerd.docker("rm", "-f", created)


def test_logs_follow_what_a_container_writes(dockerd: Dockerd, free: Restricted) -> None:
    with (
        dockerd.container(
            "--name", "writer", command="cat /proc/uptime; mkfifo /f; cat /f; cat /f"
        ) as container,
        free.connect() as client,
    ):
        target = f"/containers/{container}/logs?follow=1&stdout=1"
        client.sendall(request("GET", target))
        reader = Reader(client)
        assert reader.head().status == 200
        assert reader.chunk()
        dockerd.docker("exec", container, "sh", "-c", "echo more > /f")
        assert reader.chunk().endswith(b"more\n")


def test_events_come_as_they_happen(dockerd: Dockerd, free: Restricted) -> None:
    with free.connect() as client:
        client.sendall(request("GET", "/events?filters=%7B%22type%22%3A%5B%22volume%22%5D%7D"))
        reader = Reader(client)
        assert reader.head().status == 200
        dockerd.docker("volume", "create", "seen")
        dockerd.docker("volume", "rm", "seen")
        assert json.loads(reader.chunk())["Actor"]["ID"] == "seen"


def test_buildkit_has_its_session(sockets: Callable[..., Restricted]) -> None:
    """BuildKit's client serves the build's files to the engine, by HTTP/2 on /session."""
    buildkit = {"DOCKER_BUILDKIT": "1"}
    done = sockets("allow", "build*").docker(
        "build", "--progress=plain", "-", stdin="FROM scratch\nLABEL a=b\n", environment=buildkit
    )
    assert done.returncode == 0, done.stderr
    done = sockets("deny", "build*").docker("build", "-", environment=buildkit)
    assert done.returncode != 0
    assert "unable to upgrade to h2c, received 403" in done.stderr


def test_a_large_build_context_streams(free: Restricted, place: Place) -> None:
    context = place.directory("ctx")
    with (context / "large").open("wb") as file:
        file.truncate(64 << 20)
    (context / "Dockerfile").write_text("FROM box\nCOPY Dockerfile /\n")
    done = free.docker("build", "-q", str(context))
    assert done.returncode == 0, done.stderr
    status = Path(f"/proc/{free.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) < 64 << 10


def test_a_thousand_requests_at_once(free: Restricted) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    clients = []
    for _ in range(1000):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(free.path)
        client.sendall(request("GET", "/v1.41/images/box/json"))
        clients.append(client)
    for client in clients:
        with client:
            assert Reader(client).answer().status == 200


# -- spellings --------------------------------------------------------------------------------

PARTS = st.sampled_from(
    "containers images json no-such push x:y a%2Fb %2e%2e . .. %6Eo networks v1.41 v1 V1.41 "
    "volumes info _ping version %25 exec services tasks".split()
) | st.just("")


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(PARTS, max_size=6), st.sampled_from(["", "/", "//", "/.", "?a=b", "/?x", "/.."]))
def test_every_spelling_is_answered_as_the_engine_does(
    free: Restricted, direct: Clients, parts: list[str], end: str
) -> None:
    """What the engine would have routed is what was judged, or the answers would differ."""
    target = "/" + "/".join(parts) + end
    ours, engines = free.ask("GET", target), direct.ask("GET", target)
    if ours.status == 403:  # services, swarm and plugins, where the engine has no such route
        assert engines.status in (404, 301)
        return
    assert ours.status == engines.status
    if ours.status == 301:
        assert ours.headers["location"] == engines.headers["location"]
    elif engines.status >= 400:
        assert ours.body == engines.body


# -- what a command list does not say ---------------------------------------------------------


@pytest.fixture(scope="module")
def _host_volumes(dockerd: Dockerd, place: Place) -> Iterator[None]:
    """Containers that never ran, with a directory of the host as bind and as volume."""
    secrets = place.directory("secrets")
    (secrets / "secret").write_text("secret\n")
    options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={secrets}")
    dockerd.docker("volume", "create", *options, "bound")
    dockerd.docker("create", "--name", "binder", "-v", f"{secrets}:/x", "box")
    dockerd.docker("create", "--name", "bounder", "-v", "bound:/x", "box")
    yield
    dockerd.docker("rm", "binder", "bounder")
    dockerd.docker("volume", "rm", "bound")


def test_a_container_made_through_it_runs_as_protected(free: Restricted) -> None:
    words = ("run", "--rm", "--privileged", "--runtime", "runc")
    done = free.docker(*words, "box", "cat", "/proc/self/uid_map")
    assert re.fullmatch(r"\s+0\s+1\d{5}\s+65536\n", done.stdout), (done.stdout, done.stderr)


def test_the_runtime_is_the_one_of_the_container_that_has_the_socket(
    dockerd: Dockerd, place: Place, running: str
) -> None:
    own = Restricted(place, dockerd.socket, container=running, runtime=None)
    stranger = Restricted(place, dockerd.socket, container="f" * 64, runtime=None)
    try:
        for runtime in ("runc", "eci-crun", "io.containerd.runc.v2", "no-such"):
            config = {"Image": "box", "HostConfig": {"Runtime": runtime}}
            answer = own.ask("POST", "/containers/create", json.dumps(config).encode())
            assert answer.status == 201
            made = json.loads(answer.body)["Id"]
            assert dockerd.inspect(made, "{{.HostConfig.Runtime}}") == "eci"
            dockerd.docker("rm", made)
        answer = stranger.ask("POST", "/containers/create", b'{"Image": "box"}')
        assert answer.status == 502
        assert "does not say by which runtime" in answer.message
    finally:
        own.close()
        stranger.close()


@pytest.mark.usefixtures("_host_volumes")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("create --device /dev/null:/dev/x box", "HostConfig.Devices"),
        ("create --device-cgroup-rule 'a *:* rwm' box", "HostConfig.DeviceCgroupRules"),
        ("create --gpus all box", "HostConfig.DeviceRequests"),
        (
            "create --log-driver syslog --log-opt syslog-address=unix:///run/x.sock box",
            "HostConfig.LogConfig",
        ),
        ("create --log-driver syslog box", "writes to the host's log"),
        ("create --log-driver journald box", "writes to the host's log"),
        (
            (
                "create --mount type=volume,dst=/x,volume-opt=type=none,volume-opt=o=bind,"
                "volume-opt=device=/etc box"
            ),
            "driver options",
        ),
        ("create -v bound:/x box", "the volume bound has driver options"),
        ("create --mount type=volume,src=bound,dst=/x box", "the volume bound has driver options"),
        ("volume create -o type=none -o o=bind -o device=/etc", "DriverOpts"),
        ("network create -d ../../../tmp/x x", "Driver"),
        ("network create --ipam-driver ../../../tmp/x x", "IPAM.Driver"),
        ("volume create -d ../../../tmp/x x", "Driver"),
        ("create --volume-driver ../../../tmp/x -v x:/x box", "HostConfig.VolumeDriver"),
        ("create --log-driver ../../../tmp/x box", "HostConfig.LogConfig.Type"),
        ("cp binder:/x/secret -", "which the engine itself would open"),
        ("cp /etc/hostname binder:/x/new", "which the engine itself would open"),
        ("cp bounder:/x/secret -", "which the engine itself would open"),
    ],
)
def test_what_reaches_the_host_without_a_runtime_is_refused(
    dockerd: Dockerd, free: Restricted, words: str, why: str
) -> None:
    """Without the proxy the copies work, and no runtime is asked."""
    done = free.docker(*[word.strip("'") for word in _split(words)])
    assert done.returncode != 0
    assert BLOCKED in done.stderr
    assert why in done.stderr
    if words.startswith("cp") and "secret" in words:
        assert "secret\n" in dockerd.docker(*words.split()).stdout


def test_the_engine_writes_to_no_directory_of_the_host_by_itself(
    dockerd: Dockerd, place: Place, free: Restricted
) -> None:
    """A new volume is filled from the image when a container is created, not when it runs."""
    for one, filled in ((dockerd, True), (free, False)):
        target = place.directory("crontabs")
        option = f"volume-opt=device={target},volume-opt=type=none,volume-opt=o=bind"
        one.docker(
            "create", "--name", "filler", "--mount", f"dst=/etc,{option}", "box", check=False
        )
        dockerd.docker("rm", "-fv", "filler", check=False)
        assert (target / "passwd").exists() == filled


def test_the_engine_asks_no_socket_that_a_container_made(
    dockerd: Dockerd, place: Place, free: Restricted
) -> None:
    """The name of a volume driver leads it to any socket, whose owner says what to mount."""
    path = place.directory("shared") / "evil.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        name = f"../../..{path.with_suffix('')}"
        assert "may not lead elsewhere" in free.docker("volume", "create", "-d", name, "x").stderr
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
        asking = subprocess.Popen(
            [DOCKER, "volume", "create", "-d", name, "x"],
            env=dockerd.environ(),
            stderr=subprocess.PIPE,
        )
        listener.settimeout(30)
        asked, _ = listener.accept()
        with asked, asking:
            assert asked.recv(100).startswith(b"POST /Plugin.Activate")
            asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"Volumes": {"/x": {}}, "VolumeDriver": "../../../tmp/evil"}, 403),
        ({"Devices": [{"PathOnHost": "/dev/null"}]}, 403),
        ({"HostCon\ufb01g": {}, "VolumeDriver": "../../../tmp/evil", "Volumes": {"/x": {}}}, 400),
        ({"HostCon\ufb01g": {}, "Devices": [{"PathOnHost": "/dev/null"}]}, 400),
    ],
)
def test_nothing_of_a_host_config_goes_beside_it(
    dockerd: Dockerd, free: Restricted, body: dict[str, object], status: int
) -> None:
    """The engine reads the fields of HostConfig at the top level, too."""
    data = json.dumps({"Image": "box", "Runtime": "eci", **body}).encode()
    target = "/v1.41/containers/create?name=beside"
    assert free.ask("POST", target, data).status == status
    if "Devices" in body:
        assert Clients(str(dockerd.socket)).ask("POST", target, data).status == 201
        devices = "{{range .HostConfig.Devices}}{{.PathOnHost}}{{end}}"
        assert dockerd.inspect("beside", devices) == "/dev/null"
        dockerd.docker("rm", "beside")


def test_a_volume_driver_beside_host_config_is_no_way_to_a_socket(
    dockerd: Dockerd, place: Place, free: Restricted
) -> None:
    path = place.directory("shared") / "evil.sock"
    driver = f"../../..{path.with_suffix('')}"
    body = {"Image": "box", "Volumes": {"/x": {}}, "VolumeDriver": driver, "HostConfig": {}}
    data = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        answer = free.ask("POST", "/containers/create", data)
        assert "may not lead elsewhere" in answer.message
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.settimeout(30)
        with Clients(str(dockerd.socket)).connect() as client:
            client.sendall(request("POST", "/containers/create", data))
            asked, _ = listener.accept()
            with asked:
                assert asked.recv(100).startswith(b"POST /Plugin.Activate")
                asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            assert Reader(client).answer("POST").status >= 400


def _split(words: str) -> list[str]:
    return re.findall(r"'[^']*'|\S+", words)


def test_copying_works_where_only_the_engines_own_files_are(
    dockerd: Dockerd, free: Restricted, running: str
) -> None:
    dockerd.docker("exec", running, "sh", "-c", "echo kept > /kept/file")
    for name in (running, running[:12], "sleeper"):
        assert "kept\n" in free.docker("cp", f"{name}:/kept/file", "-").stdout
    assert free.docker("cp", "/etc/hostname", f"{running}:/kept/host").returncode == 0
    assert (
        dockerd.out("exec", running, "cat", "/kept/host")
        == Path("/etc/hostname").read_text().strip()
    )
    done = free.docker("cp", "no-such:/x", "-")
    assert "No such container" in done.stderr


# -- the process ------------------------------------------------------------------------------


def test_it_ends_with_the_state_of_its_container(dockerd: Dockerd, place: Place) -> None:
    one = Restricted(place, dockerd.socket)
    assert one.ask("GET", "/_ping").status == 200
    pid = one.pid
    with one.connect() as client:
        client.sendall(request("GET", "/events"))
        assert Reader(client).head().status == 200
        one.state_dir.rename(one.state_dir.with_name("moved"))
        assert one.state_dir.with_name("moved").exists()
        os.system(f"rm -r {one.state_dir.with_name('moved')}")  # noqa: S605 - as eci-cleanup does
        assert client.recv(65536) in (b"", b"0\r\n\r\n")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the proxy ends")


def test_killed_it_is_closed_and_not_open(dockerd: Dockerd, place: Place) -> None:
    one = Restricted(place, dockerd.socket)
    assert one.ask("GET", "/_ping").status == 200
    with one.connect() as client:
        os.kill(one.pid, signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionResetError)):
            Reader(client).head()
    with pytest.raises(ConnectionRefusedError), one.connect():
        pass
    one.close()


def test_the_socket_is_for_its_owner_and_group_and_the_directory_for_nobody(
    dockerd: Dockerd, place: Place
) -> None:
    one = Restricted(place, dockerd.socket)
    status = os.stat(one.path)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o660, 0, 0)
    assert os.stat(os.path.dirname(one.path)).st_mode & 0o7777 == 0o700
    one.close()


def test_the_process_has_given_up_what_it_does_not_need(free: Restricted) -> None:
    """It reads what comes from a container, as the host's root."""
    assert free.ask("GET", "/_ping").status == 200
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{free.pid}/status").read_text().splitlines()
    )
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 1 << CAP_DAC_OVERRIDE
    assert int(status["NoNewPrivs"]) == 1
    words = Path(f"/proc/{free.pid}/cmdline").read_bytes().split(b"\0")
    assert words[4] == b"proxy"
