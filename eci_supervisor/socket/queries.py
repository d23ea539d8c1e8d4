"""What the parameters of a request may ask for, where the command list alone cannot say.

Pure.  As bodies.py: what is judged here, the engine does by itself (SECURITY.md, "The restricted
socket").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eci_supervisor.policy.api_target import names_of, values_of
from eci_supervisor.socket.bodies import BodyRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.policy.api_routes import Route

_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def judge_start(query: str) -> None:
    """Judge the parameters of POST /containers/NAME/start.

    The engine joins the name of a checkpoint to the path of the container's, and does not look.
    """
    if values_of(query, "checkpoint-dir"):
        raise BodyRefusedError("checkpoint-dir can be any directory of the host")
    for name in values_of(query, "checkpoint"):
        if name and _CHECKPOINT.fullmatch(name) is None:
            raise BodyRefusedError("the name of a checkpoint may not lead elsewhere")


BUILD_PARAMETERS = frozenset({
    "buildargs",
    "buildid",
    "cachefrom",
    "cgroupparent",
    "cpuperiod",
    "cpuquota",
    "cpusetcpus",
    "cpusetmems",
    "cpushares",
    "dockerfile",
    "extrahosts",
    "forcerm",
    "isolation",
    "labels",
    "memory",
    "memswap",
    "networkmode",
    "nocache",
    "outputs",
    "platform",
    "pull",
    "q",
    "remote",
    "rm",
    "securityopt",
    "session",
    "shmsize",
    "squash",
    "t",
    "target",
    "ulimits",
    "version",
})  # fmt: skip
"""Of POST /build: those of the published API, and those that docker's own client sends besides."""


def judge_build(query: str) -> None:
    """Judge the parameters of POST /build: another engine's can name files of the host."""
    for name in names_of(query):
        if name not in BUILD_PARAMETERS:
            raise BodyRefusedError(f"docker build has no parameter {name!r}")
    if not {"", "default"}.issuperset(values_of(query, "isolation")):
        raise BodyRefusedError("isolation: builds have that of the engine")


def judge_new_image(query: str) -> None:
    """Judge the parameters of POST /images/create: what is imported is sent along, or a URL."""
    for source in values_of(query, "fromSrc"):
        if source not in ("", "-") and not source.lower().startswith(("http://", "https://")):
            raise BodyRefusedError("fromSrc: neither - nor an http or https URL")


_JUDGES: dict[tuple[str, str], Callable[[str], None]] = {
    ("POST", "/containers/{*}/start"): judge_start,
    ("POST", "/build"): judge_build,
    ("POST", "/images/create"): judge_new_image,
}


def judge(route: Route, query: str, content_type: str) -> None:
    """Judge the parameters of a request on `route`.  BodyRefusedError."""
    key = (route.method, route.path)
    if key in _JUDGES:
        _JUDGES[key](query)
    # Go reads a form in the body for parameters, too.
    if key == ("POST", "/build") and "form" in content_type.lower():
        raise BodyRefusedError("a build's context is no form")
