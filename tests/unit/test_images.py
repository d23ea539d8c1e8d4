"""The allow-list of images: references, patterns, digests, layers."""

from __future__ import annotations

import fnmatch
import json
import re

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from eci_supervisor.policy import images, settings
from eci_supervisor.policy.images import Image, parse_entry, parse_reference

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
DOCKER = "docker.io/library/docker"


def pulled(name: str, tag: str = "latest", digest: str = B, **more: object) -> Image:
    """Return an image that came from the registry under this name."""
    origins, names = frozenset({f"{name}@{digest}"}), frozenset({f"{name}:{tag}"})
    return Image(id=A, names=names, origins=origins, **more)  # type: ignore[arg-type]


def allows(image: Image, *entries: str) -> bool:
    return images.allows([parse_entry(entry) for entry in entries], image)


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("docker", DOCKER, "latest", ""),
        ("docker:cli", DOCKER, "cli", ""),
        ("library/docker", DOCKER, "latest", ""),
        ("docker.io/docker", DOCKER, "latest", ""),
        ("index.docker.io/docker:cli", DOCKER, "cli", ""),
        (f"docker:cli@{A}", DOCKER, "cli", A),
        ("testcontainers/ryuk", "docker.io/testcontainers/ryuk", "latest", ""),
        ("localhost/x", "localhost/x", "latest", ""),
        ("localhost:5000/x:1", "localhost:5000/x", "1", ""),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest", ""),
        ("Host/x", "Host/x", "latest", ""),
        ("ghcr.io/a/b__c.d-e", "ghcr.io/a/b__c.d-e", "latest", ""),
    ],
)
def test_references_are_normalised(text: str, repository: str, tag: str, digest: str) -> None:
    assert parse_reference(text) == images.Reference(repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", ":", "@", "a/", "/a", "a//b", "A", "a b", "a:", "a:b:c", "a:-x", "a@sha256:12",
        f"a@{A}x", f"a@sha512:{'a' * 64}", "a:2*", "a:t/b", "docker.io/", "x.y:port/a", "..",
        "a/../b", "a\n", "a:b\n", "http://x.y/a",
    ],
)  # fmt: skip
def test_what_is_no_entry_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_entry(text)


def test_no_pattern_is_a_reference() -> None:
    for text in ("*", "docker:*", "a*/b"):
        with pytest.raises(ValueError, match="not an image's name"):
            parse_reference(text)


@pytest.mark.parametrize(
    ("entry", "repository", "expected"),
    [
        ("docker", DOCKER, True),
        ("dock*", DOCKER, True),
        ("dock*", "docker.io/library/podman", False),
        ("d*c*r", DOCKER, True),
        ("d*d*r", DOCKER, False),
        ("docker.io/*", DOCKER, True),
        ("docker.io/*", "docker.io/a/b/c", True),
        ("docker.io/*", "quay.io/a/b", False),
        ("testcontainers/*", "docker.io/testcontainers/ryuk", True),
        ("testcontainers/*", "docker.io/testcontainers/a/b", True),
        ("testcontainers/*", "docker.io/testcontainers", False),
        ("testcontainers/*", "docker.io/testcontainers-evil/a", False),
        ("testcontainers/r*", "docker.io/testcontainers/ryuk", True),
        ("testcontainers/r*", "docker.io/testcontainers/ryuk/evil", False),
        ("*/ryuk", "docker.io/testcontainers/ryuk", True),
        ("*/ryuk", "docker.io/a/b/ryuk", False),
        ("*/ryuk", "evil.example/ryuk", False),
        ("ghcr.io/*/tool", "ghcr.io/org/tool", True),
        ("ghcr.io/*/tool", "ghcr.io/org/sub/tool", False),
        ("*.example.com/x", "a.example.com/x", True),
        ("*.example.com/x", "a.example.com:5000/x", False),
        ("*:latest", DOCKER, True),
        ("*:latest", "docker.io/a/b", False),
    ],
)
def test_patterns_stay_within_their_component(
    entry: str, repository: str, *, expected: bool
) -> None:
    assert images.matches(parse_entry(entry).repository, repository) is expected
    assert allows(pulled(repository), entry) is expected


def test_the_tag_counts_and_a_star_is_any() -> None:
    image = pulled(DOCKER, "dind")
    assert not allows(image, "docker")
    assert not allows(image, "docker:cli")
    assert allows(image, "docker:dind")
    assert allows(image, "docker:*")


