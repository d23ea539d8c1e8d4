"""An engine's socket in a container: every spelling of a mount, and images that pretend."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.engines import bolt, containerd_images
from eci_supervisor.engines.bolt import Bucket
from tests.support.bundle import bind, make_spec
from tests.support.docker import Dockerd
from tests.support.programs import compile_programs
from tests.support.registry import registry_in
from tests.support.result import require_success

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.engines import Bundles
    from tests.support.place import Place
    from tests.support.podman import Podman
    from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.engine]

DENIED = (
    'enhanced container isolation: docker socket mount denied for container with image "{}"; '
    "image is not in the allowed list; if you wish to allow it, configure the docker socket image "
    "list in the admin-settings."
)


class Engine(Dockerd):
    """A dockerd whose runtimes read settings that the tests write."""

    def allow(self, *images: str, derived: bool = False, **more: object) -> None:
        """Write the settings: these images, and every directory of the host."""
        image_list = {"images": images, "allowDerivedImages": derived}
        self.settings.write_text(
            json.dumps(
                {
                    "configurationFileVersion": 2,
                    "enhancedContainerIsolation": {
                        "dockerSocketMount": {"imageList": image_list, **more}
                    },
                    "vm": {"protectedPaths": [], "sharedPaths": ["/"]},
                }
            )
        )

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.top / "settings.json"

    def refusal(self, *words: str, image: str = "box", code: int = 125) -> str:
        """Run a container that does not start; return what the engine says of it."""
        done = self.docker("run", "--rm", *words, image, "true", check=False)
        assert done.returncode == code, done
        return done.stderr


@pytest.fixture(scope="module")
def engine(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Engine]:
    """A dockerd with `eci` as its default runtime and settings of its own."""
    daemon = Engine(place, runtimes, "eci")
    # Away from what else an engine keeps, which is no container's to have either.
    daemon.socket = place.directory("h") / "in/d.sock"
    daemon.socket.parent.mkdir()
    daemon.environment = {"ECI_SETTINGS": str(daemon.settings)}
    daemon.allow()
    with daemon:
        daemon.import_image(busybox_root)
        yield daemon


@pytest.fixture(scope="module")
def sock(place: Place) -> Path:
    """The program that connects and listens, in a directory of its own."""
    return compile_programs(place.directory("t"), ("sock",))["sock"]


@pytest.fixture(autouse=True)
def _nothing_allowed(engine: Engine) -> None:
    """Each test begins with an empty allow-list."""
    engine.allow()


def unmount(target: Path) -> None:
    subprocess.run(["umount", target], check=True)


@pytest.fixture(scope="module")
def spellings(engine: Engine, place: Place) -> Iterator[dict[str, tuple[str, str]]]:
    """Each way to show the socket: name → source of the mount, and where the socket is in it."""
    api = engine.socket
    top = api.parent
    here = place.directory("x")
    (here / "link").symlink_to(api)
    (here / "links").symlink_to(top)
    (here / "hard").hardlink_to(api)
    (here / "hards/in").mkdir(parents=True)
    (here / "hards/in/other").hardlink_to(api)
    (here / "carried/in").mkdir(parents=True)
    (here / "tree/in/alias").mkdir(parents=True)
    (here / "alias").mkdir()
    for name in ("bound", "carried/in/s"):
        (here / name).touch()
    with ExitStack() as stack:
        for source, target in (
            (api, here / "bound"),
            (api, here / "carried/in/s"),
            (top, here / "alias"),
            (top, here / "tree/in/alias"),
        ):
            subprocess.run(["mount", "--bind", source, target], check=True)
            stack.callback(unmount, target)
        volume = engine.out(
            *("volume", "create", "--opt", "type=none", "--opt", "o=bind"),
            *("--opt", f"device={top}"),
        )
        yield {
            "the file": (f"{api}", ""),
            "dots": (f"{top}/./../{top.name}/d.sock", ""),
            "a symbolic link": (f"{here}/link", ""),
            "a hard link": (f"{here}/hard", ""),
            "a bind of it": (f"{here}/bound", ""),
            "through a process": (f"/proc/self/root{api}", ""),
            "its directory": (f"{top}", "/d.sock"),
            "a directory above": (f"{top.parent}", "/in/d.sock"),
            "a link to its directory": (f"{here}/links", "/d.sock"),
            "a bind of its directory": (f"{here}/alias", "/d.sock"),
            "a directory with a bind of it": (f"{here}/carried", "/in/s"),
            "a directory with a bind of its directory": (f"{here}/tree", "/in/alias/d.sock"),
            "a directory with a hard link": (f"{here}/hards", "/in/other"),
            "a volume that is its directory": (volume, "/d.sock"),
        }
        engine.docker("volume", "rm", volume)
    for name in ("hard", "hards/in/other"):
        (here / name).unlink()


SPELLINGS = (
    "the file", "dots", "a symbolic link", "a hard link", "a bind of it", "through a process",
    "its directory", "a directory above", "a link to its directory", "a bind of its directory",
    "a directory with a bind of it", "a directory with a bind of its directory",
    "a directory with a hard link", "a volume that is its directory",
)  # fmt: skip


def test_every_spelling_gives_the_engine_away_without_protection(
    engine: Engine, spellings: dict[str, tuple[str, str]], sock: Path
) -> None:
    assert tuple(spellings) == SPELLINGS
    words, paths = [], []
    for number, (source, inside) in enumerate(spellings.values()):
        words += ["-v", f"{source}:/x/{number}"]
        paths.append(f"/x/{number}{inside}")
    answers = engine.out(
        *("run", "--rm", "--runtime=runc", "-v", f"{sock.parent}:/t:ro", *words, "box"),
        *("/t/sock", "ask", *paths),
    )
    assert dict(zip(spellings, answers.split(), strict=True)) == dict.fromkeys(spellings, "engine")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_gets_through(
    engine: Engine, spellings: dict[str, tuple[str, str]], spelling: str
) -> None:
    said = engine.refusal("-v", f"{spellings[spelling][0]}:/x")
    assert f"OCI runtime create failed: {DENIED.format('docker.io/library/box')}" in said


@pytest.fixture(scope="module")
def registry(engine: Engine) -> Iterator[Registry]:
    """A registry that the engine can push to."""
    with registry_in(f"/proc/{engine.pid}/ns/net") as made:
        yield made


@pytest.fixture(scope="module")
def pushed(engine: Engine, registry: Registry) -> str:
    """The name of an image that a registry knows, with a layer of its own."""
    name = f"{registry.name}/team/tool"
    build = f"FROM box\nRUN echo {name} > /etc/tool\n"
    engine.docker("build", "-t", name, "-", stdin=build)
    engine.docker("push", name)
    return name


def gets_in(engine: Engine, sock: Path, image: str, *words: str) -> bool:
    """Whether a container of the image has an engine's socket, restricted or not.

    If not, the message is the one that users know.
    """
    mounts = ("-v", f"{engine.socket}:/s", "-v", f"{sock.parent}:/t:ro")
    done = engine.docker("run", "--rm", *words, *mounts, image, "/t/sock", "ask", "/s", check=False)
    if done.returncode == 0:
        assert done.stdout == "engine\n"
        return True
    name = image.partition("@")[0]
    repository = name if re.search(r":\d+/", name) else f"docker.io/library/{name}"
    assert DENIED.format(re.sub(r":[a-z]+$", "", repository)) in done.stderr
    return False


@pytest.mark.parametrize("name", ["eci", "eci-crun"])
def test_an_allowed_image_gets_a_restricted_socket(engine: Engine, sock: Path, name: str) -> None:
    engine.allow(f"box@{engine.inspect('box', '{{.Id}}')}", commandList={"commands": ["push"]})
    words = ("-v", f"{engine.socket}:/s", "-v", f"{sock.parent}:/t:ro", f"--runtime={name}")
    with engine.container(*words) as container:
        assert engine.out("exec", container, "/t/sock", "ask", "/s") == "engine"
        info = engine.out("exec", container, "stat", "-c", "%u %g %a %F", "/s")
        mode = oct(os.stat(engine.socket).st_mode & 0o777).removeprefix("0o")
        assert info == f"0 {os.stat(engine.socket).st_gid} {mode} socket"
        (inside,) = engine.place.state_dir.glob(f"containers/{container[:32]}-*/socket/engine.sock")
        done = subprocess.run(
            ["docker", f"--host=unix://{inside}", "push", "box"],
            check=False,
            capture_output=True,
            text=True,
        )
        version = engine.out("version", "--format", "{{.Client.APIVersion}}")
        assert (
            f'enhanced container isolation: docker command "/v{version}/images/docker.io/library/'
            'box/push?tag=latest" is blocked; if you wish to allow it, configure the docker socket '
            "command list in the admin-settings."
        ) in done.stderr
    assert not inside.exists()


def test_a_local_image_does_not_pass_by_its_name(engine: Engine, sock: Path) -> None:
    engine.allow("box", "box:*", "docker.io/*")
    assert not gets_in(engine, sock, "box")
    engine.allow("*")
    assert gets_in(engine, sock, "box")


def test_an_image_passes_by_the_name_that_a_registry_knows_it_by(
    engine: Engine, sock: Path, pushed: str
) -> None:
    engine.allow(pushed)
    assert gets_in(engine, sock, pushed)
    engine.allow(f"{pushed}:*")
    assert gets_in(engine, sock, pushed)
    engine.allow(f"{pushed}:other", f"{pushed}/more", "tool")
    assert not gets_in(engine, sock, pushed)
    digest = engine.inspect(pushed, "{{index .RepoDigests 0}}")
    engine.allow(digest)
    assert gets_in(engine, sock, pushed)


def test_a_retagged_image_does_not_pass(
    engine: Engine, sock: Path, pushed: str, registry: Registry
) -> None:
    """The attack: another image takes the name; and one of the attacker's own repository."""
    engine.allow(pushed, f"{pushed}:*")
    good = engine.inspect(pushed, "{{.Id}}")
    elsewhere = f"{registry.name}/attacker/tool"
    engine.docker("tag", "box", elsewhere)
    engine.docker("push", elsewhere)
    try:
        for name in (pushed, f"{pushed}:more"):
            engine.docker("tag", elsewhere, name)
            assert engine.inspect(name, "{{.Id}}") == engine.inspect("box", "{{.Id}}")
            assert gets_in(engine, sock, name, "--runtime=runc")
            assert not gets_in(engine, sock, name)
        # By an archive as well: it brings names along, and no digest of a registry.
        archive = engine.top / "evil.tar"
        engine.docker("save", "-o", str(archive), pushed)
        engine.docker("load", "-i", str(archive))
        assert not gets_in(engine, sock, pushed)
    finally:
        engine.docker("tag", good, pushed)
    assert gets_in(engine, sock, pushed)


