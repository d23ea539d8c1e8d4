"""Switching engines over and back in a tree: exactly undone, whoever wrote the files, and when."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from eci_supervisor.cli.main import main
from eci_supervisor.engines import switch
from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.files import Tree
from eci_supervisor.engines.plan import Options, Where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNIT = "[Service]\nExecStart=/usr/sbin/dockerd\n"
PROGRAMS = ("usr/sbin/dockerd", "usr/sbin/runc", "usr/bin/crun", "usr/bin/containerd")
LIBRARY = "/var/lib/eci"


@contextmanager
def made(files: dict[str, bytes]) -> Iterator[Where]:
    """Give a tree with these files and the programs of engines, in memory."""
    root = Path(tempfile.mkdtemp(prefix="eci-tree-", dir="/dev/shm"))
    try:
        for name in (*PROGRAMS, "usr/bin/podman", "var/lib/x"):
            files = {name: b""} | files
        for name, data in files.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield Where(tree=Tree(str(root)))
    finally:
        shutil.rmtree(root)


def photo(where: Where) -> dict[str, tuple[int, bytes | str | None]]:
    """Return all that is in a tree: path -> mode, and content or target."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    root = Path(where.tree.root)
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        content: bytes | str | None = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = mode, content
    return found


def read(where: Where, path: str) -> bytes:
    """Return a file of the tree."""
    return Path(where.tree.real(path)).read_bytes()


def write(where: Where, path: str, data: bytes) -> None:
    """Replace a file of the tree as an editor does."""
    Path(where.tree.real(path)).write_bytes(data)


def round_trip(where: Where, engine: str, options: Options | None = None) -> bytes | None:
    """Enable twice and disable; returns what the engine's file was meanwhile."""
    before = photo(where)
    assert switch.enable(where, engine, options or Options()).changed
    meanwhile = photo(where)
    assert switch.enable(where, engine, options or Options()).changed == []
    assert photo(where) == meanwhile
    path = getattr(where, engine) or "/etc/containers/containers.conf.d/zz-eci.conf"
    seen = where.tree.read(path)
    outcome = switch.disable(where, engine)
    assert outcome is not None
    assert outcome.notes == []
    assert photo(where) == before
    assert switch.disable(where, engine) is None
    return seen


# -- files as people write them ---------------------------------------------------------------

names = st.text(st.sampled_from("abcXYZ09-_äß"), min_size=1, max_size=8)
scalars = st.one_of(
    st.booleans(), st.integers(-9, 99), st.text(max_size=6), st.lists(names, max_size=3)
)
runtimes = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {"path": st.sampled_from(["runc", "crun", "/usr/sbin/runc", "/usr/bin/crun"])},
        optional={"runtimeArgs": st.just(["--debug"])},
    ),
    max_size=3,
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "debug": st.booleans(),
        "log-opts": st.dictionaries(names, st.text(max_size=4), max_size=2),
        "default-runtime": st.just("runc"),
        "runtimes": runtimes,
        "labels": st.lists(names, max_size=3),
        "data-root": st.just("/srv/docker"),
    },
)
ends = st.sampled_from([b"", b"\n", b"\r\n", b"\n\n", b"  "])
marks = st.sampled_from([b"", b"\xef\xbb\xbf"])


@st.composite
def json_texts(draw: st.DrawFn) -> bytes:
    """Draw a daemon.json with some formatting or other."""
    value: dict[str, Any] = draw(configs)
    indent = draw(st.sampled_from([None, 0, 1, 2, 4, 7, "\t"]))
    separators = draw(st.sampled_from([None, (",", ":"), (" , ", " : ")]))
    text = json.dumps(
        value, indent=indent, separators=separators, ensure_ascii=draw(st.booleans())
    ).encode()
    if draw(st.booleans()):
        text = text.replace(b"\n", b"\r\n")
    return draw(marks) + draw(st.sampled_from([b"", b"\n", b" "])) + text + draw(ends)


