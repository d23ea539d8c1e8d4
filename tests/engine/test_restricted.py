"""Host paths that no container gets, asked for through a real dockerd; and what it gets still."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import IMAGE, Dockerd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

REFUSED = (
    "error in the container spec: can't mount {} because it's configured as a restricted host mount"
)


class Ruled:
    """A dockerd whose settings can be written anew for each container."""

    def __init__(self, dockerd: Dockerd, file: Path) -> None:
        self.dockerd = dockerd
        self._file = file
        self.rule()

    def rule(self, *, value: bool = True, **paths: list[str]) -> None:
        """Write the settings: `protectedPaths` and `sharedPaths`."""
        given = {"enhancedContainerIsolation": {"value": value}, "vm": paths}
        self._file.write_text(json.dumps(given))

    def run(self, *words: str, command: str = "true") -> tuple[int, str]:
        """Run a container; return its exit code and all that was said."""
        done = self.dockerd.docker("run", "--rm", *words, IMAGE, "sh", "-c", command, check=False)
        return done.returncode, done.stdout + done.stderr

    def refuses(self, path: str, *words: str) -> None:
        """Check that a container is refused because of `path`, to the letter."""
        code, said = self.run(*words)
        assert code in (125, 127), said
        assert f"OCI runtime create failed: {REFUSED.format(path)}: unknown" in said


@pytest.fixture(scope="module")
def engine(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Ruled]:
    """A dockerd of this module's own."""
    file = place.directory("set") / "settings.json"
    file.write_text("{}")
    with Dockerd(place, runtimes, "eci", {"ECI_SETTINGS": str(file)}) as daemon:
        daemon.import_image(busybox_root)
        yield Ruled(daemon, file)


@pytest.fixture(autouse=True)
def _defaults(engine: Ruled) -> Iterator[None]:
    """Each test begins, and the module ends, with the default settings."""
    yield
    engine.rule()


@pytest.fixture
def volume(engine: Ruled, mark: Callable[[], str]) -> Iterator[Callable[..., str]]:
    """A maker of volumes of the local driver; they are removed at the end."""
    made: list[str] = []

    def make(**options: str) -> str:
        name = mark()
        words = [f"--opt={key}={value}" for key, value in options.items()]
        engine.dockerd.docker("volume", "create", *words, name)
        made.append(name)
        return name

    yield make
    if made:
        engine.dockerd.docker("volume", "rm", "-f", *made)


# -- refused ------------------------------------------------------------------------------------


def test_binds_of_host_directories_are_refused_to_the_letter(engine: Ruled, runtime: str) -> None:
    run = f"--runtime={runtime}"
    engine.refuses("/etc/passwd", run, "--privileged", "-v", "/etc/passwd:/x:ro")


def test_neither_the_root_nor_kernel_file_systems_are_to_be_had(engine: Ruled) -> None:
    for path in ("/", "/sys/fs/cgroup", "/dev"):
        engine.refuses(path, "-v", f"{path}:/x:ro")


def test_the_flags_of_mount_are_no_other_way(engine: Ruled) -> None:
    engine.refuses("/etc", "--mount", "type=bind,source=/etc,target=/x,readonly")
    engine.refuses("/proc", "-v", "/proc:/host/proc:ro")
    engine.refuses("/usr", "-v", "/usr:/x")
    assert engine.run("-v", "/usr:/x:ro", command="test -d /x/bin") == (0, "")


def test_what_a_link_leads_to_counts(engine: Ruled, place: Place) -> None:
    directory = place.directory("v")
    (directory / "link").symlink_to("/etc")
    (directory / "deep").symlink_to("link/ssl/..")
    for name in ("link", "deep", "link/passwd", "../../../../etc"):
        path = f"{directory}/{name}"
        engine.refuses(path if ".." not in name else "/etc", "-v", f"{path}:/x:ro")


