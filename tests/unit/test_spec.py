"""config.json: read with care, unknown keys kept."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import SpecError


def test_unknown_keys_and_large_numbers_are_kept() -> None:
    text = {"root": {"path": "r", "x": [1, None]}, "new": {"limit": 2**64 - 1}, "z": "\u2028"}
    assert json.loads(oci.dumps(oci.loads(json.dumps(text).encode()))) == text


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"root": {}}', b'{"root": "x"}', b"\xff"]
)
def test_what_is_no_spec_is_an_error(data: bytes) -> None:
    with pytest.raises(SpecError, match=r"^config\.json: "):
        oci.loads(data)


def test_parts_have_types() -> None:
    spec: dict[str, Any] = {"a": {"b": None, "c": [1], "d": True}}
    assert oci.part(spec, "a.b", dict) == {}
    assert oci.part(spec, "a.b.c.d", list) == []
    assert oci.items(spec, "a.c", int) == [1]
    for key, kind, words in (
        ("a.c", dict, "a.c: expected an object"),
        ("a.c.d", dict, "a.c: expected an object"),
        ("a.d", int, "a.d: expected an integer"),
    ):
        with pytest.raises(SpecError, match=words):
            oci.part(spec, key, kind)
    with pytest.raises(SpecError, match=r"a\.c\[0\]: expected a string"):
        oci.items(spec, "a.c", str)


def test_namespaces() -> None:
    entries: list[dict[str, Any]] = [{"type": "pid"}, {"type": "network", "path": "/n"}]
    assert oci.namespaces({"linux": {"namespaces": entries}}) == {"pid": "", "network": "/n"}
    for bad in ({"type": "what"}, {"type": "pid"}, {}, {"type": 1}):
        with pytest.raises(SpecError, match=r"linux\.namespaces\[2\]"):
            oci.namespaces({"linux": {"namespaces": [*entries, bad]}})


@pytest.mark.parametrize(
    "entry",
    [
        {"containerID": 0, "hostID": 1, "size": 0},
        {"containerID": -1, "hostID": 1, "size": 1},
        {"containerID": 0, "hostID": 2**32 - 1, "size": 1},
        {"containerID": True, "hostID": 1, "size": 1},
    ],
)
def test_mappings_that_are_none(entry: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"m\[0\]"):
        oci.mappings([entry], "m")


def test_map_text_is_what_the_kernel_takes() -> None:
    found = oci.mappings([{"containerID": 0, "hostID": 100000, "size": 65536}], "m")
    assert oci.map_text(found) == "0 100000 65536\n"


def test_a_bind_is_one_by_type_or_option() -> None:
    assert oci.is_bind({"type": "bind"})
    assert oci.is_bind({"type": "none", "options": ["ro", "rbind"]})
    assert oci.is_bind({"options": ["bind"]})
    assert not oci.is_bind({"type": "tmpfs", "options": ["ro"]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "path", "major", "names"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_readers_take_anything_or_say_what_is_wrong(value: object) -> None:
    for read in (oci.namespaces, oci.devices):
        for key in ("namespaces", "devices"):
            try:
                read({"linux": {key: value}})
            except SpecError as error:
                assert "config.json: linux" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"hooks": []}, "hooks"),
        ({"hooks": {"createRuntime": {}}}, "hooks.createRuntime"),
        ({"hooks": {"poststop": ["/bin/true"]}}, "hooks.poststop[0]"),
        ({"linux": []}, "linux"),
        ({"linux": {"resources": "x"}}, "linux.resources"),
        ({"linux": {"resources": {"devices": [1]}}}, "linux.resources.devices[0]"),
        ({"linux": {"maskedPaths": [1]}}, "linux.maskedPaths[0]"),
        ({"process": {"rlimits": [{"hard": "x"}]}}, "process.rlimits[0].hard"),
        ({"mounts": {}}, "mounts"),
    ],
)
def test_a_part_that_is_rewritten_has_its_form(part: dict[str, object], key: str) -> None:
    text = json.dumps({"root": {"path": "x"}} | part).encode()
    with pytest.raises(SpecError, match=f"^config.json: {re.escape(key)}: expected "):
        oci.loads(text)


@pytest.mark.parametrize("options", [1, "ro", {"ro": 1}])
def test_options_are_an_array(options: object) -> None:
    with pytest.raises(SpecError, match="options: expected an array"):
        oci.options({"options": options})
