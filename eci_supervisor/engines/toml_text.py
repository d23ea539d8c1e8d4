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


def edit(text: str, changes: dict[tuple[str, ...], Any], source: str) -> str:
    """Return `text` with each value at these steps set, or taken out (None).

    Tables on the way are made.  EngineError where the text cannot be kept.
    """
    import tomlkit  # noqa: PLC0415 - slow to import, and only an edit needs it
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    expected = tomllib.loads(text)
    for steps, value in changes.items():
        put(expected, steps, value)
    work = text if not text or text.endswith("\n") else text + "\n"
    try:
        document = tomlkit.parse(work)
        if document.as_string() != work:
            raise EngineError(f"{source}: is TOML that cannot be kept byte for byte")
        for steps, value in changes.items():
            above = find(document, steps[:-1])
            if value is None:
                if above is not None and steps[-1] in above:
                    above.remove(steps[-1])
            elif above is not None and (steps[-1] in above or not isinstance(value, dict)):
                above[steps[-1]] = value
            else:
                # A table of its own at the end looks as a person would have put it there.
                work = document.as_string()
                document = tomlkit.parse(work + _block(steps, value, work))
        out = document.as_string()
    except (TOMLKitError, KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{source}: cannot be changed and kept as it is: {error}") from error
    if "\r\n" in text and not re.search(r"(?<!\r)\n", text):
        out = re.sub(r"(?<!\r)\n", "\r\n", out)
    _check(text, out, expected, source, taken_out=None in changes.values())
    return out


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


def _block(steps: tuple[str, ...], value: Any, text: str) -> str:
    """Return the value at `steps` as tables of their own, for the end of `text`."""
    import tomlkit  # noqa: PLC0415

    if isinstance(value, dict):
        lines = _table(steps, value)
    else:
        header = ".".join(_key(step) for step in steps[:-1])
        lines = [f"[{header}]"] if header else []
        lines.append(f"{_key(steps[-1])} = {tomlkit.item(value).as_string()}")
    gap = "\n" if text.strip() and not text.endswith("\n\n") else ""
    return gap + "\n".join(lines) + "\n"


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
        same = tomllib.loads(out) == expected
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise EngineError(
            f"{source}: is written in a way that cannot be changed and kept as it is: give the "
            "runtimes tables of their own"
        )
    if not taken_out and (Counter(_comments(text)) - Counter(_comments(out))):
        raise EngineError(f"{source}: a comment in it would be lost by a change")


def _comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("#")]


def without_empty(text: str, made: list[tuple[str, ...]], source: str) -> str:
    """Take out those of the tables `made` that are empty, the inner ones first."""
    for steps in sorted(made, key=len, reverse=True):
        if find(tomllib.loads(text), steps) == {}:
            text = edit(text, {steps: None}, source)
    return text
