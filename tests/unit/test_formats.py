"""What one version leaves to another: the keeper's knowledge, and the record of a container."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, get_args, get_type_hints

import msgspec
import pytest
from eci_supervisor._eci import ffi

import eci_supervisor
from eci_supervisor.runtime import cleanup, state
from eci_supervisor.supervisor import rest

if TYPE_CHECKING:
    from pathlib import Path

CROSSING = {1: "beae509d53e755d5"}
"""FORMAT -> a sum of all that has that number."""
STRUCTS = ("eci_ring", "eci_event", "eci_object", "eci_watch", "eci_counts")
EARLIEST = (
    b'{"id":"c","key":"c-1","nonce":"n","runtime":"runc","runtime_root":"/r","base":1,"size":2}'
)
"""container.json with nothing but what has been in it from the beginning."""


def _forms(struct: type[msgspec.Struct], known: dict[str, list[str]]) -> None:
    """Put the fields of a struct, and of those in it, into `known`."""
    hints = get_type_hints(struct)
    fields = msgspec.structs.fields(struct)
    known[struct.__name__] = [f"{one.name}: {hints[one.name]} {one.required}" for one in fields]
    left = list(hints.values())
    while left:
        hint = left.pop()
        left += get_args(hint)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            _forms(hint, known)


def test_what_crosses_has_the_form_that_its_number_says() -> None:
    """A field with a default keeps the number; everything else needs a new one: rest.py."""
    layouts = {
        name: [
            (field, where.offset, where.type.cname)
            for field, where in ffi.typeof(f"struct {name}").fields
        ]
        for name in STRUCTS
    }
    forms: dict[str, list[str]] = {}
    _forms(rest.Knowledge, forms)
    form = [forms, layouts]
    digest = hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:16]
    assert {state.FORMAT: digest}.items() <= CROSSING.items(), (
        "raise FORMAT and add it to supervisor/formats, unless all that is new has a default; then"
        f" {digest} is the sum of {state.FORMAT}"
    )


def test_what_is_written_is_read() -> None:
    assert state.FORMAT in state.formats()


def test_knowledge_of_another_format_is_not_looked_into() -> None:
    with pytest.raises(ValueError, match="format 97, and this is"):
        rest.recall(["-1", "97", "0", "-1"])


def test_record_of_the_first_version_is_read(tmp_path: Path) -> None:
    (tmp_path / state.RECORD).write_bytes(EARLIEST)
    record = state.read_record(str(tmp_path))
    assert record is not None
    assert (record.id, record.version, record.format) == ("c", "", 1)


def test_record_of_a_later_version_is_read(tmp_path: Path) -> None:
    later = json.loads(EARLIEST) | {"version": "9.9", "format": 97, "unheard_of": {"a": [1]}}
    (tmp_path / state.RECORD).write_text(json.dumps(later))
    record = state.read_record(str(tmp_path))
    assert record is not None
    assert (record.version, record.format) == ("9.9", 97)


def test_container_whose_record_cannot_be_read_is_not_gone(tmp_path: Path) -> None:
    """Its ID range would be given to the next one while it may run."""
    record = tmp_path / state.RECORD
    record.write_text('{"id": 7}')
    assert not cleanup.is_gone(str(tmp_path))
    record.unlink()
    assert cleanup.is_gone(str(tmp_path))


def test_programs_of_another_version_are_not_rested_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the keeper stays what it is."""
    pinned = rest.pin()
    assert pinned is not None
    for fd in (pinned.keeper, pinned.cleanup):
        os.close(fd)
    file = tmp_path / "formats"
    file.write_text("97\n")
    monkeypatch.setattr(state, "FORMATS", str(file))
    assert rest.pin() is None
    file.unlink()
    assert rest.pin() is None


def test_version_is_that_of_the_distribution() -> None:
    assert version("eci-supervisor") == eci_supervisor.__version__
