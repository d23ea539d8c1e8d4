"""What is changed in one file, and how it is taken back.  Pure.

A change holds the whole file as it was and as it became.  As long as nobody touches the file,
taking it back is exact.  Where an administrator has edited it meanwhile, only what we set is taken
back, value by value, and only where it still is what we set.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from eci_supervisor.engines import json_text, toml_text
from eci_supervisor.engines.errors import EngineError

Steps = tuple[str, ...]


class Key(msgspec.Struct, frozen=True):
    """One value that was set or taken out."""

    steps: Steps
    before: Any
    """None: there was none.  Of JSON the text, else the value."""
    after: Any
    """None: taken out."""


class Change(msgspec.Struct, frozen=True):
    """One file."""

    path: str
    kind: str
    """`json`, `toml`, `lines` (lines added at the end) or `own` (the file is ours)."""
    before: bytes | None
    """None: there was no file."""
    after: bytes
    keys: tuple[Key, ...] = ()
    made: tuple[Steps, ...] = ()
    """Objects or tables that were made for the keys, the outer first."""
    blocks: tuple[str, ...] = ()
    """Text that was appended, as it stands in the file."""


class Undone(msgspec.Struct, frozen=True):
    """What a file is to be without our change."""

    data: bytes | None
    note: str = ""
    """What could not be taken back exactly, for the administrator."""


def undo(change: Change, current: bytes | None) -> Undone:
    """Return what `current` is without `change`.  EngineError where it cannot be read any more."""
    if current in (change.before, change.after):
        return Undone(change.before)
    if current is None:
        return Undone(None, f"{change.path}: has been removed meanwhile, and stays so")
    note = f"{change.path}: was edited meanwhile: the edit stays, only our part is taken out"
    if change.kind == "json":
        data, left = _undo_json(change, current)
    elif change.kind == "toml":
        data, left = _undo_toml(change, current)
    else:
        return Undone(_undo_lines(change, current), note)
    kept = "".join(f"; {'.'.join(steps)} is no longer what we set, and stays" for steps in left)
    return Undone(data, note + kept)


def _undo_json(change: Change, current: bytes) -> tuple[bytes | None, list[Steps]]:
    text, _ = json_text.load(current, change.path)
    left = []
    for key in reversed(change.keys):
        member = json_text.find(text, key.steps)
        now = None if member is None else json.loads(text[member.value : member.end])
        if now != (None if key.after is None else json.loads(key.after)):
            left.append(key.steps)
        elif key.before is None:
            text = json_text.remove(text, key.steps)
        elif key.steps[:-1] and json_text.find(text, key.steps[:-1]) is None:
            left.append(key.steps)
        else:
            text = json_text.replace(text, key.steps, key.before)
    for steps in reversed(change.made):
        member = json_text.find(text, steps)
        if member is not None and json.loads(text[member.value : member.end]) == {}:
            text = json_text.remove(text, steps)
    if change.before is None and json.loads(text) == {}:
        return None, left
    return json_text.dump(text, current), left


def _undo_toml(change: Change, current: bytes) -> tuple[bytes | None, list[Steps]]:
    text, tables = toml_text.load(current, change.path)
    cut = toml_text.without_blocks(text, change.blocks)
    try:
        _, rest = toml_text.load(cut.encode(), change.path)
        text = cut
    except EngineError:
        rest = tables
    left = []
    back: dict[Steps, Any] = {}
    for key in reversed(change.keys):
        now = toml_text.find(rest, key.steps)
        if toml_text.find(tables, key.steps) != key.after:
            left.append(key.steps)
        elif now != key.before:
            back[key.steps] = key.before
    text, _ = toml_text.edit(text, back, change.path)
    text = toml_text.without_empty(text, list(change.made), change.path)
    if change.before is None and not text.strip():
        return None, left
    return toml_text.dump(text, current), left


def _undo_lines(change: Change, current: bytes) -> bytes | None:
    """Take the lines out that we added; of a file of ours nothing may be left but its frame."""
    old = (change.before or b"").splitlines()
    added = [line for line in change.after.splitlines() if line not in old and line.strip()]
    kept = [line for line in current.splitlines(keepends=True) if line.rstrip(b"\r\n") not in added]
    if change.before is None and not any(
        line.strip() and not line.lstrip().startswith((b"#", b"[")) for line in kept
    ):
        return None
    return b"".join(kept)


# -- making a change --------------------------------------------------------------------------


class JsonEdit:
    """An edit of a JSON file: `data`, None where there is none."""

    def __init__(self, path: str, data: bytes | None) -> None:
        """EngineError if it is no JSON object."""
        self.path = path
        self._data = data
        self.text, self.value = json_text.load(data or b"", path)
        self._keys: list[Key] = []
        self._made: list[Steps] = []

    def set(self, steps: Steps, value: Any) -> None:
        """Set one value, making the objects above it; EngineError where one is none."""
        for end in range(1, len(steps)):
            member = json_text.find(self.text, steps[:end])
            if member is None:
                self.text = json_text.replace(self.text, steps[:end], "{}")
                self._made.append(steps[:end])
            elif self.text[member.value] != "{":
                raise EngineError(self.where(steps[:end], "is no object"))
        raw = json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict):
            raw = raw.replace("{", "{ ").replace("}", " }") if value else "{}"
        member = json_text.find(self.text, steps)
        before = None if member is None else self.text[member.value : member.end]
        if before is not None and json.loads(before) == value:
            return
        self.text = json_text.replace(self.text, steps, raw)
        self._keys.append(Key(steps, before, raw))

    def take(self, steps: Steps) -> None:
        """Take one value out."""
        member = json_text.find(self.text, steps)
        if member is not None:
            before = self.text[member.value : member.end]
            self.text = json_text.remove(self.text, steps)
            self._keys.append(Key(steps, before, None))

    def where(self, steps: Steps, what: str) -> str:
        """Return a message about the value at `steps`."""
        line = json_text.line_of(self.text, steps)
        return f"{self.path}: line {line}: {'.'.join(steps)}: {what}"

    def change(self) -> Change | None:
        """Return the change, or None if nothing was to be done."""
        if not self._keys:
            return None
        after = json_text.dump(self.text, self._data)
        return Change(self.path, "json", self._data, after, tuple(self._keys), tuple(self._made))


class TomlEdit:
    """An edit of a TOML file: `data`, None where there is none."""

    def __init__(self, path: str, data: bytes | None) -> None:
        """EngineError if it is no TOML."""
        self.path = path
        self._data = data
        self.text, self.value = toml_text.load(data or b"", path)
        self._set: dict[Steps, Any] = {}

    def set(self, steps: Steps, value: Any) -> None:
        """Set one value; None takes it out.  The tables above it are made."""
        if toml_text.find(self.value, steps) != value:
            self._set[steps] = value

    def where(self, steps: Steps, what: str) -> str:
        """Return a message about the value at `steps`."""
        line = toml_text.line_of(self.text, steps[-1])
        return f"{self.path}: line {line}: {'.'.join(steps)}: {what}"

    def change(self) -> Change | None:
        """Return the change, or None if nothing was to be done; EngineError if it cannot be."""
        if not self._set:
            return None
        text, blocks = toml_text.edit(self.text, self._set, self.path)
        keys = tuple(
            Key(steps, toml_text.find(self.value, steps), value)
            for steps, value in self._set.items()
        )
        made = dict.fromkeys(
            steps[:end]
            for steps in self._set
            for end in range(1, len(steps))
            if toml_text.find(self.value, steps[:end]) is None
        )
        after = toml_text.dump(text, self._data)
        return Change(self.path, "toml", self._data, after, keys, tuple(made), blocks)
