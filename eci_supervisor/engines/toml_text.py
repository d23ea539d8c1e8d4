"""TOML as a person wrote it: one value is set or taken out, comments and order stay.

The work is tomlkit's.  What comes out is read again, by another parser, and compared with what was
meant; where tomlkit cannot keep the text, or puts something else in it, nothing is changed.  Pure.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections import Counter
from typing import Any

import msgspec

from eci_supervisor.engines.errors import EngineError

BOM = "\ufeff"


def load(data: bytes, source: str) -> tuple[str, dict[str, Any]]:
    """Return the text, without a byte-order mark, and its tables; EngineError if it is no TOML."""
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(10) + 1
        raise EngineError(f"{source}: line {line}: not UTF-8 text") from error
    try:
        return text, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise EngineError(f"{source}: not valid TOML: {error}") from error


def dump(text: str, before: bytes | None) -> bytes:
    """Return the bytes of `text`, with the byte-order mark that `before` had."""
    mark = BOM if before is not None and before.startswith(BOM.encode()) else ""
    return (mark + text).encode()


def find(tables: Any, steps: tuple[str, ...]) -> Any:
    """Return what is at `steps`, or None where there is nothing."""
    for step in steps:
        tables = tables.get(step) if isinstance(tables, dict) else None
    return tables


def line_of(text: str, word: str) -> int:
    """Return the line, from 1, of the first key or table header with `word` in it."""
    for number, line in enumerate(text.splitlines(), 1):
        if word in line.partition("#")[0]:
            return number
    return 1


class Part(msgspec.Struct):
    """One table as it stands in the file: its header line and what follows up to the next one."""

    steps: tuple[str, ...]
    """Its name; empty for what stands before the first header."""
    text: str


def parts(text: str) -> list[Part]:
    """Split a valid text at its headers; joined again they are the text.

    A line that begins like a header is one if what is before it is complete: it could stand in an
    array, or in a string of several lines.
    """
    starts = [0]
    for match in re.finditer(r"(?m)^[ \t]*\[", text):
        if match.start() and _is_complete(text[starts[-1] : match.start()]):
            starts.append(match.start())
    if re.match(r"[ \t]*\[", text):
        starts.insert(0, 0)
    pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [Part(_name(piece), piece) for piece in pieces]


def _is_complete(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _name(part: str) -> tuple[str, ...]:
    """Return the name in the header that a part begins with; empty where there is none."""
    if not re.match(r"[ \t]*\[", part):
        return ()
    tables: Any = tomllib.loads(part.splitlines()[0])
    steps: list[str] = []
    while tables:
        if isinstance(tables, list):
            return (*steps, "[]")  # one of an array of tables: nothing that we look for
        ((step, tables),) = tables.items()
        steps.append(step)
    return tuple(steps)


def edit(
    text: str, changes: dict[tuple[str, ...], Any], source: str
) -> tuple[str, tuple[str, ...]]:
    """Return `text` with each value at these steps set, or taken out (None), and what was appended.

    What is in a table that is there already is changed in its place; new tables are appended, as
    they are found again, whole, in the second result.  EngineError where the text cannot be kept.
    """
    expected = tomllib.loads(text)
    for steps, value in changes.items():
        put(expected, steps, value)
    newline = "\r\n" if "\r\n" in text and not re.search(r"(?<!\r)\n", text) else "\n"
    known = parts(text)
    new = {
        steps: value
        for steps, value in changes.items()
        if not _change_part(known, steps, value, newline, source)
    }
    out = "".join(part.text for part in known)
    if out and new and not out.endswith("\n"):
        out += newline
    blocks = []
    for lines in _blocks(new):
        blocks.append((newline if out.strip() else "") + newline.join(lines) + newline)
        out += blocks[-1]
    _check(text, out, expected, source, taken_out=None in changes.values())
    return out, tuple(blocks)


def _change_part(
    known: list[Part], steps: tuple[str, ...], value: Any, newline: str, source: str
) -> bool:
    """Set, or take out (None), a value in the part where it belongs; False where there is none."""
    if value is None:
        known[:] = [part for part in known if part.steps[: len(steps)] != steps]
    # The part with the longest name that leads to the value.
    owners = [part for part in known if part.steps == steps[: len(part.steps)] and part.text]
    for part in sorted(owners, key=lambda part: len(part.steps), reverse=True):
        own = find(tomllib.loads(part.text), steps[:-1])
        fits = isinstance(own, dict) and (
            steps[-1] in own
            or (part.steps == steps[:-1] and not isinstance(value, dict))
            or len(part.steps) < len(steps) - 1
        )
        if fits and (value is not None or steps[-1] in own):
            part.text = _edit_part(part.text, steps, value, newline, source)
            return True
    return value is None


def _edit_part(text: str, steps: tuple[str, ...], value: Any, newline: str, source: str) -> str:
    """Change one value in one part."""
    import tomlkit  # noqa: PLC0415 - slow to import, and only an edit needs it
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    work = text if text.endswith("\n") else text + newline
    try:
        document = tomlkit.parse(work)
        if document.as_string() != work:
            raise EngineError(f"{source}: is TOML that cannot be kept byte for byte")
        above = find(document, steps[:-1])
        if value is None:
            above.remove(steps[-1])
        else:
            above[steps[-1]] = value
        out: str = document.as_string()
    except (TOMLKitError, KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{source}: cannot be changed and kept as it is: {error}") from error
    return re.sub(r"(?<!\r)\n", "\r\n", out) if newline == "\r\n" else out


def without_blocks(text: str, blocks: tuple[str, ...]) -> str:
    """Take out of `text` what was appended, where it still stands there as it was."""
    for block in reversed(blocks):
        if text.count(block) == 1:
            text = text.replace(block, "")
    return text


def put(tables: dict[str, Any], steps: tuple[str, ...], value: Any) -> None:
    """Set, or take out (None), a value in plain tables, in place; ValueError if one is none."""
    *above, last = steps
    for step in above:
        if value is None and step not in tables:
            return
        tables = tables.setdefault(step, {})
        if not isinstance(tables, dict):
            raise ValueError(f"{step} is no table")  # noqa: TRY004 - it is the text that is wrong
    if value is None:
        tables.pop(last, None)
    else:
        tables[last] = copy.deepcopy(value)


def _key(step: str) -> str:
    return step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else '"' + step.replace('"', '\\"') + '"'


def _blocks(new: dict[tuple[str, ...], Any]) -> list[list[str]]:
    """Return the lines of the tables that hold these values, each table once."""
    import tomlkit  # noqa: PLC0415

    plain: dict[tuple[str, ...], list[str]] = {}
    for steps, value in new.items():
        if not isinstance(value, dict):
            line = f"{_key(steps[-1])} = {tomlkit.item(value).as_string()}"
            plain.setdefault(steps[:-1], []).append(line)
    # A table's own values come before the tables in it: that is how it has to be read.
    blocks = [
        [*([f"[{'.'.join(_key(step) for step in steps)}]"] if steps else []), *lines]
        for steps, lines in plain.items()
    ]
    return blocks + [
        _table(steps, value) for steps, value in new.items() if isinstance(value, dict)
    ]


def _table(steps: tuple[str, ...], table: dict[str, Any]) -> list[str]:
    import tomlkit  # noqa: PLC0415

    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"[{'.'.join(_key(step) for step in steps)}]"]
    lines += [f"{_key(key)} = {tomlkit.item(value).as_string()}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", *_table((*steps, key), value)]
    return lines


def _check(text: str, out: str, expected: dict[str, Any], source: str, *, taken_out: bool) -> None:
    """EngineError unless `out` means `expected`, with every comment that `text` has."""
    try:
        found = tomllib.loads(out)
    except tomllib.TOMLDecodeError:
        found = {"no": "TOML"}
    # With the last table in it goes a table that had no header of its own.
    same = _full(found) == _full(expected) if taken_out else found == expected
    if not same:
        raise EngineError(
            f"{source}: is written in a way that cannot be changed and kept as it is: give the "
            "runtimes tables of their own"
        )
    if not taken_out and (Counter(_comments(text)) - Counter(_comments(out))):
        raise EngineError(f"{source}: a comment in it would be lost by a change")


def _full(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the tables without those in which there is nothing."""
    found = {
        key: _full(value) if isinstance(value, dict) else value for key, value in tables.items()
    }
    return {key: value for key, value in found.items() if value != {}}


def _comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("#")]


def without_empty(text: str, made: list[tuple[str, ...]], source: str) -> str:
    """Take out those of the tables `made` that are empty, the inner ones first."""
    for steps in sorted(made, key=len, reverse=True):
        if find(tomllib.loads(text), steps) == {}:
            text, _ = edit(text, {steps: None}, source)
    return text
