"""Request targets, taken apart as the engine takes them."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.policy.api_target import (
    TargetError,
    clean,
    is_libpod,
    names_of,
    parse,
    route_of,
    values_of,
)

NAMES = st.sampled_from(
    ["", ".", "..", "images", "containers", "a", "x:y", "push", "json", "v1.41", "ä", "%", "..."]
)
PATHS = st.lists(NAMES, max_size=8).map(lambda names: "/" + "/".join(names))


@st.composite
def spellings(draw: st.DrawFn) -> bytes:
    """Some way to write a path: each byte as it is, or percent-encoded in either case."""
    written = b""
    for byte in draw(PATHS).encode():
        one = bytes([byte])
        plain = 0x21 <= byte < 0x7F and one not in b'%?#"'
        ways = [b"%%%02X" % byte, b"%%%02x" % byte, *([one] if plain else [])]
        written += draw(st.sampled_from(ways if one not in b"/." else [one, *ways]))
    if not written.startswith(b"/"):
        written = b"http://docker/" + written
    return written


@given(spellings())
def test_what_is_sent_on_is_what_was_judged(target: bytes) -> None:
    parsed = parse(target)
    again = parse(str(parsed).encode())
    assert again == parsed or not parsed.is_clean
    assert again.is_clean
    assert again.path == parsed.path
    assert unquote_to_bytes(str(parsed)).decode() == parsed.path
    assert parsed.sent == str(parsed)  # no query here


@given(spellings())
def test_no_spelling_leads_elsewhere(target: bytes) -> None:
    path = parse(target).path
    assert path.startswith("/")
    assert not {"", ".", ".."} & set(path[1:].split("/")[:-1])
    assert path.split("/")[-1] not in {".", ".."}


@given(st.binary(max_size=40))
def test_any_bytes_are_a_target_or_an_error(target: bytes) -> None:
    try:
        parsed = parse(b"/" + target)
    except TargetError:
        return
    str(parsed).encode("ascii")
    route_of("GET", parsed)


@pytest.mark.parametrize(
    ("query", "names", "values"),
    [
        ("", [], []),
        ("path=a", ["path"], ["a"]),
        ("path=a&&b&path", ["path", "b", "path"], ["a", ""]),
        # As Go read it before 1.17, and `+` for a space.
        ("b=1;path=x+y", ["b", "path"], ["x y"]),
        ("p%61th=%2e&path%3Da=1", ["path", "path=a"], ["."]),
        ("path=%ff", ["path"], ["\ufffd"]),
    ],
)
def test_every_reading_of_a_query_counts(query: str, names: list[str], values: list[str]) -> None:
    assert names_of(query) == names
    assert values_of(query, "path") == values


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/libpod/info", False),
        ("/v4.0.0/libpod/info", True),
        ("/anything/libpod", True),
        ("/v4/libpods/x", False),
        ("/", False),
    ],
)
def test_what_podman_takes_for_its_own(path: str, *, answer: bool) -> None:
    assert is_libpod(path) == answer


@given(PATHS)
def test_cleaning_is_idempotent(path: str) -> None:
    assert clean(clean(path)) == clean(path)


@pytest.mark.parametrize(
    ("target", "shown", "is_clean"),
    [
        ("/info", "/info", True),
        ("/v1.41/info?a=b%20c", "/v1.41/info?a=b%20c", True),
        ("http://docker/info?x", "/info?x", True),
        ("HTTP://user@host:1/info", "/info", True),
        ("http://docker", "/", True),
        ("http://docker?x=1", "/?x=1", True),
        ("//images/x/push", "/images/x/push", False),
        ("/images//x/push", "/images/x/push", False),
        ("/./images/x/push", "/images/x/push", False),
        ("/a/../images/x/push", "/images/x/push", False),
        ("/../../images/x/push", "/images/x/push", False),
        ("/images/x/push/.", "/images/x/push", False),
        ("/images/x/push/", "/images/x/push/", True),
        ("/images/x/push//", "/images/x/push/", False),
        ("/images/x/%70ush", "/images/x/push", True),
        ("/%69mages/x/push", "/images/x/push", True),
        ("/images%2Fx%2fpush", "/images/x/push", True),
        ("/images/x/a%2F%2e%2E%2Fpush", "/images/x/push", False),
        ("/images/x/%2570ush", "/images/x/%2570ush", True),
        ("/images/x%3Fy/push?z", "/images/x%3Fy/push?z", True),
        ("/images/x;y/push", "/images/x;y/push", True),
        ("/images/ä/push".encode().decode("latin-1"), None, True),
        ("/images/%C3%A4/push", "/images/%C3%A4/push", True),
        ("/info?", "/info", True),
        ("/info??x", "/info??x", True),
    ],
)
def test_spellings(target: str, shown: str | None, *, is_clean: bool) -> None:
    if shown is None:
        with pytest.raises(TargetError, match="percent-encoded"):
            parse(target.encode("latin-1"))
        return
    parsed = parse(target.encode("latin-1"))
    assert str(parsed) == shown
    assert parsed.is_clean == is_clean


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"info",
        b"docker:2375",
        b"/a b",
        b"/a\tb",
        b"/a\x00",
        b"/a#b",
        b"/a%",
        b"/a%zz",
        b"/a%2",
        b"/a%00b",
        b"/a%0ab",
        b"/a%7f",
        b"/a%ff",
        quote_from_bytes(b"/\xc3", safe="/").encode(),
    ],
)
def test_what_no_client_sends_is_an_error(target: bytes) -> None:
    with pytest.raises(TargetError):
        parse(target)
