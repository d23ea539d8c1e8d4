"""What a request of the Engine API asks for: target and head to a route, as the engine sees it.

Pure.  The engine (Go's net/http and gorilla/mux) decodes the path of a target once, cleans it
(path.Clean, with a slash at the end kept), answers 301 where that changed it, and matches the
decoded path.  The same is done here, and what is sent on is written anew from what was judged.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote, unquote_to_bytes

import msgspec

from eci_supervisor.policy.api_routes import Route, match

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PRINTABLE = re.compile(rb'[!"$-~]+')  # ASCII without space and "#"
_SAFE = "/:@!$&'()*+,;=-._~"
"""What a path may hold as it is (RFC 3986, pchar)."""
_ODD = re.compile(r"[\x00-\x1f\x7f]")


class TargetError(ValueError):
    """A target that no client of the engine sends; the text is for the client."""


class Target(msgspec.Struct, frozen=True):
    """A request target, taken apart."""

    path: str
    """Decoded and cleaned."""
    query: str
    """As it came, without the question mark; ASCII."""
    is_clean: bool
    """Whether the path came cleaned; the engine answers 301 where not."""

    def __str__(self) -> str:
        """Return it in origin form: what is shown and logged."""
        path = quote(self.path, safe=_SAFE)
        return f"{path}?{self.query}" if self.query else path

    @property
    def sent(self) -> str:
        """In origin form, without a slash in the query: what is sent on.

        So nobody who takes the URL apart by its slashes finds a path in the query.
        """
        path = quote(self.path, safe=_SAFE)
        query = self.query.replace("/", "%2F")
        return f"{path}?{query}" if query else path


def clean(path: str) -> str:
    """Return a decoded path, which begins with a slash, as the engine's router cleans it."""
    cleaned = posixpath.normpath(path)
    if cleaned.startswith("//"):  # POSIX keeps two leading slashes; the router does not
        cleaned = cleaned[1:]
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def parse(target: bytes) -> Target:
    """Take a request target apart, origin or absolute form.  TargetError: neither."""
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    if not target.startswith(b"/"):
        raise TargetError("the request target is neither a path nor a URL")
    if not _PRINTABLE.fullmatch(target):
        raise TargetError("the request target has a character that must be percent-encoded")
    raw, _, query = target.partition(b"?")
    if _ESCAPE.search(raw):
        raise TargetError("the request target has a % without two hexadecimal digits")
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise TargetError("the path of the request target is not UTF-8") from error
    if _ODD.search(path):
        raise TargetError("the path of the request target has a control character")
    cleaned = clean(path)
    return Target(path=cleaned, query=query.decode("ascii"), is_clean=cleaned == path)


def is_libpod(path: str) -> bool:
    """Whether podman would take a request with that path for one of its own API."""
    return path.split("/")[2:3] == ["libpod"]


def names_of(query: str) -> list[str]:
    """Return the name of every parameter that some reading of `query` has, as `values_of`."""
    return [_decoded(pair.partition("=")[0]) for pair in re.split("[&;]", query) if pair]


def values_of(query: str, name: str) -> list[str]:
    """Return every value that some reading of `query` has for `name`.

    `;` is taken for a separator as well, as Go did before 1.17, and `+` for a space.
    """
    found = []
    for pair in re.split("[&;]", query):
        key, _, value = pair.partition("=")
        if _decoded(key) == name:
            found.append(_decoded(value))
    return found


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "replace")


def commands_of(route: Route, query: str, content_type: str) -> frozenset[str]:
    """Return the commands that a request on `route` may be, by query and kind of body.

    Only `/images/create` has to be told: pull with `fromImage`, import with `fromSrc`.  A form in
    the body can say so as well, and goes before the query; and then it may be both.
    """
    if route.path != "/images/create":
        return route.commands
    # A type that is not known for harmless may be read as a form.
    is_form = "form" in content_type.lower()
    images = [value for value in values_of(query, "fromImage") if value]
    sources = [value for value in values_of(query, "fromSrc") if value]
    if is_form or ";" in query or (images and sources):
        return route.commands
    return frozenset({"image pull"} if images else {"image import"})


def route_of(method: str, target: Target) -> tuple[Route, str] | None:
    """Return the route of a request and the first `{…}` of its path, or None: unknown."""
    found = match(method, target.path)
    if found is None:
        return None
    route, parts = found
    groups = [part for part in parts.groups()[1:] if part is not None]
    return route, groups[0] if groups else ""