def test_a_retagged_image_does_not_pass() -> None:
    evil = Image(id=A, names=frozenset({f"{DOCKER}:cli", f"{DOCKER}:latest"}))
    assert not allows(evil, "docker:cli", "docker:*", "docker", "docker.io/*", "*:*")
    # Nor one that was pulled from elsewhere, or pushed to a repository of the attacker's.
    elsewhere = Image(id=A, names=evil.names, origins=frozenset({f"evil.example/docker@{B}"}))
    assert not allows(elsewhere, "docker:cli", "docker:*", "docker", "docker.io/*")


def test_a_digest_pins_whatever_the_name() -> None:
    local = Image(id=A, names=frozenset({"docker.io/library/mine:latest"}), digests=frozenset({C}))
    assert allows(local, f"mine@{A}")
    assert allows(local, f"other@{C}")
    assert not allows(local, f"mine@{B}")
    assert allows(pulled(DOCKER, digest=B), f"docker@{B}")
    # The digest decides, not the tag beside it; and the name is none to pass by.
    assert not allows(pulled(DOCKER, "cli", digest=B), f"docker:cli@{C}")


def test_a_lone_star_allows_every_image() -> None:
    assert allows(Image(id=A), "*")
    assert images.allows_every([parse_entry("docker"), parse_entry("*")])
    assert not images.allows_every([parse_entry("*:*"), parse_entry("docker.io/*")])


def test_derived_images_begin_with_all_layers_of_an_allowed_one() -> None:
    entries = [parse_entry("docker")]
    base = pulled(DOCKER, layers=(A, B))
    other = pulled("docker.io/library/other", layers=(A,))

    def derived(*layers: str) -> bool:
        return images.is_derived(Image(id=C, layers=layers), [other, base], entries)

    assert derived(A, B)
    assert derived(A, B, C)
    assert not derived(A)
    assert not derived(A, C, B)
    assert not derived(B, A)
    assert not derived()


def test_an_image_without_layers_is_no_base() -> None:
    base = pulled(DOCKER)
    entries = [parse_entry("docker")]
    assert not images.is_derived(Image(id=C, layers=(A,)), [base], entries)


component = st.text("abc.-_*", min_size=1, max_size=8)


@given(component, component.filter(lambda text: "*" not in text))
def test_a_component_matches_as_a_glob_does(pattern: str, text: str) -> None:
    expected = fnmatch.fnmatchcase(text, pattern)
    assert images.matches(f"{pattern}/x", f"{text}/x") is expected


@given(st.text("ab/:@*.-_", max_size=20))
def test_every_text_is_an_entry_or_a_value_error(text: str) -> None:
    try:
        entry = parse_entry(text)
    except ValueError as error:
        assert re.match("not an? ", str(error))  # noqa: PT017 - one of two answers
    else:
        assert entry.repository
        assert entry.tag


names = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}(:[a-z]{1,5})?", fullmatch=True)


@given(names)
def test_normalising_twice_changes_nothing(name: str) -> None:
    reference = parse_reference(name)
    again = parse_reference(f"{reference.repository}:{reference.tag}")
    assert again == reference


@given(st.frozensets(names, max_size=4), names)
def test_no_set_of_names_makes_an_image_pass(called: frozenset[str], entry: str) -> None:
    references = [parse_reference(name) for name in called]
    tags = frozenset(f"{one.repository}:{one.tag}" for one in references)
    assert not allows(Image(id=A, names=tags), entry, f"{entry.partition(':')[0]}:*")


@given(st.lists(st.sampled_from([A, B, C]), max_size=4), st.lists(st.sampled_from([A, B, C])))
def test_derivation_is_a_prefix(base: list[str], layers: list[str]) -> None:
    image = Image(id=C, layers=tuple(layers))
    known = pulled(DOCKER, layers=tuple(base))
    expected = bool(base) and layers[: len(base)] == base
    assert images.is_derived(image, [known], [parse_entry("docker")]) is expected


@settings_of_hypothesis(max_examples=40)
@given(st.one_of(st.from_regex(settings.IMAGE, fullmatch=True), st.text("a/:@*.-_", max_size=9)))
def test_what_the_settings_take_is_an_entry(text: str) -> None:
    image_list = {"images": [text]}
    document = {"enhancedContainerIsolation": {"dockerSocketMount": {"imageList": image_list}}}
    try:
        settings.parse(json.dumps(document).encode(), "x")
    except settings.SettingsError:
        return
    assert parse_entry(text).repository
