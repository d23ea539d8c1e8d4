"""eci-runtime without an engine: the command line, the bundle, and what is left of it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.bundle import Runtime, Spec
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

NAMES = {"eci": "runc", "eci-crun": "crun"}
SUPERVISED = (
    "mnt mount none /mnt tmpfs - - , write /mnt/x , umount2 /mnt - , "
    "mount - /vol - MS_REMOUNT|MS_BIND - , write /vol/x"
).split()
SUPERVISED_ANSWERS = ["0", "0", "0", "EPERM", "EROFS"]
SLEEP = ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done"]


@pytest.fixture
def program(runtimes: dict[str, Path], runtime: str) -> Path:
    """The program under test."""
    return runtimes[runtime]


@pytest.fixture
def spec_of(bundles: Bundles, place: Place) -> Callable[..., Spec]:
    """A maker of specs with a read-only volume on /vol."""

    def make(args: list[str], name: str, *, privileged: bool = True) -> Spec:
        volume = place.directory("v")
        return make_spec(
            args,
            cgroup=bundles.cgroup(name),
            privileged=privileged,
            mounts=[bind(volume, "/vol", "ro")],
        )

    return make


@contextmanager
def closing_pidfd(pid: int) -> Iterator[int]:
    """Yield a pidfd of the process, readable when it has ended."""
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


# -- the same bundle, each way ------------------------------------------------------------


def test_run(program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place) -> None:
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    script = f"{' '.join(SUPERVISED).replace('|', chr(92) + '|')}; cat /proc/self/uid_map; exit 42"
    bundle = bundles.write(spec_of(["sh", "-c", script], name))
    done = runtime.call("run", "--bundle", str(bundle), name, check=False)
    assert (done.returncode, done.stderr) == (42, "")
    *answers, inside, base, size = done.stdout.split()
    assert (answers, inside, size) == (SUPERVISED_ANSWERS, "0", "65536")
    assert int(base) >= 100000
    assert place.leftovers(before=before) == []


def test_run_in_the_bundle_directory(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec]
) -> None:
    """Without --bundle the current directory is the bundle, and root.path is relative to it."""
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundle = bundles.write(spec_of(["echo", "here"], name))
    spec = json.loads((bundle / "config.json").read_text())
    spec["root"]["path"] = os.path.relpath(spec["root"]["path"], bundle)
    (bundle / "config.json").write_text(json.dumps(spec))
    # crun must not get /dev/null, which it would give to the container's root.
    with TemporaryFile() as empty:
        done = subprocess.run(
            runtime.argv("run", name), cwd=bundle, stdin=empty, capture_output=True, check=True
        )
    assert done.stdout == b"here\n"


def test_eci_run(bundle_root: Path, place: Place, runtime: str) -> None:
    volume = place.directory("v")
    words = ["--privileged", "--rootfs", str(bundle_root), "-v", f"{volume}:/vol:ro"]
    with TemporaryFile() as empty:
        done = subprocess.run(
            [sys.executable, "-m", "eci_supervisor.cli.main", "run", *words,
             "--runtime", NAMES[runtime], "--", *SUPERVISED],
            stdin=empty, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, SUPERVISED_ANSWERS), done.stderr


@pytest.mark.parametrize("words", [["-v", "/etc:/x:ro"], ["--rootfs", "/"]])
def test_eci_run_refuses_paths_of_the_host(bundle_root: Path, words: list[str]) -> None:
    given = ["--rootfs", str(bundle_root), *words]
    done = subprocess.run(
        [sys.executable, "-m", "eci_supervisor.cli.main", "run", *given, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    path = words[1].partition(":")[0]
    why = "because it's configured as a restricted host mount"
    said = f"error in the container spec: can't mount {path} {why}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_create_state_start_exec_kill_delete(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(SLEEP, name))

    def status() -> str:
        state = json.loads(runtime.call("state", name).stdout)
        assert state["id"] == name
        return str(state["status"])

    runtime.call("create", "--bundle", str(bundle), name)
    assert status() == "created"
    runtime.start(name)
    assert status() == "running"
    assert runtime.call("exec", name, *SUPERVISED).stdout.split() == SUPERVISED_ANSWERS
    assert runtime.call("exec", name, "sh", "-c", "exit 9", check=False).returncode == 9
    assert name in runtime.call("list").stdout
    runtime.call("kill", name, "TERM")
    wait_until(lambda: status() == "stopped", "the container does not stop")
    runtime.call("delete", name)
    assert runtime.call("state", name, check=False).returncode != 0
    assert place.leftovers(before=before) == []


@contextmanager
def busy_processors() -> Iterator[None]:
    """Keep every processor busy, so that a parent and its child run in either order."""
    count = (os.cpu_count() or 1) + 1
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_delete_after_our_own_clearing(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    """The keeper may have cleared up before `delete` comes, whose hooks must not mind."""
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(["true"], name))
    pid_file = place.directory("pid") / "pid"
    with busy_processors():
        for _ in range(10):
            runtime.call("create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
            with closing_pidfd(int(pid_file.read_text())) as ended:
                runtime.start(name)
                assert select.select([ended], [], [], 20)[0]
            time.sleep(0.3)
            done = runtime.call("delete", name, check=False)
            assert (done.returncode, done.stderr) == (0, "")
    assert place.leftovers(before=before) == []


@pytest.mark.parametrize("runtime", ["eci-crun"], indirect=True)
def test_runtime_that_keeps_its_state_elsewhere(
    program: Path,
    bundles: Bundles,
    spec_of: Callable[..., Spec],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Crun without --root asks XDG_RUNTIME_DIR: the container lives, and is cleared up after."""
    before = place.leftovers(patience=0)
    name = bundles.name()
    directory = place.directory("xdg")
    named = bundles.runtime(program)
    named.root = directory / "crun"
    bundles.expect(named, name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    bundle = bundles.write(spec_of(SLEEP, name))

    def call(*words: str) -> str:
        with TemporaryFile() as stdin, TemporaryFile() as out:
            subprocess.run([program, *words], stdin=stdin, stdout=out, check=True)
            out.seek(0)
            return out.read().decode()

    call("create", "--bundle", str(bundle), name)
    call("start", name)
    # Longer than the keeper watches for a create that came to nothing.
    time.sleep(2.5)
    assert call("exec", name, *SUPERVISED).split() == SUPERVISED_ANSWERS
    call("delete", "--force", name)
    assert place.leftovers(before=before) == []


def test_create_then_delete_by_force(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    for started in (False, True):
        bundle = bundles.write(spec_of(SLEEP, name))
        runtime.call("create", "--bundle", str(bundle), name)
        if started:
            runtime.start(name)
        runtime.call("delete", "--force", name)
        assert place.leftovers(before=before) == []


def test_run_passes_signals_on(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec]
) -> None:
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(SLEEP, name))
    with TemporaryFile() as empty:
        process = subprocess.Popen(
            runtime.argv("run", "--bundle", str(bundle), name), stdin=empty, stdout=subprocess.PIPE
        )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7