def test_derived_images_pass_where_that_is_allowed(engine: Engine, sock: Path, pushed: str) -> None:
    engine.docker("build", "-t", "derived", "-", stdin=f"FROM {pushed}\nRUN touch /derived\n")
    engine.docker("build", "-t", "sibling", "-", stdin="FROM box\nRUN touch /sibling\n")
    engine.allow(pushed)
    assert not gets_in(engine, sock, "derived")
    engine.allow(pushed, derived=True)
    assert gets_in(engine, sock, "derived")
    assert not gets_in(engine, sock, "sibling")
    assert not gets_in(engine, sock, "box")  # the base of an allowed one


def test_an_allowed_image_gets_no_directory_with_the_socket(engine: Engine) -> None:
    engine.allow("*")
    directory = engine.socket.parent
    said = engine.refusal("-v", f"{directory}:/x")
    assert f"{directory} is a directory with the engine socket {engine.socket} in it" in said
    assert "mount the socket itself" in said


def test_an_allowed_image_gets_no_socket_that_cannot_be_restricted(engine: Engine) -> None:
    path = engine.top / "cd.sock"
    assert DENIED.format("docker.io/library/box") in engine.refusal("-v", f"{path}:/x")
    engine.allow("*")
    said = engine.refusal("-v", f"{path}:/x")
    assert f"{path} is a socket of containerd, and only Docker's Engine API" in said


