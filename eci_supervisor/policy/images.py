"""Which images may have the engine's socket: `dockerSocketMount.imageList`.  Pure.

A name is what somebody calls an image; `docker tag` gives any image any name.  What an image is
says its digest.  So an entry passes for an image

- by `name@sha256:…`, where that is the image's id (the digest of its configuration) or the
  digest of a manifest of it: then its content is what the administrator has named;
- by `name[:tag]`, where the engine has on record that a registry knows this very image, by
  digest, in the repository `name` (it was pulled from there or pushed to it), and calls it
  by that tag;
- by `*`, always.

An image made on this machine has no digest in a registry, whatever it is called: it is allowed by
its id, or as one that is derived from an allowed image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_DOMAIN = "docker.io"
OFFICIAL = "library"
ANY = "*"

# distribution/reference, "Grammar"; a `*` stands for a part of a component.
_COMPONENT = re.compile(r"[a-z0-9*]+(?:(?:\.|_|__|-+)[a-z0-9*]+)*")
_DOMAIN = re.compile(
    r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9*](?:[A-Za-z0-9*-]*[A-Za-z0-9*])?"
    r"(?:\.[A-Za-z0-9*](?:[A-Za-z0-9*-]*[A-Za-z0-9*])?)*)(?::[0-9]+)?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """What `name[:tag][@digest]` means."""

    repository: str
    """Normalised: `docker.io/library/docker`."""
    tag: str
    """`latest` where none was given."""
    digest: str = ""
    """`sha256:…`, or empty."""


class Entry(msgspec.Struct, frozen=True):
    """One line of the allow-list."""

    repository: str
    """Normalised, perhaps with `*`; a lone `*` is every image."""
    tag: str
    """`*`: any."""
    digest: str
    """If there is one, it alone decides."""


class Image(msgspec.Struct, frozen=True):
    """One image, as the engine's own store describes it."""

    id: str
    """Digest of its configuration, `sha256:…`."""
    layers: tuple[str, ...] = ()
    """Digests of its uncompressed layers (diff_ids), lowest first."""
    names: frozenset[str] = frozenset()
    """`repository:tag`, normalised: what it is called at the moment."""
    origins: frozenset[str] = frozenset()
    """`repository@digest`, normalised: where a registry knows it by that digest."""
    digests: frozenset[str] = frozenset()
    """Digests of other content that stands for it: its manifests."""


def _split(name: str) -> tuple[str, str]:
    """Split a repository's name into domain and path, as the engines do."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return (DEFAULT_DOMAIN if first == "index.docker.io" else first), rest
    return DEFAULT_DOMAIN, name


def _repository(name: str) -> str:
    """Return a repository's normalised name; ValueError if it is none."""
    domain, path = _split(name)
    if not path or not _DOMAIN.fullmatch(domain):
        raise ValueError(f"not an image's name: {name!r}")
    if not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise ValueError(f"not an image's name: {name!r} (lower case, parts divided by '/')")
    # `docker.io/*` is all of that registry, and not only its official images.
    official = domain == DEFAULT_DOMAIN and "/" not in path
    if official and not (path == ANY and name != ANY):
        path = f"{OFFICIAL}/{path}"
    return f"{domain}/{path}"


def _parts(text: str) -> tuple[str, str, str]:
    """Split `name[:tag][@digest]`; what is not there is empty."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(f"not a digest: {digest!r} (sha256: and 64 hexadecimal digits)")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and tag != ANY and not _TAG.fullmatch(tag):
        raise ValueError(f"not a tag: {tag!r} (a word, or '*' for any)")
    return f"{head}{slash}{last}", tag, digest


def parse_reference(text: str) -> Reference:
    """Read the name of an image; ValueError if it is none."""
    if ANY in text:
        raise ValueError(f"not an image's name: {text!r}")
    name, tag, digest = _parts(text)
    return Reference(_repository(name), tag or "latest", digest)


def parse_entry(text: str) -> Entry:
    """Read one entry of the allow-list; ValueError, with what is wrong, if it is none."""
    if text == ANY:
        return Entry(ANY, ANY, "")
    name, tag, digest = _parts(text)
    return Entry(_repository(name), tag or "latest", digest)


def matches(pattern: str, repository: str) -> bool:
    """Whether a normalised repository is one that an entry's repository names.

    `*` is any part of one component; as the last component, all that may follow.
    """
    wanted, given = pattern.split("/"), repository.split("/")
    if wanted[-1] == ANY and len(wanted) > 1:
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        _component_matches(one, other) for one, other in zip(wanted, given, strict=True)
    )


def _component_matches(pattern: str, component: str) -> bool:
    """Whether a component is the pattern; in linear time, as whoever names images is free to."""
    first, *rest = pattern.split(ANY)
    if not rest:
        return pattern == component
    last = rest.pop()
    if len(component) < len(first) + len(last):
        return False
    if not component.startswith(first) or not component.endswith(last):
        return False
    at, end = len(first), len(component) - len(last)
    for piece in rest:
        found = component.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _passes(entry: Entry, image: Image) -> bool:
    if entry.digest:
        known = {image.id, *image.digests, *(name.rpartition("@")[2] for name in image.origins)}
        return entry.digest in known
    for origin in image.origins:
        repository = origin.rpartition("@")[0]
        if matches(entry.repository, repository) and (
            entry.tag == ANY or f"{repository}:{entry.tag}" in image.names
        ):
            return True
    return False


def allows_every(entries: Iterable[Entry]) -> bool:
    """Whether every container is allowed, whatever its image."""
    return any(entry.repository == ANY for entry in entries)


def allows(entries: Iterable[Entry], image: Image) -> bool:
    """Whether the image itself is one of the allow-list."""
    return any(entry.repository == ANY or _passes(entry, image) for entry in entries)


def is_derived(image: Image, bases: Iterable[Image], entries: Iterable[Entry]) -> bool:
    """Whether the image stands on all layers of an allowed one among `bases`.

    An image without layers is the base of none.
    """
    entries = tuple(entries)
    return any(
        base.layers and image.layers[: len(base.layers)] == base.layers and allows(entries, base)
        for base in bases
    )
