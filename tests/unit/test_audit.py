"""The audit log's lines: whole, bounded, escaped, and nobody waits for them."""

from __future__ import annotations

import gzip
import json
import re
import socket
from typing import TYPE_CHECKING

import hypothesis
import msgspec
import pytest
from eci_supervisor._eci import lib
from hypothesis import strategies as st

from eci_supervisor.cli.explain import lines
from eci_supervisor.kernel.ring import Event, Object
from eci_supervisor.observe import audit, calls, find, settings_log, tally
from eci_supervisor.observe.commands import BY_LIST, CommandLog
from eci_supervisor.observe.ids import new_id
from eci_supervisor.observe.limit import BURST, SECONDS, Limit
from eci_supervisor.policy import settings
from eci_supervisor.policy.refusals import HOST_NAMESPACE
from eci_supervisor.supervisor.trace import AUDIT_ARCH_I386, AUDIT_ARCH_X86_64

if TYPE_CHECKING:
    from pathlib import Path

EVIL = b"\x1b]0;gone\x07\n\xff\"'\\"
MOUNT = 165


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the log."""
    directory = tmp_path / "log"
    monkeypatch.setenv("ECI_LOG_DIR", str(directory))
    return directory


def entries(logs: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (logs / "audit.log").read_text().splitlines()]


def refused(**fields: object) -> audit.Record:
    record = audit.refusal("container", HOST_NAMESPACE)
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def event(**fields: object) -> Event:
    known: dict[str, object] = {
        "time_ns": 1_700_000_000_123_456_789,
        "spent_ns": 1000,
        "nr": MOUNT,
        "arch": AUDIT_ARCH_X86_64,
        "tid": 42,
        "args": (1, 2, 3, 0, 0, 0),
        "error": 1,
        "reason": lib.ECI_REASON_LOOSEN,
        "passed": False,
        "comm": b"sh",
        "texts": ((None, 0),) * 4,
    }
    return Event(**(known | fields))  # type: ignore[arg-type]


def test_ids_are_short_unique_and_in_the_order_of_time() -> None:
    made = [new_id(time * 1000) for time in range(0, 10**15, 10**12)]
    assert made == sorted(made)
    assert {len(name) for name in made} == {16}
    assert len({new_id(0) for _ in range(100)}) == 100
    assert all(re.fullmatch("[0-9a-hjkmnp-tv-z]+", name) for name in made)


def test_lines_are_appended_by_root_alone(logs: Path) -> None:
    assert audit.write(refused(container="a")) is None
    assert audit.write(refused(container="b")) is None
    assert [entry["container"] for entry in entries(logs)] == ["a", "b"]
    assert (logs / "audit.log").stat().st_mode & 0o777 == 0o600
    assert logs.stat().st_mode & 0o777 == 0o700


def test_bytes_of_a_container_are_escaped() -> None:
    texts = ((EVIL, len(EVIL)), (b"/x", 2), (EVIL, 4000), (None, -1))
    thing = Object(EVIL, len(EVIL), 1, 2, 3, 4)
    record = calls.record_of(event(comm=EVIL, texts=texts, target=thing), "id\x1b", "image\n")
    line = audit.line_of(record)
    assert re.fullmatch(rb"[ -~]+\n", line)
    found = json.loads(line)
    assert found["comm"] == r"\033]0;gone\007\n\377\"'\\"
    assert found["target"]["path"] == found["comm"]
    assert (found["container"], found["image"]) == (r"id\x1b", r"image\x0a")
    assert all(re.fullmatch("[ -~]+", text) for text in lines(record))


words = st.integers(0, 2**64 - 1)
strings = st.one_of(
    st.binary(max_size=lib.ECI_EVENT_STRING).map(lambda raw: (raw, len(raw))),
    st.tuples(st.just(EVIL * 32), st.integers(lib.ECI_EVENT_STRING, 5000)),
    st.sampled_from([(None, 0), (None, -1)]),
)
objects = st.one_of(
    st.none(),
    st.builds(Object, st.binary(max_size=lib.ECI_EVENT_STRING), st.integers(0, 9999), *[words] * 4),
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    event=st.builds(
        Event,
        time_ns=st.integers(0, 2**62),
        spent_ns=words,
        nr=st.one_of(st.sampled_from([165, 166, 21, 22, 52, 429, 431, 432, 442]), words),
        arch=st.sampled_from([AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, 0]),
        tid=st.integers(0, 2**31 - 1),
        args=st.tuples(*[words] * 6),
        error=st.integers(0, 600),
        reason=st.integers(0, 40),
        passed=st.booleans(),
        comm=st.binary(max_size=16),
        texts=st.tuples(*[strings] * 4),
        source=objects,
        target=objects,
    ),
    container=st.text(max_size=300),
)
def test_whatever_a_container_does_is_one_plain_line(event: Event, container: str) -> None:
    line = audit.line_of(calls.record_of(event, container, container))
    assert len(line) <= audit.LINE
    assert re.fullmatch(rb"[ -~]+\n", line)
    assert json.loads(line).get("pid", 0) == event.tid
    assert re.fullmatch("[ -~]+", calls.json_of(event, container))
    assert re.fullmatch("[ -~]+", calls.line(event, container))


def test_a_line_is_never_longer_than_a_pipe_takes_at_once() -> None:
    worst = b"\x01" * lib.ECI_EVENT_STRING
    thing = Object(worst, 5000, 1, 2, 3, 4)
    texts = ((worst, 5000),) * 4
    record = calls.record_of(event(texts=texts, source=thing, target=thing), "c" * 2000, "i" * 9000)
    record.message = "m" * 9000
    line = audit.line_of(record)
    assert len(line) <= audit.LINE
    found = json.loads(line)
    assert found["target"]["inode"] == 4
    assert found["call"].startswith('mount("')


def test_a_full_log_is_put_away_and_few_are_kept(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SIZE", 4000)
    for number in range(200):
        assert audit.write(refused(call=str(number))) is None
    names = sorted(path.name for path in logs.iterdir())
    assert names == ["audit.log", *(f"audit.log.{n + 1}" for n in range(audit.KEPT))]
    assert all(path.stat().st_size < 4000 + audit.LINE for path in logs.iterdir())
    assert entries(logs)[-1]["call"] == "199"


def test_a_rotated_log_is_begun_anew_and_found_again(logs: Path) -> None:
    first, second = refused(), refused()
    audit.write(first)
    with gzip.open(logs / "audit.log-20261130.gz", "wb") as packed:
        packed.write((logs / "audit.log").read_bytes())
    (logs / "audit.log").unlink()
    audit.write(second)
    assert [entry["id"] for entry in entries(logs)] == [second.id]
    found = [record for path in find.logs(str(logs)) for record in find.records(path, first.id)]
    assert [record.id for record in found] == [first.id]


def test_half_a_line_spoils_no_other(logs: Path) -> None:
    audit.write(refused(call="one"))
    with (logs / "audit.log").open("ab") as file:
        file.write(b'{"time":"2026')
    audit.write(refused(call="two"))
    found = [record.call for record in find.records(str(logs / "audit.log"))]
    assert found == ["one", "two"]


def test_a_log_that_is_a_link_is_not_followed(logs: Path, tmp_path: Path) -> None:
    logs.mkdir()
    (logs / "audit.log").symlink_to(tmp_path / "victim")
    assert "audit.log" in str(audit.write(refused()))
    assert not (tmp_path / "victim").exists()


def test_syslog_hears_of_it_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Path
) -> None:
    path = str(tmp_path / "syslog")
    monkeypatch.setenv(audit.SWITCH, path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(path)
        record = refused(container="web")
        assert audit.write(record) is None
        data = log.recv(8192)
        assert data.startswith(b'<85>eci: {"time":')
        assert json.loads(data[9:])["id"] == record.id
        # Nobody reads any more: its queue is full soon.
        for _ in range(2000):
            assert audit.write(refused(message="m" * 1000)) is None
    assert audit.write(refused(call="last")) is None, "nobody listens"
    assert entries(logs)[-1]["call"] == "last"


def test_the_journal_gets_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Path
) -> None:
    path = str(tmp_path / "journal")
    monkeypatch.delenv(audit.SWITCH)
    monkeypatch.setattr(audit, "JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(path)
        record = refused(container="a b\\n")
        audit.write(record)
        fields = dict(line.split("=", 1) for line in log.recv(8192).decode().splitlines())
    assert json.loads(fields.pop("MESSAGE")) == entries(logs)[0]
    assert fields["ECI_ID"] == record.id
    assert fields["ECI_REASON"] == HOST_NAMESPACE
    assert (fields["SYSLOG_IDENTIFIER"], fields["PRIORITY"]) == ("eci", "5")


def test_limit_counts_what_it_leaves_out() -> None:
    limit = Limit()
    assert sum(limit.allows(100.0) for _ in range(BURST + 50)) == BURST
    assert limit.left_out == 50
    assert not limit.allows(100.0 + SECONDS / 2)
    assert limit.allows(100.0 + SECONDS)
    assert limit.tell() == 51
    assert limit.tell() == 0
    assert sum(limit.allows(1e9) for _ in range(BURST + 50)) == BURST, "room does not pile up"


class Command(msgspec.Struct):
    """A request that was not passed on."""

    container: str = "web"
    method: str = "POST"
    target: str = "/v1.43/images/x/push?\x1b"
    message: str = f"is blocked; if you wish to allow it, {BY_LIST}"


def test_refused_commands_are_recorded_within_a_limit(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECI_STATE_DIR", str(tmp_path / "state"))
    assert set(tally.read().values()) == {0}
    log = CommandLog("web", image="cli")
    log(Command())
    log(Command(message="no device of the host is given"))
    for _ in range(BURST + 1):
        log(Command())
    log.close()
    log.close()
    first, other, *_, last = entries(logs)
    assert len(entries(logs)) == BURST + 1
    assert (other["reason"], "setting" in other) == ("refused:request", False)
    assert (first["of"], first["reason"]) == ("command", "refused:command")
    assert first["call"] == r"POST /v1.43/images/x/push?\x1b"
    assert (first["container"], first["image"]) == ("web", "cli")
    assert str(first["setting"]).endswith("commandList")
    assert (last["event"], last["left_out"]) == ("left-out", 3)
    counted = {reason: number for reason, number in tally.read().items() if number}
    assert counted == {"refused:command": BURST + 2, "refused:request": 1}


def test_a_change_of_the_settings_is_told_once(logs: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "state")
    before = settings.Settings()
    now = settings.parse(b'{"vm": {"protectedPaths": ["/srv"]}}', "x")
    for one in (before, before, now, now):
        settings_log.note(root, one, "/etc/x.json")
    settings_log.note(root, before, "/etc/another.json")
    first, second, other = entries(logs)
    assert {entry["event"] for entry in entries(logs)} == {"policy-change"}
    assert "before" not in first
    assert second["before"] == first["sha256"] != second["sha256"]
    assert second["changed"] == ["vm.protectedPaths"]
    assert (other["settings"], other["sha256"]) == ("/etc/another.json", first["sha256"])


def test_settings_that_cannot_be_noted_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    settings_log.note(str(tmp_path / "state"), settings.Settings(), "x")


def test_explain_says_all_there_is() -> None:
    record = refused(container="web", message="no", pid=3)
    said = dict(line.split(maxsplit=1) for line in lines(record))
    assert said["reason"] == HOST_NAMESPACE
    assert said["setting"] == "none would allow it"
    assert {"rule", "instead", "when", "message", "who", "refusal"} <= set(said)


def test_the_limit_of_a_keeper_outlives_its_rest() -> None:
    limit = Limit()
    for _ in range(BURST + 2):
        limit.allows(5.0)
    kept = msgspec.json.decode(msgspec.json.encode(limit), type=Limit)
    assert not kept.allows(5.0)
    assert kept.tell() == 3
