"""config.toml and containers.conf edited as text: as json_edit, and no comment is lost."""

from __future__ import annotations

import tomllib
from typing import Any

from eci_supervisor.engines import edits, toml_text
from eci_supervisor.engines.edits import TomlEdit
from eci_supervisor.engines.errors import EngineError
from tests.fuzz.python.source import Source

_CRI = ("plugins", "io.containerd.grpc.v1.cri", "containerd")
STEPS = (
    ("engine", "runtime"),
    (*_CRI, "default_runtime_name"),
    (*_CRI, "runtimes", "runc", "options", "BinaryName"),
    (*_CRI, "runtimes", "eci"),
    ("top",),
)
VALUES: tuple[Any, ...] = (
    "eci",
    ["/bin/eci-runtime", 'a"b\\c'],
    {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": "/bin/eci"}},
    None,
    True,
)


def one(data: bytes) -> None:
    """Some edits; the rest of the input is the file."""
    source = Source(data)
    wanted = [(source.number(len(STEPS)), source.number(len(VALUES))) for _ in range(2)]
    text = source.rest()
    try:
        edit = TomlEdit("FILE", text)
        joined = "".join(part.text for part in toml_text.parts(edit.text))
        assert joined == edit.text
        for at, what in wanted:
            edit.set(STEPS[at], VALUES[what])
        change = edit.change()
    except EngineError:
        return
    if change is None:
        return
    after = toml_text.load(change.after, "FILE")[1]
    for key in change.keys:
        assert toml_text.find(after, key.steps) == key.after
    for line in edit.text.splitlines():
        if line.lstrip().startswith("#") and None not in [key.after for key in change.keys]:
            assert line.strip().encode() in change.after
    assert edits.undo(change, change.after).data == text
    try:
        undone = edits.undo(change, change.after + b"\n# mine\n").data
    except EngineError:
        return
    if undone is not None:
        tomllib.loads(undone.decode().removeprefix(toml_text.BOM))
        assert b"# mine" in undone
