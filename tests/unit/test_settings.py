"""The administrator's settings: lenient where the product was too strict, else an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.policy.settings import (
    DEFAULT_PROTECTED_PATHS,
    Settings,
    SettingsError,
    load,
    locate,
    parse,
)

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = """{
  "configurationFileVersion": 2,
  "enhancedContainerIsolation": {
    "locked": true,
    "value": true,
    "dockerSocketMount": {
      "imageList": {
        "images": ["docker.io/testcontainers/ryuk:*", "docker:cli"],
        "allowDerivedImages": true
      },
      "commandList": { "type": "deny", "commands": ["push", "build"] }
    }
  },
  "vm": {
    "protectedPaths": ["/etc", "/boot", "/var/lib/docker"],
    "sharedPaths": ["/home", "/srv/shared"]
  }
}
"""


def test_the_documented_example() -> None:
    settings = parse(EXAMPLE.encode(), "f")
    assert settings.enhanced_container_isolation.locked
    mount = settings.enhanced_container_isolation.docker_socket_mount
    assert mount.image_list.images[1] == "docker:cli"
    assert mount.image_list.allow_derived_images
    assert mount.command_list.commands == ("push", "build")
    assert settings.vm.protected_paths == ("/etc", "/boot", "/var/lib/docker")


@pytest.mark.parametrize("text", ["{}", '{"other": [1, {"x": null}], "vm": {"new": 1}}'])
def test_unknown_keys_mark_and_missing_version_are_accepted(text: str) -> None:
    settings = parse(b"\xef\xbb\xbf" + text.encode(), "f")
    assert settings == Settings()
    assert settings.vm.protected_paths == DEFAULT_PROTECTED_PATHS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"locked": true',
            '"locked": "yes"',
            "f: line 4: enhancedContainerIsolation.locked: expected `bool`, got `str`",
        ),
        ('"/boot"', "7", "f: line 15: vm.protectedPaths[1]: expected `str`, got `int`"),
        (
            '"/srv/shared"',
            '"srv"',
            "f: line 16: vm.sharedPaths[1]: expected an absolute path without '..', got \"srv\"",
        ),
        (
            '"deny"',
            '"never"',
            (
                "f: line 11: enhancedContainerIsolation.dockerSocketMount.commandList.type: "
                'expected "deny" or "allow", got "never"'
            ),
        ),
        ('"locked": true,', '"locked": true', "f: line 5: not valid JSON: "),
    ],
)
def test_an_error_names_file_line_and_key(old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(EXAMPLE.replace(old, new).encode(), "f")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff{}", b"{}x", b'{"vm": null}'])
def test_other_texts_are_errors(data: bytes) -> None:
    with pytest.raises(SettingsError, match=r"^f: line 1: "):
        parse(data, "f")


def test_no_file_is_the_default_only_where_none_was_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such settings file"):
        load(str(tmp_path / "none"))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(str(tmp_path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(JSON, st.sampled_from([None, 1, "\t"]), st.data())
def test_locate_finds_every_value(
    value: object, indent: int | str | None, data: st.DataObject
) -> None:
    steps: list[str | int] = []
    here = value
    while isinstance(here, dict | list) and here:
        if isinstance(here, dict):
            step: str | int = data.draw(st.sampled_from(sorted(here)))
            here = here[step]
        else:
            step = data.draw(st.integers(0, len(here) - 1))
            here = here[step]
        steps.append(step)
    text = json.dumps(value, indent=indent)
    at = locate(text, steps)
    assert json.JSONDecoder().raw_decode(text, at)[0] == here


@given(JSON)
def test_any_document_is_settings_or_an_error(value: object) -> None:
    try:
        parse(json.dumps(value).encode(), "f")
    except SettingsError:
        return