def test_a_create_that_fails_leaves_no_socket(engine: Engine) -> None:
    engine.allow("*")
    done = engine.docker("run", "--rm", "-v", f"{engine.socket}:/s", "box", "/no/such", check=False)
    assert done.returncode == 127
    assert not list(engine.place.state_dir.glob("containers/*/socket"))


@contextmanager
def listening(program: Path, path: Path, *entry: str) -> Iterator[None]:
    """Have a program listen at `path` for the block; `entry`: words that execute it."""
    words = [*entry, str(program), "listen", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.kill()


def test_a_socket_of_somebody_else_is_mounted_as_ever(
    engine: Engine, sock: Path, place: Place
) -> None:
    here = place.directory("y")
    with listening(sock, here / "s"), socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(here / "dead"))
        words = ["run", "--rm", "-v", f"{here}:/y", "-v", f"{here}/s:/s"]
        words += ["-v", f"{here}/dead:/d", "box"]
        assert engine.out(*words, "sh", "-c", "test -S /s && test -S /d && ls /y") == "dead\ns"


def test_an_engine_is_known_by_its_program(engine: Engine, sock: Path, place: Place) -> None:
    here = place.directory("y")
    program = here / "dockerd"
    shutil.copy(sock, program)
    with ExitStack() as stack:
        # In the engine's network namespace, and in another one.
        entry = ["nsenter", f"--net=/proc/{engine.pid}/ns/net", str(program)]
        near = stack.enter_context(
            subprocess.Popen([*entry, "listen", here / "near"], stdout=subprocess.PIPE)
        )
        stack.callback(near.kill)
        assert near.stdout is not None
        assert near.stdout.readline() == b"listening\n"
        stack.enter_context(listening(program, here / "far"))
        for name in ("near", "far"):
            assert DENIED.format("docker.io/library/box") in engine.refusal(
                "-v", f"{here}/{name}:/x"
            )
        assert DENIED.format("docker.io/library/box") in engine.refusal("-v", f"{here}:/x")


