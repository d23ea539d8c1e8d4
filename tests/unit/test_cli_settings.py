"""`eci settings check`, and the schema that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import eci_supervisor
from eci_supervisor.cli.main import main
from eci_supervisor.cli.settings import schema_text
from eci_supervisor.policy import settings as policy

SHIPPED = Path(eci_supervisor.__file__).parent / "policy/settings.schema.json"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's settings are in this test; the file is not there yet."""
    path = tmp_path / "admin-settings.json"
    monkeypatch.setattr(policy, "DEFAULT_PATH", str(path))
    return path


def check(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["settings", "check", *words])
    return done.exit_code, done.output


def test_a_file_in_order(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text('{"vm": {"protectedPaths": ["/etc", "/usr:ro"], "sharedPaths": ["/"]}}')
    assert check(str(file)) == (0, f"{file}: in order\n")


def test_a_wrong_file_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text('{\n "vm": {\n  "protectedPaths": ["/etc", "usr"]}}')
    wrong = "expected an absolute path without '..', got \"usr\""
    assert check(str(file)) == (1, f"{file}: line 3: vm.protectedPaths[1]: {wrong}\n")
    assert check(f"{file}x") == (1, f"{file}x: no such settings file\n")


def test_what_has_no_effect_is_told(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text(
        '\ufeff{"vm": {"sharedPath": [],\n "protectedPaths": ["/etc", "/no/such:ro"]},\n'
        '"enhancedContainerIsolation": {"value": false, "dockerSocketMount": {\n"x": 1}}}'
    )
    assert check(str(file)) == (
        0,
        (
            f"{file}: line 1: vm.sharedPath: unknown key, without effect\n"
            f"{file}: line 4: enhancedContainerIsolation.dockerSocketMount.x: "
            "unknown key, without effect\n"
            f"{file}: line 2: vm.protectedPaths[1]: nothing is at /no/such on this host\n"
            f"{file}: enhancedContainerIsolation.value: false, so no container is protected\n"
            f"{file}: in order\n"
        ),
    )


def test_without_a_file_what_is_in_force_is_checked(own: Path) -> None:
    assert check() == (0, f"{own}: no such file: the defaults are in force\n")
    own.write_text("{}")
    assert check() == (0, f"{own}: in order\n")
    own.write_text("{")
    code, said = check()
    assert (code, said.startswith(f"{own}: line 1: not valid JSON: ")) == (1, True)


def test_a_file_that_would_not_be_taken_is_checked_all_the_same(own: Path, tmp_path: Path) -> None:
    own.write_text('{"enhancedContainerIsolation": {"locked": true}}')
    other = tmp_path / "other"
    other.write_text("{}")
    assert check(str(other)) == (0, f"{other}: in order\n")


def test_the_shipped_schema_is_up_to_date() -> None:
    """If not: `eci settings schema > eci_supervisor/policy/settings.schema.json`."""
    assert SHIPPED.read_text() == schema_text()
    assert CliRunner().invoke(main, ["settings", "schema"]).output == schema_text()


def test_the_schema_has_the_forms_of_values() -> None:
    definitions = json.loads(SHIPPED.read_text())["$defs"]
    images = definitions["ImageList"]["properties"]["images"]["items"]
    assert images["pattern"] == policy.IMAGE
    kind = definitions["CommandList"]["properties"]["type"]
    assert kind["enum"] == ["deny", "allow"]
    assert "additionalProperties" not in definitions["Settings"]