@given(json_texts())
@settings(max_examples=40, deadline=None)
def test_daemon_json_comes_back_byte_identical(text: bytes) -> None:
    with made({"etc/docker/daemon.json": text}) as where:
        seen = round_trip(where, "docker")
        assert seen is not None
        now = json.loads(seen.decode("utf-8-sig"))
        then = json.loads(text.decode("utf-8-sig"))
    assert now["default-runtime"] == "eci"
    assert now["runtimes"]["eci"] == {"path": f"{LIBRARY}/path/eci-runtime"}
    for name, entry in then.get("runtimes", {}).items():
        assert now["runtimes"][name]["path"].startswith(f"{LIBRARY}/wrapped/")
        assert now["runtimes"][name].get("runtimeArgs") == entry.get("runtimeArgs")
    for key in set(then) - {"runtimes", "default-runtime"}:
        assert now[key] == then[key]


@given(json_texts(), names, scalars)
@settings(max_examples=40, deadline=None)
def test_an_edit_of_daemon_json_in_between_stays(text: bytes, name: str, value: Any) -> None:
    key = f"x-{name}"
    with made({"etc/docker/daemon.json": text}) as where:
        switch.enable(where, "docker", Options())
        now = json.loads(read(where, where.docker).decode("utf-8-sig"))
        now[key] = value
        write(where, where.docker, json.dumps(now, indent=3).encode())
        outcome = switch.disable(where, "docker")
        assert outcome is not None
        assert "edited meanwhile" in outcome.notes[0]
        left = json.loads(read(where, where.docker))
    then = json.loads(text.decode("utf-8-sig"))
    assert left == then | {key: value}


CRI = 'plugins."io.containerd.grpc.v1.cri"'
PIECES = (
    "# a comment with [brackets] and = signs\n",
    "oom_score = 0 # why\n",
    "root = '/srv/containerd'\n",
)
TABLES = (
    '[grpc]\n  address = "/run/x.sock"   # odd   spacing\n\n',
    "  [debug]\n\tlevel='info'\n",
    f'[{CRI}]\n  sandbox_image = "pause:3"\n',
    f'[{CRI}.containerd]\n   # the default\n   default_runtime_name = "runc"\n   snapshotter="x"\n',
    f"""[{CRI}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [{CRI}.containerd.runtimes.runc.options]
    SystemdCgroup = true
""",
    f"""[{CRI}.containerd.runtimes.old]
  runtime_type = "io.containerd.runc.v2"
  options = {{ BinaryName = "/usr/bin/crun" }} # inline
""",
    f'[{CRI}.cni]\nbin_dir = "/usr/lib/cni"\n# last comment\n',
)


@st.composite
def toml_texts(draw: st.DrawFn) -> bytes:
    """Draw a config.toml of containerd with some formatting or other."""
    tops = draw(st.lists(st.sampled_from(PIECES), unique=True, max_size=3))
    tables = draw(st.lists(st.sampled_from(TABLES), unique=True, max_size=7))
    text = "".join([*tops, "version = 2\n", draw(st.sampled_from(["", "\n\n"])), *tables])
    if draw(st.booleans()):
        text = text.rstrip("\n")
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return draw(marks) + text.encode()