def test_pid_file_and_console_socket_are_the_runtimes_own(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(SLEEP, name))
    pid_file = place.directory("pid") / "pid"
    runtime.call("create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
    state = json.loads(runtime.call("state", name).stdout)
    assert int(pid_file.read_text()) == state["pid"]
    uid_map = f"/proc/{state['pid']}/uid_map"
    with open(uid_map) as file:
        assert file.read().split()[::2] == ["0", "65536"]


def said(result: subprocess.CompletedProcess[str], runtime: Runtime) -> list[str]:
    """What a runtime has said, without its root directory and the time."""
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
    texts = (result.stdout, result.stderr)
    return [stamp.sub("TIME", text.replace(str(runtime.root), "")) for text in texts]


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["delete", "nonesuch"], ["nonsense"]])
def test_other_words_get_the_runtimes_own_answer(
    program: Path, bundles: Bundles, runtime: str, words: list[str]
) -> None:
    ours = bundles.runtime(program)
    theirs = bundles.runtime(NAMES[runtime])
    # The usage names the program by argv[0], the root directories differ, and a second may begin.
    seen, expected = (one.call(*words, check=False) for one in (ours, theirs))
    assert seen.returncode == expected.returncode
    if words != ["--help"]:
        assert said(seen, ours) == said(expected, theirs)