def test_a_socket_that_was_made_for_an_engine_is_the_engines(engine: Engine, place: Place) -> None:
    """As systemd makes them: SO_PEERCRED names whoever made it."""
    here = place.directory("y")
    shutil.copy("/bin/sleep", here / "dockerd")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(here / "s"))
        made.listen()
        words = ("run", "--rm", "-v", f"{here}/s:/s", "box", "true")
        engine.docker(*words)  # nobody's yet
        with subprocess.Popen([here / "dockerd", "100"], pass_fds=[made.fileno()]) as process:
            try:
                # Popen returns when the program has been executed.
                said = engine.refusal("-v", f"{here}/s:/s")
                assert DENIED.format("docker.io/library/box") in said
            finally:
                process.kill()


def test_an_engine_within_a_container_is_the_containers_own(
    engine: Engine, sock: Path, place: Place
) -> None:
    here = place.directory("y")
    shutil.copy(sock, here / "dockerd")
    with engine.container("-v", f"{here}:/y", command="exec /y/dockerd listen /y/s") as inner:
        waiting = "while ! test -S /y/s; do usleep 10000; done"
        engine.docker("exec", inner, "sh", "-c", waiting)
        assert engine.out("run", "--rm", "-v", f"{here}/s:/s", "box", "stat", "-c", "%F", "/s") == (
            "socket"
        )