def test_a_bind_on_the_host_counts(engine: Ruled, place: Place) -> None:
    directory = place.directory("v")
    subprocess.run(["mount", "--bind", "/etc/ssl", directory], check=True)
    try:
        engine.refuses(str(directory), "-v", f"{directory}:/x")
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize(
    "options",
    [
        {"type": "none", "o": "bind", "device": "/etc"},
        # As a slave: dockerd unmounts it lazily, and with peers that takes away all that any engine
        # of this machine has mounted below its data root, which is shared.
        {"type": "none", "o": "rbind,rslave", "device": "/"},
        {"type": "none", "o": "bind,ro", "device": "/etc/ssl/private"},
        {"type": "overlay", "device": "overlay", "o": "lowerdir=/etc:/usr"},
        {"type": "proc", "device": "proc"},
        {"type": "sysfs", "device": "sysfs"},
        {"type": "devtmpfs", "device": "devtmpfs"},
        {"type": "tmpfs", "device": "/etc"},
    ],
    ids=lambda options: f"{options['type']}-{options['device']}-{options.get('o', '')}",
)
def test_a_volume_is_what_its_device_is(
    engine: Ruled, volume: Callable[..., str], options: dict[str, str]
) -> None:
    name = volume(**options)
    path = f"{engine.dockerd.data_root}/volumes/{name}/_data"
    engine.refuses(path, "-v", f"{name}:/x")


def test_files_of_the_engine_are_nobodys_by_their_names(engine: Ruled) -> None:
    data = engine.dockerd.data_root
    with engine.dockerd.container() as other:
        for name, place in (("hosts", "/etc/hosts"), ("hosts", "/x"), ("hostconfig.json", "/x")):
            path = f"{data}/containers/{other}/{name}"
            engine.refuses(path, "-v", f"{path}:{place}")
    for directory in (data.parent, data, data / "volumes"):
        engine.refuses(str(directory), "-v", f"{directory}:/x")


def test_the_data_root_is_protected_where_no_source_names_it(engine: Ruled, place: Place) -> None:
    data = str(engine.dockerd.data_root)
    file = place.directory("v") / "mine"
    file.touch()
    files: list[str] = []
    for name in ("hosts", "hostname", "resolv.conf"):
        files += ["-v", f"{file}:/etc/{name}"]
    engine.refuses(data, *files, "--ipc=private", "-v", f"{data}:/x")
    with engine.dockerd.container() as other:
        engine.refuses(data, f"--network=container:{other}", *files, "-v", f"{data}:/x")


def test_a_link_in_a_joined_container_is_its_users(engine: Ruled) -> None:
    data = engine.dockerd.data_root
    with engine.dockerd.container("-e", "SECRET=x") as victim, engine.dockerd.container() as other:
        path = f"{data}/containers/{victim}"
        layers = engine.dockerd.inspect(victim, "{{.GraphDriver.Data.UpperDir}}")
        for name, target in (("d", path), ("layers", layers)):
            engine.dockerd.docker("exec", other, "ln", "-s", target, f"/{name}")
            for words in (f"--network=container:{other}", f"--pid=container:{other}"):
                engine.refuses(target, words, "-v", f"{target}:/{name}")


def test_a_bind_that_becomes_a_link_to_the_own_record_is_refused(
    engine: Ruled, place: Place
) -> None:
    directory = place.directory("v")
    (directory / "sub").mkdir()
    run = ("create", "-v", f"{directory}/sub:/x", IMAGE, "cat", "/x/config.v2.json")
    created = engine.dockerd.out(*run)
    try:
        (directory / "sub").rmdir()
        (directory / "sub").symlink_to(engine.dockerd.data_root / "containers" / created)
        done = engine.dockerd.docker("start", "-a", created, check=False)
        assert done.returncode == 1
        # dockerd itself follows the link when it starts the container.
        assert "because it's configured as a restricted host mount" in done.stderr
    finally:
        engine.dockerd.docker("rm", "-f", created)


# -- allowed ------------------------------------------------------------------------------------


