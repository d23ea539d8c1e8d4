"""The administrator's settings: lenient where the product was too strict, else an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.policy import settings as policy
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
        (
            '"vm": {',
            '"vm": { "mountMemory": -1,',
            "f: line 14: vm.mountMemory: expected `int` >= 0",
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


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (["a", "b"], "1"),
        (["a", "b", "c"], "1"),
        (["a", "none"], '{"b": 1}'),
        (["a", 0], '{"b": 1}'),
        (["d", 1], "3"),
        (["d", 2], "[2, 3]"),
        (["none", "b"], "{"),
    ],
)
def test_where_a_step_is_not_there_the_innermost_value_is_located(
    steps: list[str | int], found: str
) -> None:
    text = '{"a": {"b": 1}, "d": [2, 3]}'
    assert text[locate(text, steps) :].startswith(found)


def test_what_is_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"^f: nested too deeply$"):
        parse(b"[" * 200_000, "f")


@given(JSON)
def test_any_document_is_settings_or_an_error(value: object) -> None:
    try:
        parse(json.dumps(value).encode(), "f")
    except SettingsError:
        return


def images(*entries: str) -> bytes:
    isolation = {"dockerSocketMount": {"imageList": {"images": entries}}}
    return json.dumps({"enhancedContainerIsolation": isolation}).encode()


def commands(*entries: str) -> bytes:
    isolation = {"dockerSocketMount": {"commandList": {"commands": entries}}}
    return json.dumps({"enhancedContainerIsolation": isolation}).encode()


@pytest.mark.parametrize(
    "image",
    [
        "*",
        "docker",
        "docker:cli",
        "docker:*",
        "docker.io/testcontainers/ryuk:0.5.1",
        "localhost:5000/a/b_c/d--e:Tag_1.2-3",
        "docker.io/library/*",
        "quay.io/*/a*c:*",
        "*.example.com/x",
        f"docker@sha256:{'0a' * 32}",
        f"docker.io/library/docker:cli@sha256:{'0a' * 32}",
    ],
)
def test_what_names_images(image: str) -> None:
    mount = parse(images(image), "f").enhanced_container_isolation.docker_socket_mount
    assert mount.image_list.images == (image,)


@pytest.mark.parametrize(
    "image",
    [
        "",
        " docker",
        "Docker",
        "docker:",
        "docker:a*",
        "docker@sha256:0a",
        "docker@md5:00",
        "a//b",
        "/a",
        "a/",
        "https://docker.io/a",
        "docker:cli\n",
        "docker cli",
    ],
)
def test_what_names_no_image(image: str) -> None:
    key = "enhancedContainerIsolation.dockerSocketMount.imageList.images[1]"
    with pytest.raises(SettingsError) as caught:
        parse(images("docker", image), "f")
    assert str(caught.value).startswith(f"f: line 1: {key}: expected an image")


@pytest.mark.parametrize(
    ("command", "good"),
    [
        ("push", True),
        ("container*", True),
        ("container exec", True),
        ("swarm join-token", True),
        ("pusch", False),
        ("image", False),
        ("*", False),
        ("", False),
        ("Push", False),
        ("push;", False),
        ("push ", False),
        ("con*er", False),
    ],
)
def test_the_form_of_commands(command: str, *, good: bool) -> None:
    if good:
        parse(commands(command), "f")
        return
    key = "enhancedContainerIsolation.dockerSocketMount.commandList.commands[0]"
    with pytest.raises(SettingsError) as caught:
        parse(commands(command), "f")
    assert str(caught.value).startswith(f"f: line 1: {key}: expected a command of docker")


# -- which file --------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's settings are in this test; the file is not there yet."""
    path = tmp_path / "admin-settings.json"
    monkeypatch.setattr(policy, "DEFAULT_PATH", str(path))
    return path


OTHER = '{"vm": {"protectedPaths": ["/other"]}}'


def test_another_file_is_taken_unless_the_hosts_own_is_locked(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(OTHER)
    assert load(str(other)).vm.protected_paths == ("/other",)
    own.write_text('{"enhancedContainerIsolation": {"locked": false}}')
    assert load(str(other)).vm.protected_paths == ("/other",)
    own.write_text('{\n"enhancedContainerIsolation": {\n "locked": true}}')
    with pytest.raises(SettingsError) as caught:
        load(str(other))
    assert str(caught.value) == (
        f"{own}: line 3: enhancedContainerIsolation.locked: the settings are locked, and {other} "
        "is not used: leave out --settings and ECI_SETTINGS"
    )
    assert load().enhanced_container_isolation.locked
    # Whether there is such a file is no way to find out.
    with pytest.raises(SettingsError, match="the settings are locked"):
        load(str(tmp_path / "none"))


def test_the_same_file_under_another_name_is_no_other(own: Path, tmp_path: Path) -> None:
    own.write_text('{"enhancedContainerIsolation": {"locked": true}}')
    link = tmp_path / "link"
    link.symlink_to(own)
    assert load(str(link)).enhanced_container_isolation.locked


def test_a_lock_in_another_file_locks_nothing(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text('{"enhancedContainerIsolation": {"locked": true}}')
    assert load(str(other)).enhanced_container_isolation.locked
    assert not own.exists()
    assert load() == Settings()


@pytest.mark.parametrize("text", ["{", '{"enhancedContainerIsolation": {"locked": 1}}'])
def test_a_broken_file_of_the_host_is_not_passed_over(own: Path, tmp_path: Path, text: str) -> None:
    """It might be locked."""
    other = tmp_path / "other"
    other.write_text(OTHER)
    own.write_text(text)
    with pytest.raises(SettingsError, match=f"^{own}: line 1: "):
        load(str(other))