def handlers(text: bytes) -> dict[str, Any]:
    """Return the containerd section of the CRI plugin."""
    tables = tomllib.loads(text.decode("utf-8-sig"))
    found: dict[str, Any] = tables["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    return found


@given(toml_texts())
@settings(max_examples=40, deadline=None)
def test_containerd_config_comes_back_byte_identical(text: bytes) -> None:
    with made({"etc/containerd/config.toml": text}) as where:
        seen = round_trip(where, "containerd")
    assert seen is not None
    now = handlers(seen)
    assert now["default_runtime_name"] == "eci"
    options = now["runtimes"]["eci"]["options"]
    assert options["BinaryName"] == f"{LIBRARY}/path/eci-runtime"
    assert options.get("SystemdCgroup", False) == (b"SystemdCgroup" in text)
    if "old" in now["runtimes"]:
        assert now["runtimes"]["old"]["options"]["BinaryName"].startswith(f"{LIBRARY}/wrapped/")
    # Nothing of what was there is lost, comments above all, and its order is kept.
    rest = iter(seen.decode().splitlines())
    for line in text.decode().splitlines():
        if "default_runtime_name" not in line and "BinaryName" not in line:
            assert line in rest


@given(toml_texts())
@settings(max_examples=40, deadline=None)
def test_an_edit_of_containerd_config_in_between_stays(text: bytes) -> None:
    with made({"etc/containerd/config.toml": text}) as where:
        switch.enable(where, "containerd", Options())
        now = read(where, where.containerd)
        write(where, where.containerd, now + b'\n[metrics]\naddress = "x" # mine\n')
        outcome = switch.disable(where, "containerd")
        assert outcome is not None
        assert any("edited meanwhile" in note for note in outcome.notes)
        left = read(where, where.containerd)
    then = tomllib.loads(text.decode("utf-8-sig"))
    assert tomllib.loads(left.decode("utf-8-sig")) == then | {"metrics": {"address": "x"}}
    assert b"# mine" in left


@given(
    st.sampled_from(["", "# only a comment", '[engine]\nruntime = "runc" # mine\n']),
    st.sampled_from(["", "[containers]\n  pids_limit=9\n", '[network]\n\tx = "y"']),
    marks,
)
@settings(max_examples=20, deadline=None)
def test_containers_conf_comes_back_byte_identical(engine: str, other: str, mark: bytes) -> None:
    text = mark + f"{other}\n{engine}".encode()
    with made({"srv/containers.conf": text}) as where:
        own = Where(tree=where.tree, podman="/srv/containers.conf")
        seen = round_trip(own, "podman")
    assert seen is not None
    now = tomllib.loads(seen.decode("utf-8-sig"))["engine"]
    assert now["runtime"] == ("runc" if "runc" in engine else "crun")
    assert set(now["runtimes"]) == {"runc", "crun", "eci", "eci-crun"}


# -- files that are not there, links, attributes ----------------------------------------------


@pytest.mark.parametrize("engine", ["docker", "containerd", "podman"])
def test_files_that_were_not_there_vanish_again(engine: str) -> None:
    with made({}) as where:
        round_trip(where, engine)


def test_engines_share_what_they_share_in_any_order() -> None:
    files = {
        f"lib/systemd/system/{name}.service": UNIT.encode() for name in ("docker", "containerd")
    }
    drop_in = "/etc/systemd/system/containerd.service.d/zz-eci.conf"
    for first, second in (("docker", "containerd"), ("containerd", "docker")):
        with made(files) as where:
            before = photo(where)
            switch.enable(where, "docker", Options())
            switch.enable(where, "containerd", Options())
            switch.disable(where, first)
            assert where.tree.exists(drop_in)
            assert os.path.lexists(f"{where.tree.root}{LIBRARY}/path/runc")
            switch.disable(where, second)
            assert photo(where) == before


def test_a_link_stays_a_link_and_attributes_stay(tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/real").mkdir()
    (tmp_path / "var/lib").mkdir(parents=True)
    real = tmp_path / "etc/real/d.json"
    real.write_text("{}")
    real.chmod(0o640)
    os.setxattr(real, "user.eci", b"kept")
    # Absolute, and so to be followed inside the tree.
    (tmp_path / "etc/docker/daemon.json").symlink_to("/etc/real/d.json")
    where = Where(tree=Tree(str(tmp_path)))
    before = photo(where)
    switch.enable(where, "docker", Options())
    assert "eci" in json.loads(real.read_text())["runtimes"]
    assert (tmp_path / "etc/docker/daemon.json").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert os.getxattr(real, "user.eci") == b"kept"
    switch.disable(where, "docker")
    assert photo(where) == before
    assert os.getxattr(real, "user.eci") == b"kept"


def test_a_file_with_a_second_name_is_refused() -> None:
    with made({"etc/docker/daemon.json": b"{}"}) as where:
        os.link(where.tree.real(where.docker), where.tree.real("/etc/other"))
        before = photo(where)
        with pytest.raises(EngineError, match="hard links"):
            switch.enable(where, "docker", Options())
        assert photo(where) == before


# -- what cuts it short -----------------------------------------------------------------------

FILES = {
    "etc/docker/daemon.json": b'{ "debug": true }',
    "lib/systemd/system/docker.service": UNIT.encode(),
    "lib/systemd/system/containerd.service": UNIT.encode(),
}
STEPS = ("write", "make", "link", "unlink", "unmake")


def _cut(step: int, call: Callable[[], object]) -> bool:
    """Make the call in a child that ends before its change number `step`; returns whether so."""
    child = os.fork()
    if child == 0:
        left = step
        for name in STEPS:
            real = getattr(Tree, name)

            def counted(self: Tree, *args: Any, _real: Any = real, **words: Any) -> Any:
                nonlocal left
                if left == 0:
                    os._exit(9)
                left -= 1
                return _real(self, *args, **words)

            setattr(Tree, name, counted)
        try:
            call()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("second", ["enable", "disable"])
def test_a_crash_at_any_step_of_enable_is_completed_or_undone(second: str) -> None:
    with made(FILES) as where:
        before = photo(where)
        switch.enable(where, "docker", Options())
        after = photo(where)
        switch.disable(where, "docker")
        step = 0
        while _cut(step, lambda: switch.enable(where, "docker", Options())):
            if second == "enable":
                switch.enable(where, "docker", Options())
                assert photo(where) == after
            switch.disable(where, "docker")
            assert photo(where) == before
            step += 1
    assert step > 15


def test_a_crash_at_any_step_of_disable_is_completed() -> None:
    with made(FILES) as where:
        before = photo(where)
        step = 0
        lost = True
        while lost:
            switch.enable(where, "docker", Options())
            lost = _cut(step, lambda: switch.disable(where, "docker"))
            switch.disable(where, "docker")
            assert photo(where) == before
            step += 1
    assert step > 10


def test_two_at_once_are_refused() -> None:
    with made({"etc/docker/daemon.json": b"{}"}) as where:
        switch.enable(where, "docker", Options())
        fd = os.open(where.tree.real(LIBRARY), os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with pytest.raises(EngineError, match="another eci enable or disable is running"):
                switch.disable(where, "docker")
        finally:
            os.close(fd)
        assert switch.disable(where, "docker") is not None


# -- what is not understood, or not allowed ---------------------------------------------------

KATA = b'{\n "runtimes": {\n  "kata": { "path": "/usr/bin/kata-runtime" }\n }\n}\n'
ENV = UNIT + "EnvironmentFile=-/etc/default/docker\n"
UNIT_NAME = "lib/systemd/system/docker.service"
REFUSED = {
    "comment": ({"etc/docker/daemon.json": b'{\n// no\n"a":1}'}, "line 2.*comments are not JSON"),
    "twice": ({"etc/docker/daemon.json": b'{"a":1,"a":2}'}, "stands there twice"),
    "array": ({"etc/docker/daemon.json": b"[]"}, "no JSON object"),
    "latin": ({"etc/docker/daemon.json": b'{"a":"\xff"}'}, "line 1: not UTF-8"),
    "kata": ({"etc/docker/daemon.json": KATA}, "line 3: runtimes.kata: .*neither runc nor crun"),
    "shim": (
        {"etc/docker/daemon.json": b'{"runtimes":{"k":{"runtimeType":"io.containerd.kata.v2"}}}'},
        "io.containerd.kata.v2 is neither",
    ),
    "case": (
        {"etc/docker/daemon.json": b'{"runtimes":{"k":{"path":"runc","PATH":"/usr/bin/kata"}}}'},
        "says path a second time",
    ),
    "taken": (
        {"etc/docker/daemon.json": b'{"runtimes":{"eci":{"path":"/usr/bin/kata"}}}'},
        "the name is wanted",
    ),
    "elsewhere": (
        {UNIT_NAME: (UNIT.strip() + " --config-file /srv/d.json\n").encode()},
        "reads /srv/d.json and not /etc/docker/daemon.json: say --docker-config /srv/d.json",
    ),
    "path": (
        {UNIT_NAME: ENV.encode(), "etc/default/docker": b"# x\nPATH=/bin\n"},
        "/etc/default/docker: line 2: sets PATH",
    ),
    "flag": (
        {UNIT_NAME: ENV.encode(), "etc/default/docker": b"DOCKER_OPTS=--default-runtime=runc\n"},
        "line 1: dockerd gets --default-runtime",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_docker_cannot_be_given_is_refused_and_nothing_changed(case: str) -> None:
    files, message = REFUSED[case]
    with made(files) as where:
        before = photo(where)
        with pytest.raises(EngineError, match=message):
            switch.enable(where, "docker", Options())
        assert photo(where) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[plugins]\n", "version 1, eci knows 2, 3"),
        (b"version = 9\n", "version 9"),
        (b"version = 2\nx = \n", "not valid TOML"),
        (
            f'version = 2\n[{CRI}.containerd.runtimes.k]\nruntime_type = "io.kata.v2"\n'.encode(),
            "io.kata.v2 is neither",
        ),
    ],
)
def test_what_containerd_cannot_be_given_is_refused(text: bytes, message: str) -> None:
    with made({"etc/containerd/config.toml": text}) as where:
        before = photo(where)
        with pytest.raises(EngineError, match=message):
            switch.enable(where, "containerd", Options())
        assert photo(where) == before


def test_other_runtimes_are_taken_out_on_demand_and_come_back() -> None:
    with made({"etc/docker/daemon.json": KATA}) as where:
        seen = round_trip(where, "docker", Options(drop_runtimes=True))
    assert seen is not None
    assert b"kata" not in seen


def test_a_shim_of_another_kind_is_refused_or_hidden() -> None:
    shims = {f"usr/bin/containerd-shim-{kind}-v2": b"" for kind in ("kata", "runc")}
    with made(shims) as where:
        for engine in ("docker", "containerd"):
            with pytest.raises(EngineError, match=r"io\.containerd\.kata\.v2 would not be"):
                switch.enable(where, engine, Options())
        switch.enable(where, "docker", Options(drop_runtimes=True))
        links = [name for name in where.tree.listdir(f"{LIBRARY}/path") if "shim" in name]
        assert links == ["containerd-shim-kata-v2"]
        switch.disable(where, "docker")


def test_a_node_of_a_cluster_is_asked_which_pods() -> None:
    with made({"var/lib/kubelet/config.yaml": b""}) as where:
        with pytest.raises(EngineError, match="pods=by-class"):
            switch.enable(where, "containerd", Options())
        seen = round_trip(where, "containerd", Options(pods="by-class"))
    assert seen is not None
    section = handlers(seen)
    assert "default_runtime_name" not in section
    assert set(section["runtimes"]) == {"eci", "eci-crun"}


def test_containerd_without_cri_gets_only_its_path() -> None:
    files = {
        "etc/containerd/config.toml": b'disabled_plugins = ["cri"]\n',
        "lib/systemd/system/containerd.service": UNIT.encode(),
    }
    with made(files) as where:
        assert round_trip(where, "containerd") == b'disabled_plugins = ["cri"]\n'


def test_the_drop_in_keeps_the_path_that_the_unit_had() -> None:
    place = "etc/systemd/system/docker.service.d"
    files = {
        UNIT_NAME: UNIT.encode(),
        f"{place}/a.conf": b'[Service]\nEnvironment=A=1 "PATH=/opt/bin:/usr/bin" \\\n  B=2\n',
    }
    with made(files) as where:
        switch.enable(where, "docker", Options())
        text = read(where, f"/{place}/zz-eci.conf").decode()
    assert f'Environment="PATH={LIBRARY}/path:/opt/bin:/usr/bin"\n' in text


def test_a_start_script_gets_the_path() -> None:
    files = {
        "etc/init.d/docker": b". /etc/default/docker\n",
        "etc/default/docker": b"#DOCKER_OPTS=--x",
    }
    with made(files) as where:
        switch.enable(where, "docker", Options())
        text = read(where, "/etc/default/docker").decode()
        seen = subprocess.run(
            ["sh", "-c", f". {where.tree.real('/etc/default/docker')}; env"],
            env={"PATH": "/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"PATH={LIBRARY}/path:/bin\n" in seen.stdout
        switch.disable(where, "docker")
        assert read(where, "/etc/default/docker") == b"#DOCKER_OPTS=--x"
    assert text.startswith("#DOCKER_OPTS=--x\n#")
    assert text.endswith(f'\nexport PATH="{LIBRARY}/path:$PATH"\n')


def test_the_services_own_file_is_the_services_wherever_it_is() -> None:
    text = UNIT.strip() + " --config-file=/srv/d.json\n"
    with made({UNIT_NAME: text.encode(), "srv/d.json": b"{}"}) as where:
        own = Where(tree=where.tree, docker="/srv/d.json")
        outcome = switch.enable(own, "docker", Options())
        assert outcome.changed == [
            "/srv/d.json",
            "/etc/systemd/system/docker.service.d/zz-eci.conf",
        ]


def test_a_library_that_others_can_write_to_is_refused() -> None:
    with made({"var/lib/eci/x": b""}) as where:
        Path(where.tree.real(LIBRARY)).chmod(0o777)
        before = photo(where)
        with pytest.raises(EngineError, match="others than root can write to it"):
            switch.enable(where, "docker", Options())
        assert photo(where) == before


def test_containerd_2_has_its_handlers_elsewhere() -> None:
    text = b"version = 3\n"
    with made({"etc/containerd/config.toml": text}) as where:
        seen = round_trip(where, "containerd")
    assert seen is not None
    plugin = tomllib.loads(seen.decode())["plugins"]["io.containerd.cri.v1.runtime"]
    assert plugin["containerd"]["default_runtime_name"] == "eci"
    assert set(plugin["containerd"]["runtimes"]) == {"eci", "eci-crun"}


def test_containers_that_remember_our_runtime_are_named() -> None:
    place = "var/lib/docker/containers"
    files = {
        f"{place}/{name}/{record}.json": json.dumps(value).encode()
        for name, runtime in (("a", "eci"), ("b", "runc"))
        for record, value in (
            ("hostconfig", {"Runtime": runtime}),
            ("config.v2", {"Name": f"/name-{name}"}),
        )
    }
    with made(files) as where:
        switch.enable(where, "docker", Options())
        outcome = switch.disable(where, "docker")
    assert outcome is not None
    (note,) = outcome.notes
    assert note.endswith("remove and make anew: name-a")


@pytest.mark.root
def test_all_engines_are_switched_over_or_none() -> None:
    with made({"etc/containerd/config.toml": b"version = 9\n"}) as where:
        before = photo(where)
        done = CliRunner().invoke(main, ["enable", "--root", where.tree.root])
        assert done.exit_code == 1
        assert done.output.startswith("Error: /etc/containerd/config.toml: is of version 9")
        assert photo(where) == before
        write(where, where.containerd, b"version = 2\n")
        before = photo(where)
        done = CliRunner().invoke(main, ["enable", "--root", where.tree.root])
        assert done.exit_code == 0
        assert [
            line.split(":")[0] for line in done.output.splitlines() if ": protected" in line
        ] == [
            "docker",
            "containerd",
            "podman",
        ]
        done = CliRunner().invoke(main, ["disable", "--root", where.tree.root])
        assert done.exit_code == 0
        assert photo(where) == before
        done = CliRunner().invoke(main, ["disable", "--root", where.tree.root])
        assert done.output == "nothing is switched over\n"


def test_an_edit_of_a_drop_in_stays_without_our_line() -> None:
    with made({UNIT_NAME: UNIT.encode()}) as where:
        switch.enable(where, "docker", Options())
        path = "/etc/systemd/system/docker.service.d/zz-eci.conf"
        write(where, path, read(where, path) + b"LimitNOFILE=9\n")
        switch.disable(where, "docker")
        assert b"PATH" not in read(where, path)
        assert b"LimitNOFILE=9\n" in read(where, path)


def test_a_damaged_record_is_named() -> None:
    with made({}) as where:
        switch.enable(where, "podman", Options())
        write(where, f"{LIBRARY}/engines/record.json", b"{")
        with pytest.raises(EngineError, match=r"record\.json: damaged"):
            switch.disable(where, "podman")
