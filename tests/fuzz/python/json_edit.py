"""daemon.json edited as text: the value is what was meant, all else stays, and undone is undone."""

from __future__ import annotations

import copy
import json
from typing import Any

from eci_supervisor.engines import edits, json_text
from eci_supervisor.engines.edits import JsonEdit
from eci_supervisor.engines.errors import EngineError
from tests.fuzz.python.source import Source

STEPS = (
    ("default-runtime",),
    ("runtimes", "eci"),
    ("runtimes", "eci", "path"),
    ("features", "x"),
    ('ä\\"\n',),
)
VALUES: tuple[Any, ...] = ("eci", {"path": "/bin/eci"}, ["a"], {}, None, True, '\u2028"\\')


def _set(tables: dict[str, Any], steps: tuple[str, ...], value: Any) -> None:
    for step in steps[:-1]:
        tables = tables.setdefault(step, {})
    tables[steps[-1]] = copy.deepcopy(value)


def _take(tables: dict[str, Any], steps: tuple[str, ...]) -> None:
    for step in steps[:-1]:
        inner = tables.get(step)
        if not isinstance(inner, dict):
            return
        tables = inner
    tables.pop(steps[-1], None)


def one(data: bytes) -> None:
    """Some edits; the rest of the input is the file."""
    source = Source(data)
    wanted = [(source.number(len(STEPS)), source.number(2 * len(VALUES))) for _ in range(2)]
    text = source.rest()
    try:
        edit = JsonEdit("FILE", text)
        model = copy.deepcopy(edit.value)
        for at, what in wanted:
            if what < len(VALUES):
                edit.set(STEPS[at], VALUES[what])
                _set(model, STEPS[at], VALUES[what])
            else:
                edit.take(STEPS[at])
                _take(model, STEPS[at])
    except EngineError:
        return
    change = edit.change()
    if change is None:
        assert model == edit.value
        return
    assert json_text.load(change.after, "FILE")[1] == model
    assert edits.undo(change, change.after).data == text
    # Somebody has added a key of his own: it stays, and what was set goes.
    later, _ = json_text.load(change.after, "FILE")
    later = json_text.replace(later, ("own",), "1")
    undone = edits.undo(change, json_text.dump(later, text)).data
    expected = json.loads(json_text.load(text, "FILE")[0]) | {"own": 1}
    if undone is not None and all(key.before is None for key in change.keys):
        assert json_text.load(undone, "FILE")[1] == expected
