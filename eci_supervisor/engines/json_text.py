"""JSON as a person wrote it: one value is set or taken out, every other byte stays.

The new text looks like what stands around it: indentation, line ends, the space after a colon.
Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec

from eci_supervisor.engines.errors import EngineError

BOM = "\ufeff"
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_UNIT = "  "


class Member(msgspec.Struct):
    """One `"key": value` of an object; positions are indices into the text."""

    key: str
    start: int
    """Of the key."""
    value: int
    end: int


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key "{twin}" stands there twice')
    return found


def load(data: bytes, source: str) -> tuple[str, dict[str, Any]]:
    """Return the text, without a byte-order mark, and the object that it is.

    White space alone is an empty object.  EngineError for all else that is no JSON object, with
    the line.
    """
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(10) + 1
        raise EngineError(f"{source}: line {line}: not UTF-8 text") from error
    if not text.strip(" \t\r\n"):
        return "{}\n", {}
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        hint = "; comments are not JSON" if re.match(r"\s*(//|/\*|#)", text[error.pos :]) else ""
        raise EngineError(f"{source}: line {error.lineno}: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{source}: {error}") from error
    if not isinstance(value, dict):
        raise EngineError(f"{source}: is no JSON object")
    return text, value


def dump(text: str, before: bytes | None) -> bytes:
    """Return the bytes of `text`, with the byte-order mark that `before` had."""
    mark = BOM if before is not None and before.startswith(BOM.encode()) else ""
    return (mark + text).encode()


# -- finding ----------------------------------------------------------------------------------


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def members(text: str, at: int) -> list[Member]:
    """Return the members of the object that begins at `at`.  The text is valid JSON."""
    found = []
    at = _after_space(text, at + 1)
    while text[at] != "}":
        start = at
        key, at = _DECODER.raw_decode(text, at)
        value = _after_space(text, _after_space(text, at) + 1)
        _, end = _DECODER.raw_decode(text, value)
        found.append(Member(key, start, value, end))
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def find(text: str, steps: tuple[str, ...]) -> Member | None:
    """Return the member at `steps`, or None where there is none."""
    at = _after_space(text, 0)
    found = None
    for step in steps:
        if text[at] != "{":
            return None
        found = next((member for member in members(text, at) if member.key == step), None)
        if found is None:
            return None
        at = found.value
    return found


def line_of(text: str, steps: tuple[str, ...]) -> int:
    """Return the line, from 1, of the member at `steps`, or of the innermost one that is there."""
    while steps:
        member = find(text, steps)
        if member is not None:
            return text.count("\n", 0, member.start) + 1
        steps = steps[:-1]
    return 1


# -- changing ---------------------------------------------------------------------------------


def replace(text: str, steps: tuple[str, ...], raw: str) -> str:
    """Put the JSON `raw` in the place of the value at `steps`, or insert it there.

    What is above it is there, and an object: ValueError otherwise.
    """
    member = find(text, steps)
    if member is not None:
        return text[: member.value] + raw + text[member.end :]
    at = _after_space(text, 0)
    if steps[:-1]:
        above = find(text, steps[:-1])
        if above is None:
            raise ValueError(steps)
        at = above.value
    if text[at] != "{":
        raise ValueError(steps)
    key = json.dumps(steps[-1], ensure_ascii=False)
    known = members(text, at)
    if not known:
        return _insert_first(text, at, f"{key}: {raw}")
    last = known[-1]
    if len(known) == 1:
        lead = text[at + 1 : last.start]
    else:
        gap = text[known[-2].end : last.start]
        lead = gap[gap.index(",") + 1 :]
    _, key_end = _DECODER.raw_decode(text, last.start)
    colon = text[key_end : last.value]
    return text[: last.end] + "," + lead + key + colon + raw + text[last.end :]


def _insert_first(text: str, at: int, member: str) -> str:
    """Insert the only member of an object; on lines of its own if others have lines."""
    end = text.index("}", at)
    newline = "\r\n" if "\r\n" in text else "\n"
    line = text[text.rfind("\n", 0, at) + 1 : at]
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    if "\n" not in text.strip("\r\n \t") and at != _after_space(text, 0):
        return text[: at + 1] + member + text[end:]
    unit = _unit(text)
    return f"{text[: at + 1]}{newline}{indent}{unit}{member}{newline}{indent}{text[end:]}"


def _unit(text: str) -> str:
    """Return by how much the text's first indented member is indented."""
    match = re.search(r'\n([ \t]+)"', text)
    return match[1] if match else _UNIT


def remove(text: str, steps: tuple[str, ...]) -> str:
    """Take out the member at `steps`, with its comma; nothing where there is none."""
    member = find(text, steps)
    if member is None:
        return text
    at = _after_space(text, 0)
    if steps[:-1]:
        above = find(text, steps[:-1])
        if above is None:
            return text
        at = above.value
    known = members(text, at)
    index = next(i for i, other in enumerate(known) if other.start == member.start)
    if index > 0:
        return text[: known[index - 1].end] + text[member.end :]
    if len(known) > 1:
        return text[: member.start] + text[known[1].start :]
    return text[: at + 1] + text[_after_space(text, member.end) :]