# -- flags of mounts ----------------------------------------------------------------------


def test_flags_of_a_bind_are_held(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    name = bundles.name()
    calls = [
        ("flags /safe", "rw,nosuid,nodev,noexec"),
        ("mount - /safe - MS_REMOUNT|MS_BIND -", "EPERM"),
        ("mount - /safe - MS_REMOUNT|MS_BIND|MS_NOSUID|MS_NODEV -", "EPERM"),
        ("mount - /safe - MS_REMOUNT|MS_BIND|MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC -", "0"),
        ("mount - /safe - MS_REMOUNT|MS_BIND|MS_NOSUID|MS_NODEV|MS_NOEXEC -", "0"),
        ("flags /safe", "rw,nosuid,nodev,noexec"),
    ]
    spec = spec_of(["mnt", *" , ".join(call for call, _ in calls).split()], name)
    spec["mounts"].append(bind(place.directory("v"), "/safe", "nosuid", "nodev", "noexec"))
    runtime = bundles.runtime(program)
    seen = runtime.call("run", "--bundle", str(bundles.write(spec)), name).stdout.splitlines()
    assert list(zip((call for call, _ in calls), seen, strict=True)) == calls


# -- errors -------------------------------------------------------------------------------


def break_nothing(_bundle: Path) -> None:
    """Leave the bundle as it is."""


def remove_config(bundle: Path) -> None:
    """No config.json."""
    (bundle / "config.json").unlink()


def cut_config(bundle: Path) -> None:
    """Half a config.json."""
    text = (bundle / "config.json").read_text()
    (bundle / "config.json").write_text(text[: len(text) // 2])


def edit(**changes: object) -> Callable[[Path], None]:
    """Replace top-level keys; None removes one."""

    def apply(bundle: Path) -> None:
        spec = json.loads((bundle / "config.json").read_text())
        spec.update(changes)
        kept = {key: value for key, value in spec.items() if value is not None}
        (bundle / "config.json").write_text(json.dumps(kept))

    return apply


BROKEN: dict[str, tuple[Callable[[Path], None], dict[str, str], str]] = {
    "no_config": (remove_config, {}, "config.json"),
    "half_a_config": (cut_config, {}, "config.json"),
    "no_root": (edit(root=None), {}, "root"),
    # What is wrong here both runtimes find themselves, and say in their own words.
    "no_process": (edit(process=None), {}, ""),
    "root_of_a_wrong_type": (edit(root="rootfs"), {}, "root"),
    "root_that_is_not_there": (edit(root={"path": "/no/such/root"}), {}, "/no/such/root"),
    "mounts_of_a_wrong_type": (edit(mounts={"a": 1}), {}, "mounts"),
    "source_that_is_not_there": (
        edit(
            mounts=[
                {"destination": "/d", "type": "bind", "source": "/no/such", "options": ["bind"]}
            ]
        ),
        {},
        "/no/such",
    ),
    "state_directory_that_is_a_file": (
        break_nothing,
        {"ECI_STATE_DIR": "/etc/passwd"},
        "/etc/passwd",
    ),
    "no_range_left": (break_nothing, {"ECI_RANGES": "100000:0"}, "ECI_RANGES"),
    "settings_that_are_not_there": (
        break_nothing,
        {"ECI_SETTINGS": "/no/settings"},
        "/no/settings",
    ),
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("case", BROKEN)
def test_errors_are_one_line(  # noqa: PLR0917 - fixtures
    program: Path,
    bundles: Bundles,
    spec_of: Callable[..., Spec],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    form: str,
) -> None:
    before = place.leftovers(patience=0)
    damage, environ, word = BROKEN[case]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    log = place.directory("log") / "log"
    runtime = bundles.runtime(program, "--log", str(log), "--log-format", form)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(["true"], name))
    damage(bundle)
    done = runtime.call("create", "--bundle", str(bundle), name, check=False)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    lines = log.read_text().splitlines()
    if form == "json":
        record = json.loads(lines[-1])
        assert record["level"] == "error"
        assert word in record["msg"]
    else:
        assert word in lines[-1]
    assert place.leftovers(before=before) == []


def test_second_container_of_an_id_is_refused(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec]
) -> None:
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(SLEEP, name))
    runtime.call("create", "--bundle", str(bundle), name)
    again = runtime.call("create", "--bundle", str(bundle), name, check=False)
    assert again.returncode != 0
    assert name in again.stderr
    assert again.stderr.count("\n") == 1
    # The first is none the worse for it.
    runtime.start(name)
    assert runtime.call("exec", name, *SUPERVISED).stdout.split() == SUPERVISED_ANSWERS
    # Under another --root the id is free.
    other = bundles.runtime(program)
    look = ["cat", "/proc/self/uid_map"]
    bundle = bundles.write(spec_of(look, f"{name}-other"))
    done = other.call("run", "--bundle", str(bundle), name)
    assert done.stdout.split()[::2] == ["0", "65536"]
    assert done.stdout.split() != runtime.call("exec", name, *look).stdout.split()


def test_last_range_is_given_once(
    program: Path,
    bundles: Bundles,
    spec_of: Callable[..., Spec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ECI_RANGES", "100000:1")
    runtime = bundles.runtime(program)
    first, second = bundles.name(), bundles.name()
    for name in (first, second):
        bundles.expect(runtime, name)
    runtime.call("create", "--bundle", str(bundles.write(spec_of(SLEEP, first))), first)
    bundle = bundles.write(spec_of(["true"], second))
    done = runtime.call("run", "--bundle", str(bundle), second, check=False)
    assert done.returncode != 0
    assert "range" in done.stderr
    assert done.stderr.count("\n") == 1
    runtime.call("delete", "--force", first)
    runtime.call("run", "--bundle", str(bundle), second)


# -- ends that nobody planned -------------------------------------------------------------


def test_failed_hook_leaves_nothing(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    """The runtime fails after the container exists."""
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    spec = spec_of(["true"], name)
    spec["hooks"] = {"createRuntime": [{"path": "/bin/false", "args": ["false"]}]}
    done = runtime.call("create", "--bundle", str(bundles.write(spec)), name, check=False)
    assert done.returncode != 0
    # What the runtime keeps of its own, crun's cgroup for one, its own delete removes.
    runtime.call("delete", "--force", name, check=False)
    assert place.leftovers(before=before) == []


@pytest.mark.parametrize("milliseconds", [1, 20, 40, 60, 80, 100, 130, 160, 200, 250])
def test_kill_during_create_leaves_nothing(
    program: Path,
    bundles: Bundles,
    spec_of: Callable[..., Spec],
    place: Place,
    milliseconds: int,
) -> None:
    """Whenever SIGKILL comes, our part is cleaned, and the id can be used again."""
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    bundle = bundles.write(spec_of(SLEEP, name))
    with TemporaryFile() as stdio:
        process = subprocess.Popen(
            runtime.argv("create", "--bundle", str(bundle), name),
            stdin=stdio, stdout=stdio, stderr=stdio,
        )  # fmt: skip
        time.sleep(milliseconds / 1000)
        process.kill()
        process.wait()
    # An engine whose runtime died deletes by force.  Where runc had not yet written its state
    # it knows nothing of the container and answers so.
    runtime.call("delete", "--force", name, check=False)
    # runc's own init and cgroup, when runc itself was killed before it could record them, are
    # known to nobody but our keeper.
    left = place.leftovers(before=before)
    # Made again, also where something was left: the next test shall not find it.
    runtime.call("create", "--bundle", str(bundle), name)
    runtime.start(name)
    assert runtime.call("exec", name, *SUPERVISED).stdout.split() == SUPERVISED_ANSWERS
    runtime.call("delete", "--force", name)
    assert left == []
    assert place.leftovers(before=before) == []


def test_delete_of_what_never_began_is_not_hurried(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    """The hooks of a delete find the bundle, though nothing of the container is left by then."""
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    spec = spec_of(SLEEP, name)
    # Comes before ours, and gives the keeper the time to be too early.
    bundle = """$(sed -n 's/.*"bundle": *"\\([^"]*\\)".*/\\1/p')"""
    slow = ["sh", "-c", f"bundle={bundle}; sleep 0.3; test -e $bundle/config.json"]
    spec["hooks"] = {"poststop": [{"path": "/bin/sh", "args": slow}]}
    runtime.call("create", "--bundle", str(bundles.write(spec)), name)
    done = runtime.call("delete", "--force", name)
    assert done.stderr == ""
    assert place.leftovers(before=before) == []


def test_container_that_dies_alone_gives_its_range_back(
    program: Path, bundles: Bundles, spec_of: Callable[..., Spec], place: Place
) -> None:
    before = place.leftovers(patience=0)
    runtime = bundles.runtime(program)
    name = bundles.name()
    bundles.expect(runtime, name)
    runtime.call("create", "--bundle", str(bundles.write(spec_of(SLEEP, name))), name)
    runtime.start(name)
    pid = json.loads(runtime.call("state", name).stdout)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: json.loads(runtime.call("state", name).stdout)["status"] == "stopped",
        "the container does not end",
    )
    runtime.call("delete", name)
    assert place.leftovers(before=before) == []


@pytest.mark.slow
def test_fifty_containers_at_once(
    bundles: Bundles, programs: dict[str, Path], runtimes: dict[str, Path], place: Place
) -> None:
    """All alive at the same time, each mounting, each in a range of its own; then all gone."""
    before = place.leftovers(patience=0)
    assert "mnt" in programs
    runtime: Runtime = bundles.runtime(runtimes["eci"])
    shared = place.directory("v")
    sealed = place.directory("v")
    calls = "mount none /mnt tmpfs - - , write /mnt/x , mount - /mnt - MS_REMOUNT|MS_RDONLY - , "
    calls += "write /mnt/x , umount2 /mnt - , mount - /vol - MS_REMOUNT|MS_BIND - , write /vol/x"
    quoted = " ".join(f"'{word}'" for word in calls.split())
    script = (
        f"(mnt {quoted}; cat /proc/self/uid_map) > /out/$(hostname).part && "
        f"mv /out/$(hostname).part /out/$(hostname) && "
        f"until [ -e /out/go ]; do sleep 0.5; done; mnt {quoted} > /out/$(hostname).again"
    )
    names = [bundles.name() for _ in range(50)]
    for name in names:
        bundles.expect(runtime, name)
    waiting: list[subprocess.Popen[bytes]] = []
    with TemporaryFile() as stdio:
        for name in names:
            spec = make_spec(
                ["sh", "-c", script],
                cgroup=bundles.cgroup(name),
                privileged=True,
                mounts=[bind(shared, "/out"), bind(sealed, "/vol", "ro")],
            )
            spec["hostname"] = name
            bundle = bundles.write(spec)
            argv = runtime.argv("run", "--detach", "--bundle", str(bundle), name)
            waiting.append(subprocess.Popen(argv, stdin=stdio, stdout=stdio, stderr=stdio))
        failed = [name for name, one in zip(names, waiting, strict=True) if one.wait(100) != 0]
        stdio.seek(0)
        assert not failed, stdio.read().decode()
    answers = ["0", "0", "0", "EROFS", "0", "EPERM", "EROFS"]
    wait_until(lambda: all((shared / name).exists() for name in names), "not all came up", 60)
    bases = set()
    for name in names:
        *seen, inside, base, size = (shared / name).read_text().split()
        assert (seen, inside, size) == (answers, "0", "65536"), name
        bases.add(int(base))
    assert len(bases) == 50
    assert all((base - 100000) % 65536 == 0 for base in bases)
    (shared / "go").touch()
    again = [shared / f"{name}.again" for name in names]
    wait_until(
        lambda: all(path.exists() and path.read_text().split() == answers for path in again),
        "not all mounted again",
        60,
    )
    for name in names:
        runtime.call("delete", "--force", name)
    assert place.leftovers(patience=20, before=before) == []
    assert list(sealed.iterdir()) == []
