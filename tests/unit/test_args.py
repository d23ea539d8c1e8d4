"""The command lines of runc and crun, as the wrapper reads and rewrites them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.runtime.args import Invocation, log_flags, parse
from eci_supervisor.runtime.errors import UsageError

CWD = "/given/dir"


def read(runtime: str, line: str) -> Invocation:
    return parse(runtime, line.split(), CWD)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("spelling", ["--bundle /b", "--bundle=/b", "-b /b"])
def test_bundle_is_replaced_however_it_is_spelled(runtime: str, spelling: str) -> None:
    call = read(runtime, f"--log /l create {spelling} --no-pivot c1")
    assert (call.bundle, call.config, call.container_id) == ("/b", "/b/config.json", "c1")
    assert call.with_bundle("/n") == [
        *(runtime, "--log", "/l", "create", "--bundle", "/n", "--no-pivot", "c1")
    ]


def test_bundle_defaults_to_the_working_directory() -> None:
    assert read("runc", "run c1").bundle == CWD
    assert read("crun", "run -b sub c1").bundle == f"{CWD}/sub"


def test_engines_call_as_containerd_spells_it() -> None:
    line = (
        "--root /var/run/docker/runtime-runc/moby --log /d/log.json --log-format json "
        "--systemd-cgroup create --bundle /d --pid-file /d/init.pid --console-socket /t/pty.sock id"
    )
    call = read("runc", line)
    assert call.root == "/var/run/docker/runtime-runc/moby"
    assert (call.log, call.log_format) == ("/d/log.json", "json")
    words = call.with_bundle("/n")
    assert words[:8] == ["runc", *line.split()[:7]]
    assert words[8:] == [
        *("create", "--bundle", "/n", "--console-socket", "/t/pty.sock"),
        *("--pid-file", "/d/init.pid", "id"),
    ]


def test_relative_paths_keep_their_meaning_in_another_bundle() -> None:
    line = "create -b /b --pid-file p --console-socket s c1"
    assert (read("runc", line).pid_file, read("crun", line).pid_file) == (f"{CWD}/p", "/b/p")
    assert read("runc", line).console_socket == read("crun", line).console_socket == "/b/s"


def test_crun_takes_joined_cut_and_late_flags() -> None:
    call = read("crun", "--cgroup-m=cgroupfs run -db/b c1 --pid /p")
    assert (call.bundle, call.pid_file) == ("/b", "/p")
    assert call.with_bundle("/n")[1:] == [
        *("--cgroup-m=cgroupfs", "run", "--bundle", "/n", "--pid-file", "/p", "-d", "c1")
    ]


def test_crun_config_is_seen_from_the_bundle_and_not_passed_on() -> None:
    call = read("crun", "run -f other.json -b /b c1")
    assert call.config == "/b/other.json"
    assert "other.json" not in call.with_bundle("/n")


def test_runc_takes_single_dashes_and_stops_at_the_id() -> None:
    call = read("runc", "-root /r run -bundle /b -detach c1")
    assert (call.root, call.bundle, call.words) == ("/r", "/b", ("-detach", "c1"))
    with pytest.raises(UsageError):
        read("runc", "run c1 --detach")


def test_default_roots_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert read("runc", "run c1").root == "/run/runc"
    assert read("crun", "run c1").root == "/run/crun"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert read("crun", "run c1").root == "/run/crun"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert read("runc", "run c1").root == "/run/runc"
    assert read("crun", "run c1").root == "/run/user/0/crun"
    assert read("crun", "--root /r run c1").root == "/r"


def test_settings_are_ours_alone() -> None:
    call = read("runc", "--settings /s.json run c1")
    assert call.settings == "/s.json"
    assert "/s.json" not in call.with_bundle("/n")


@pytest.mark.parametrize(
    "line",
    ["", "state c1", "run", "run a b", "run --nonsense c1", "create --bundle", "--nonsense run c1"],
)
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_what_the_runtime_would_refuse_is_refused(runtime: str, line: str) -> None:
    with pytest.raises(UsageError):
        read(runtime, line)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_hyphen_alone_is_no_flag(runtime: str) -> None:
    with pytest.raises(UsageError, match="sub-commands"):
        parse(runtime, ["-", "create", "x"], "/c")


def test_help_is_the_only_thing_that_is_handed_on_then() -> None:
    # Never the whole line: `--help=false` would make a container that is not protected.
    assert read("runc", "run --help=false c1").help == ("run", "--help")
    assert read("crun", "--version run c1").help == ("--version",)
    assert read("runc", "run c1").help is None


def test_log_is_found_in_lines_that_cannot_be_read() -> None:
    assert log_flags(["--nonsense", "--log=/l", "--log-format", "json", "run"]) == ("/l", "json")
    assert log_flags(["run"]) == (None, None)


WORDS = st.text("abz/.=-", min_size=1, max_size=6)


@given(st.lists(st.sampled_from(["--no-pivot", "--keep", "--detach", "--no-new-keyring"])), WORDS)
def test_other_flags_reach_the_runtime_in_order(flags: list[str], bundle: str) -> None:
    call = parse("runc", ["run", *flags, f"--bundle={bundle}", "c1"], CWD)
    assert call.with_bundle("/n")[4:] == [*flags, "c1"]


@given(st.sampled_from(["runc", "crun"]), st.lists(WORDS, max_size=8))
def test_any_line_is_read_or_refused(runtime: str, words: list[str]) -> None:
    try:
        parse(runtime, ["run", *words], CWD)
    except UsageError:
        return


@pytest.mark.parametrize(
    ("runtime", "words", "given"),
    [
        (
            "runc",
            "--root /r --settings /s create -b /b --pid-file p x",
            "runc --root /r create --bundle /b --pid-file /c/p x",
        ),
        (
            "crun",
            "--settings=/s run -b /b -f other.json x",
            "crun run --config /b/other.json --bundle /b x",
        ),
        ("crun", "create --bundle=/b x", "crun create --bundle /b x"),
    ],
)
def test_an_unprotected_container_is_made_as_it_was_asked_for(
    runtime: str, words: str, given: str
) -> None:
    assert parse(runtime, words.split(), "/c").as_given() == given.split()
