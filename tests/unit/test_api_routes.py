"""The table of the Engine API's routes, held against the published definition."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eci_supervisor.policy import commands
from eci_supervisor.policy.api_routes import match, routes, without_version

LINES = (Path(__file__).parents[1] / "support/engine-api.txt").read_text().splitlines()
PUBLISHED = [tuple(line.split()) for line in LINES if line and line[0] not in "#["]
VERSIONS = ("", "/v1.24", "/v1.41", "/v1.51", "/v1", "/v1.41.0", "/v..")


def sample(path: str) -> str:
    """Return a path that a published one stands for."""
    return re.sub(r"\{\w+\}", "some", path)


def test_the_definition_is_whole() -> None:
    assert len(PUBLISHED) == len(set(PUBLISHED)) == 114


@pytest.mark.parametrize(("method", "path"), PUBLISHED)
def test_every_published_route_has_its_line(method: str, path: str) -> None:
    asked = re.sub(r"\{\w+\}", "{}", path)
    for version in VERSIONS:
        found = match(method, version + sample(path))
        assert found is not None
        assert found[0].path.replace("{*}", "{}") == asked


def test_the_table_has_no_route_that_is_not_published() -> None:
    published = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in PUBLISHED}
    assert {(one.method, one.path.replace("{*}", "{}")) for one in routes()} == published


def test_only_ping_is_without_a_command() -> None:
    assert {one.path for one in routes() if not one.commands} == {"/_ping"}


def test_every_command_can_be_written_in_the_settings() -> None:
    for one in routes():
        for name in one.commands:
            assert commands.expand(name) == {name}


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/images/registry:5000/a/b/c/json", "/images/{*}/json"),
        ("POST", "/images/registry:5000/a/push/push", "/images/{*}/push"),
        ("DELETE", "/containers/a/b", "/containers/{*}"),
        ("DELETE", "/containers/a/checkpoints/b", "/containers/{}/checkpoints/{}"),
        ("GET", "/networks/", "/networks/"),
        ("GET", "/networks/a/b", "/networks/{*}"),
        ("GET", "/images/json", "/images/json"),
        ("POST", "/containers/create", "/containers/create"),
    ],
)
def test_of_several_routes_the_engines_counts(method: str, path: str, route: str) -> None:
    found = match(method, path)
    assert found is not None
    assert found[0].path == route


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/images/a/push"),
        ("POST", "/IMAGES/a/push"),
        ("POST", "/images/a/Push"),
        ("POST", "/images/a/push/"),
        ("POST", "/v1.41/v1.41/images/a/push"),
        ("POST", "/V1.41/images/a/push"),
        ("POST", "/v1.x/images/a/push"),
        ("POST", "/v/images/a/push"),
        ("GET", "/images/a/push"),
        ("GET", "/services/a/b"),
        ("GET", "/containers/jsonx"),
        ("GET", "/"),
        ("GET", ""),
    ],
)
def test_what_the_engine_does_not_route_is_unknown(method: str, path: str) -> None:
    assert match(method, path) is None


def test_version_prefix_is_taken_off_once() -> None:
    assert without_version("/v1.41/v1.41/info") == "/v1.41/info"
    assert without_version("/volumes") == "/volumes"
    assert without_version("/v1.41") == "/v1.41"