def test_ordinary_binds_and_volumes(
    engine: Ruled, place: Place, volume: Callable[..., str], runtime: str
) -> None:
    directory = place.directory("v")
    sources = (
        str(directory),
        volume(),
        volume(type="none", o="bind", device=str(directory)),
        volume(type="tmpfs", device="tmpfs"),
    )
    words = [f"--runtime={runtime}", "-v", "/4"]
    for number, source in enumerate(sources):
        words += ["-v", f"{source}:/{number}"]
    command = "for i in 0 1 2 3 4; do echo $i > /$i/a || exit; done; cat /0/a /2/a"
    assert engine.run(*words, command=command) == (0, "2\n2\n")
    one = volume(type="none", o="bind", device=str(directory))
    two = volume(type="none", o="bind", device=str(directory))
    with engine.dockerd.container("-v", f"{one}:/x"):
        assert engine.run("-v", f"{two}:/x", command="cat /x/a") == (0, "2\n")


def test_containers_that_share_get_the_files_of_the_other(engine: Ruled, runtime: str) -> None:
    words = (f"--runtime={runtime}", "--ipc=shareable", "-v", "/data")
    with engine.dockerd.container(*words) as other:
        engine.dockerd.docker("exec", other, "sh", "-c", "echo a > /dev/shm/a; echo b > /data/b")
        shared = (f"--network=container:{other}", f"--ipc=container:{other}")
        code, said = engine.run(
            f"--runtime={runtime}",
            *shared,
            f"--volumes-from={other}",
            command="cat /dev/shm/a /data/b; cmp /etc/hosts /etc/hosts && wc -l < /etc/hosts",
        )
        assert (code, said.split()[:2]) == (0, ["a", "b"]), said
        hosts = engine.dockerd.out("exec", other, "cat", "/etc/hosts")
        assert said.split()[2] == str(len(hosts.splitlines()))


def test_a_user_may_replace_the_files_of_the_engine(engine: Ruled, place: Place) -> None:
    file = place.directory("v") / "mine"
    file.write_text("1.2.3.4 mine\n")
    words: list[str] = []
    for name in ("hosts", "hostname", "resolv.conf"):
        words += ["-v", f"{file}:/etc/{name}"]
    # Without them nothing but its own volumes tells where the engine keeps the container.
    run = engine.run(*words, "-v", "/data", command="touch /data/x && cat /etc/hosts")
    assert run == (0, "1.2.3.4 mine\n")


def test_a_list_of_shared_paths_is_exclusive_but_for_the_engines_own(
    engine: Ruled, place: Place, volume: Callable[..., str]
) -> None:
    inside, outside = place.directory("v"), place.directory("v")
    engine.rule(sharedPaths=[str(inside)])
    assert engine.run("-v", f"{inside}:/x", "-v", f"{volume()}:/y", "-v", "/z") == (0, "")
    engine.refuses(str(outside), "-v", f"{outside}:/x")
    name = volume(type="none", o="bind", device=str(outside))
    engine.refuses(f"{engine.dockerd.data_root}/volumes/{name}/_data", "-v", f"{name}:/x")
    good = volume(type="none", o="bind", device=str(inside))
    assert engine.run("-v", f"{good}:/x") == (0, "")


def test_settings_are_read_at_each_create(engine: Ruled, place: Place) -> None:
    directory = place.directory("v")
    (directory / "in/deep").mkdir(parents=True)
    words = ["-v", f"{directory}/in/deep:/x"]
    assert engine.run(*words) == (0, "")
    engine.rule(protectedPaths=[f"{directory}/in"])
    engine.refuses(f"{directory}/in/deep", *words)
    engine.refuses(str(directory), "-v", f"{directory}:/x")
    engine.rule(protectedPaths=[f"{directory}/in"], sharedPaths=["/", f"{directory}/in/deep"])
    assert engine.run(*words) == (0, "")
    engine.rule(protectedPaths=[f"{directory}/in:ro"])
    engine.refuses(f"{directory}/in/deep", *words)
    assert engine.run("-v", f"{directory}/in/deep:/x:ro") == (0, "")


def test_with_value_false_the_container_is_the_runtimes(engine: Ruled, runtime: str) -> None:
    engine.rule(value=False)
    words = [f"--runtime={runtime}", "-v", "/etc:/x:ro", "--pid=host"]
    command = "cat /proc/self/uid_map; test -f /x/passwd && echo seen"
    code, said = engine.run(*words, command=command)
    assert (code, said.split()) == (0, ["0", "0", "4294967295", "seen"])