@contextmanager
def forwarder(path: Path, upstream: Path) -> Iterator[None]:
    """Pass on every connection to `path` to another socket, for the block."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as engine:
                engine.connect(str(upstream))
                back = threading.Thread(target=carry, args=(client, engine), daemon=True)
                back.start()
                carry(engine, client)
                back.join(5)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_a_forwarded_socket_is_an_engines(engine: Engine, sock: Path, place: Place) -> None:
    here = place.directory("y")
    with forwarder(here / "s", engine.socket):
        words = ("-v", f"{here}/s:/s", "-v", f"{sock.parent}:/t:ro")
        without = engine.out("run", "--rm", "--runtime=runc", *words, "box", "/t/sock", "ask", "/s")
        assert without == "engine"
        assert DENIED.format("docker.io/library/box") in engine.refusal(*words)


def test_a_renamed_socket_is_found_in_its_directory(
    engine: Engine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place.directory("y")
    (here / "in").mkdir()
    usual = engine.socket
    os.rename(usual, here / "in/s")
    monkeypatch.setattr(engine, "socket", here / "in/s")
    try:
        assert DENIED.format("docker.io/library/box") in engine.refusal("-v", f"{here}:/x")
        assert DENIED.format("docker.io/library/box") in engine.refusal("-v", f"{here}/in/s:/x")
    finally:
        os.rename(here / "in/s", usual)


def test_layers_over_the_directory_do_not_lead_to_the_engine(
    engine: Engine, sock: Path, place: Place
) -> None:
    """An overlay has inodes of its own, at which nobody listens: so it is not looked for."""
    here = place.directory("y")
    for name in ("u", "w"):
        (here / name).mkdir()
    layers = f"lowerdir={engine.socket.parent},upperdir={here}/u,workdir={here}/w"
    volume = engine.out(
        *("volume", "create", "--opt", "type=overlay", "--opt", "device=overlay"),
        *("--opt", f"o={layers}"),
    )
    words = ("run", "--rm", "--runtime=runc", "-v", f"{volume}:/x", "-v", f"{sock.parent}:/t:ro")
    assert engine.out(*words, "box", "/t/sock", "ask", "/x/d.sock") == "ECONNREFUSED"
    engine.docker("volume", "rm", volume)


class Containerd:
    """The engine's containerd, by ctr; its images are its own."""

    def __init__(self, engine: Engine, runtime: Path) -> None:
        self._engine = engine
        self._runtime = runtime
        self._numbers = itertools.count()

    def ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ctr in the engine's network namespace."""
        entry = ("nsenter", f"--net=/proc/{self._engine.pid}/ns/net")
        done = subprocess.run(
            [*entry, "ctr", "-a", f"{self._engine.top}/cd.sock", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check:
            require_success(done, f"ctr {words}")
        return done

    def gets_in(self, sock: Path, image: str, repository: str) -> bool:
        """Whether a container of the image has an engine's socket."""
        name = f"ctr{next(self._numbers)}"
        mounts = [f"type=bind,src={self._engine.socket},dst=/s,options=rbind:rw"]
        mounts += [f"type=bind,src={sock.parent},dst=/t,options=rbind:ro"]
        done = self.ctr(
            *("run", "--rm", "--runc-binary", str(self._runtime)),
            *("--cgroup", f"/{self._engine.place.cgroup}/{name}"),
            *(word for mount in mounts for word in ("--mount", mount)),
            *(image, name, "/t/sock", "ask", "/s"),
            check=False,
        )
        if done.returncode == 0:
            assert done.stdout == "engine\n"
            return True
        self.ctr("container", "rm", name, check=False)
        assert DENIED.format(repository) in done.stderr
        return False


@pytest.fixture(scope="module")
def containerd(engine: Engine, runtimes: dict[str, Path], pushed: str) -> Containerd:
    """With the pushed image, pulled, and the image `local`, which no registry knows."""
    made = Containerd(engine, runtimes["eci"])
    made.ctr("image", "pull", "--plain-http", f"{pushed}:latest")
    archive = engine.top / "local.tar"
    engine.docker("tag", "box", "local")
    engine.docker("save", "-o", str(archive), "local")
    made.ctr("image", "import", str(archive))
    return made


def test_containerds_images_pass_by_where_they_were_pulled_from(
    engine: Engine, containerd: Containerd, sock: Path, pushed: str
) -> None:
    engine.allow(pushed)
    assert containerd.gets_in(sock, f"{pushed}:latest", pushed)
    engine.allow(f"{pushed}:other")
    assert not containerd.gets_in(sock, f"{pushed}:latest", pushed)


def test_containerds_images_do_not_pass_by_a_name_that_was_given_to_them(
    engine: Engine, containerd: Containerd, sock: Path, pushed: str
) -> None:
    local = "docker.io/library/local"
    engine.allow(pushed, f"{pushed}:*", "local", "docker.io/*")
    assert not containerd.gets_in(sock, f"{local}:latest", local)
    containerd.ctr("image", "tag", f"{local}:latest", f"{pushed}:evil")
    assert not containerd.gets_in(sock, f"{pushed}:evil", pushed)
    # What it is, does not depend on how it is called.
    engine.allow(f"any@{engine.inspect('local', '{{.Id}}')}")
    assert containerd.gets_in(sock, f"{pushed}:evil", pushed)
    assert not containerd.gets_in(sock, f"{pushed}:latest", pushed)
    engine.allow(f"any@{engine.inspect('local', '{{.Id}}')}", derived=True)
    assert containerd.gets_in(sock, f"{pushed}:latest", pushed)


def test_podmans_images_pass_by_digest_alone(
    engine: Engine, podman: Podman, sock: Path, place: Place, runtimes: dict[str, Path]
) -> None:
    """A podman image has no record of where it came from: `podman tag` makes RepoDigests."""
    runtime = place.directory("r") / "eci-runtime"
    runtime.write_text(f'#!/bin/sh\nECI_SETTINGS={engine.settings} exec {runtimes["eci"]} "$@"\n')
    runtime.chmod(0o755)
    podman.podman("tag", "box", "docker.io/library/docker:latest", runtime="runc")
    form = "{{.Id}} {{.Digest}}"
    done = podman.podman("image", "inspect", "--format", form, "box", runtime="runc")
    image_id, digest = done.stdout.split()

    def gets_in() -> bool:
        mounts = ("-v", f"{engine.socket}:/s", "-v", f"{sock.parent}:/t:ro")
        words = ("run", "--rm", *podman.run_words(), *mounts, "box", "/t/sock", "ask", "/s")
        done = podman.podman(*words, runtime=runtime, check=False)
        if done.returncode == 0:
            assert done.stdout == "engine\n"
            return True
        assert DENIED.format("docker.io/library/docker") in done.stderr
        return False

    engine.allow("docker", "docker:*", "localhost/box")
    assert not gets_in()
    engine.allow(f"docker@{digest}")
    assert gets_in()
    engine.allow(f"docker@sha256:{image_id}")
    assert gets_in()


def test_podmans_own_socket_is_an_engines_and_nobodys(
    engine: Engine, podman: Podman, sock: Path, place: Place
) -> None:
    path = podman.top / "p.sock"
    with podman.service(path):
        words = ("-v", f"{path}:/s", "-v", f"{sock.parent}:/t:ro")
        without = engine.out("run", "--rm", "--runtime=runc", *words, "box", "/t/sock", "ask", "/s")
        assert without == "engine"
        assert DENIED.format("docker.io/library/box") in engine.refusal(*words)
        engine.allow("*")
        said = engine.refusal(*words)
        assert f"{path} is a socket of podman, and only Docker's Engine API can be" in said
        # Nor by somebody who passes on to it, or by the name of Docker's.
        here = place.directory("y")
        with forwarder(here / "docker.sock", path):
            said = engine.refusal("-v", f"{here}/docker.sock:/s")
        assert f"{here}/docker.sock is a socket of podman, and only Docker's Engine API" in said


def test_a_container_gets_the_socket_of_one_engine_only(
    engine: Engine, sock: Path, place: Place
) -> None:
    here = place.directory("y")
    engine.allow("*")
    with forwarder(here / "s", engine.socket):
        words = ("-v", f"{here}/s:/s", "-v", f"{sock.parent}:/t:ro")
        assert engine.out("run", "--rm", *words, "box", "/t/sock", "ask", "/s") == "engine"
        said = engine.refusal(*words, "-v", f"{engine.socket}:/d")
    assert "a container gets the socket of one engine only" in said


def test_a_container_that_starts_again_has_a_socket_again(engine: Engine, sock: Path) -> None:
    engine.allow("*")
    words = ("-v", f"{engine.socket}:/s", "-v", f"{engine.socket}:/r:ro", "-v", f"{sock.parent}:/t")
    with engine.container(*words) as container:
        engine.docker("restart", "-t", "1", container)
        answers = engine.out("exec", container, "/t/sock", "ask", "/s", "/r")
        assert answers == "engine\nengine"


@pytest.fixture
def beside(engine: Engine, place: Place, runtimes: dict[str, Path]) -> Path:
    """The runtime, in the network namespace of the engine and with its settings."""
    program = place.directory("r") / "eci-runtime"
    entry = f"nsenter --net=/proc/{engine.pid}/ns/net"
    program.write_text(
        f'#!/bin/sh\nECI_SETTINGS={engine.settings} exec {entry} {runtimes["eci"]} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_a_root_file_system_is_no_way_to_the_socket(
    engine: Engine, bundles: Bundles, beside: Path
) -> None:
    name = bundles.name()
    bundle = bundles.write(make_spec(["true"], cgroup=bundles.cgroup(name)), engine.socket.parent)
    done = bundles.runtime(beside).call("create", "--bundle", str(bundle), name, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == DENIED.format("unknown")


def test_an_engine_that_shifts_ids_itself_has_the_socket_shifted(
    engine: Engine, bundles: Bundles, beside: Path, sock: Path
) -> None:
    engine.allow("*")
    name = bundles.name()
    spec = make_spec(
        ["sh", "-c", "stat -c '%u %F' /home/user/mine; /mnt/sock ask /home/user/mine"],
        cgroup=bundles.cgroup(name),
        # Mount points that are there: the root file system is nobody's in this container.
        mounts=[bind(engine.socket, "/home/user/mine"), bind(sock.parent, "/mnt")],
    )
    ids = [{"containerID": 0, "hostID": 1_000_000_000, "size": 65536}]
    spec["linux"] |= {"uidMappings": ids, "gidMappings": ids}
    spec["linux"]["namespaces"].append({"type": "user"})
    runtime = bundles.runtime(beside)
    bundles.expect(runtime, name)
    done = runtime.call("run", "--bundle", str(bundles.write(spec)), name)
    assert done.stdout.splitlines() == ["0 socket", "engine"]


def test_containerds_database_is_read_while_it_is_written(
    engine: Engine, containerd: Containerd
) -> None:
    """It holds the lock meanwhile, and no state is seen that never was."""
    path = f"{engine.top}/cd/root/{containerd_images.DATABASE}"
    kept = b"docker.io/library/local:latest"

    def names(top: Bucket) -> set[bytes]:
        found = top.bucket(b"v1", b"default", b"images")
        assert found is not None
        return {name for name, inner in found.items() if isinstance(inner, Bucket)}

    def churn() -> None:
        # A label of another length each time moves the bucket to other pages.
        for number in range(25):
            containerd.ctr("image", "label", kept.decode(), f"x={'y' * (number * 97 % 1000)}")
        over.set()

    with open(path, "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    before = bolt.snapshot(path, names)
    assert kept in before
    over = threading.Event()
    thread = threading.Thread(target=churn)
    thread.start()
    count = 0
    while not over.is_set():
        assert bolt.snapshot(path, names) == before
        count += 1
    thread.join()
    assert count > 25
