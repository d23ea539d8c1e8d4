"""The settings' command list: which docker commands an allowed container may send.

Pure.  A command is known by its canonical name, `container rm`, `image push`: the words of its
management command as `docker --help` lists them, or a single word where there is none (`version`,
`login`, `search`, `inspect`).
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.policy.api_routes import first_segment, routes, without_version
from eci_supervisor.policy.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eci_supervisor.policy.api_routes import Route
    from eci_supervisor.policy.settings import CommandList

ALIASES = {
    **{
        name: f"container {name}"
        for name in (
            "attach commit cp create diff exec export kill logs pause port rename restart rm run "
            "start stats stop top unpause update wait"
        ).split()
    },
    **{name: f"image {name}" for name in "history import load pull push save tag".split()},
    **{name: f"system {name}" for name in "events info".split()},
    "ps": "container ls",
    "container ps": "container ls",
    "images": "image ls",
    "rmi": "image rm",
    "build": "builder build",
    "image build": "builder build",
    "buildx build": "builder build",
    "buildx bake": "builder build",
    "buildx prune": "builder prune",
    "stack down": "stack rm",
    "stack up": "stack deploy",
}
"""Other names that docker has for a command."""

FAMILIES = {
    "container": ("container",),
    "image": ("image", "builder build"),
    "volume": ("volume",),
    "network": ("network",),
    "build": ("builder",),
    "builder": ("builder",),
    "buildx": ("builder",),
    "system": ("system",),
    "checkpoint": ("checkpoint",),
    "config": ("config",),
    "manifest": ("manifest",),
    "node": ("node",),
    "plugin": ("plugin",),
    "secret": ("secret",),
    "service": ("service",),
    "stack": ("stack",),
    "swarm": ("swarm",),
}
"""`NAME*` in the settings: management commands, or single ones, that it stands for."""

USES = {
    "container run": "container create, container attach, container start, container wait, "
    "container kill, container inspect",
    "container start": "container attach, container wait, container kill, container inspect",
    "container attach": "container wait, container kill, container inspect",
    "container exec": "container inspect",
    "container cp": "container inspect",
    "container logs": "container inspect",
    "container stats": "container ls, container inspect, system events, version",
    "builder build": "system info, version",
    "image pull": "system info",
    "image push": "system info",
    "login": "system info",
    "search": "system info",
    "system prune": "container prune, image prune, network prune, volume prune, builder prune",
    "service create": "service inspect, service ps, node ls",
    "service update": "service inspect, service ps, node ls",
    "service scale": "service inspect, service ps, node ls, service update",
    "service rollback": "service inspect, service ps, node ls, service update",
    "service ps": "service ls, service inspect, node ls, node inspect",
    "service ls": "service ps, node ls",
    "service logs": "service inspect, service ps, node inspect",
    "stack deploy": "service ls, service create, service update, network ls, network create, "
    "network inspect, secret ls, secret inspect, config ls, config inspect, system info",
    "stack rm": "service ls, network ls, network rm, secret ls, config ls",
    "node ps": "node ls, node inspect, system info",
    "node ls": "system info",
    "plugin upgrade": "plugin inspect",
}
"""What else a command sends: of use in `allow` lists alone."""

HOST_FAMILIES = frozenset({"plugins", "services", "swarm"})
"""First segments of paths under which much gives the host: what is unknown there is not trusted."""

WITHOUT_REQUEST = frozenset(
    "logout, context, trust, system dial-stdio, builder, buildx, stack ls, stack services, "
    "stack config, manifest create, manifest annotate, manifest push, manifest rm".split(", ")
)
"""Commands that send nothing of their own: they may stand in a list, and nothing comes of it."""


class CommandError(SettingsError):
    """A word of a command list that is no command; the text is for the administrator."""


def _canonical(command: str) -> str:
    words = command.split(" ")
    if words[:1] == ["docker"]:
        words = words[1:]
    if len(words) > 1:
        words[1] = {"list": "ls", "remove": "rm"}.get(words[1], words[1])
    name = " ".join(words)
    return ALIASES.get(name, name)


@cache
def known() -> frozenset[str]:
    """Return the canonical name of every command that has a route."""
    return frozenset(name for route in routes() for name in route.commands)


def expand(command: str) -> frozenset[str]:
    """Return the canonical names that a word of the settings stands for.

    CommandError: it stands for none.
    """
    name = _canonical(command)
    if name.endswith("*"):
        family = name[:-1]
        if family in FAMILIES:
            return frozenset(
                one
                for one in known()
                if one in FAMILIES[family] or one.split()[0] in FAMILIES[family]
            )
    elif name in known():
        return frozenset({name})
    elif name in WITHOUT_REQUEST:
        return frozenset()
    elif name in FAMILIES:
        raise CommandError(
            f"expected a command of docker, got the family {json.dumps(command)}: write "
            f"{json.dumps(name + '*')}"
        )
    raise CommandError(
        f"expected a command of docker, as docker --help lists it (push, image push), or a family "
        f"({', '.join(f'{each}*' for each in sorted(FAMILIES))}), got {json.dumps(command)}"
    )


class Verdict(msgspec.Struct, frozen=True):
    """What a command list says of one request."""

    allowed: bool
    command: str
    """The command that it is, for people; `unknown` where the table has no route for it."""


class Commands:
    """A command list, ready to judge.  Immutable."""

    def __init__(self, kind: str, commands: Iterable[str]) -> None:
        """Expand a command list; `kind` is `deny` or `allow`.  CommandError: a bad word."""
        if kind not in ("deny", "allow"):
            raise CommandError(f'"{kind}" is neither "deny" nor "allow"')
        self.allows = kind == "allow"
        listed = frozenset(name for word in commands for name in expand(word))
        self.named = listed
        self.listed = self._with_uses(listed) if self.allows else listed
        denied = [route.family for route in routes() if route.commands & listed]
        self._closed_families = HOST_FAMILIES.union(denied)
        self._families = frozenset(route.family for route in routes())

    @classmethod
    def of(cls, settings: CommandList) -> Commands:
        """Return the list of the settings.  CommandError: a bad word."""
        return cls(settings.type, settings.commands)

    @staticmethod
    def _with_uses(listed: frozenset[str]) -> frozenset[str]:
        found = set(listed)
        waiting = list(listed)
        while waiting:
            more = USES.get(waiting.pop(), "")
            new = {name for name in more.split(", ") if name} - found
            found |= new
            waiting += new
        return frozenset(found)

    def judge(self, route: Route, commands: frozenset[str]) -> Verdict:
        """Judge a request that takes `route`; `commands`: those of the route that it may be."""
        name = ", ".join(sorted(commands))
        if not commands:
            return Verdict(allowed=True, command="ping")
        if route.takes_host:
            return Verdict(allowed=self.allows and bool(commands & self.named), command=name)
        if not self.allows:
            return Verdict(allowed=not commands & self.listed, command=name)
        if route.path == "/images/create":  # pull and import are two commands on one route
            return Verdict(allowed=commands <= self.listed, command=name)
        return Verdict(allowed=bool(commands & self.listed), command=name)

    def judge_unknown(self, method: str, path: str) -> Verdict:
        """Judge a request that no route fits, with decoded `path`.

        A newer engine may have a route for it, and that may do what is denied here by another name.
        So with a `deny` list it may read (GET, HEAD), where the first segment of its path is one
        that is known, and nothing beginning so is denied.
        """
        family = first_segment(without_version(path) + "/")
        reads = method in ("GET", "HEAD")
        known_one = family in self._families and family not in self._closed_families
        return Verdict(allowed=not self.allows and reads and known_one, command="unknown")
