"""Which docker command a request of the Engine API belongs to: the table, as data.

One line per route: method, path without version prefix, and the commands that send it, as
`docker --help` spells them, with commas between.  `{}` stands for one segment of the path and
`{*}` for any number, as in the engine's own router; the first line that fits counts, as there.
`-` as command: always allowed, since a client says nothing and learns nothing by it but that an
engine is there.  A `!` before the method: whoever may send it has the host, whatever runtime the
engine uses, so it takes an `allow` list that names its command (SECURITY.md, "The restricted
socket").

The routes are those of Docker 20.10 to 28 (API 1.24 to 1.51), the ones that its published
definition leaves out included (`/grpc`, `/build/cancel`, checkpoints).
"""

from __future__ import annotations

import re
from functools import cache

import msgspec

TABLE = """
HEAD   /_ping                              -
GET    /_ping                              -
GET    /version                            version
GET    /info                               system info
GET    /events                             system events
GET    /system/df                          system df
POST   /auth                               login

DELETE /containers/{}/checkpoints/{}       checkpoint rm
GET    /containers/{*}/checkpoints         checkpoint ls
POST   /containers/{*}/checkpoints         checkpoint create

HEAD   /containers/{*}/archive             container cp
GET    /containers/json                    container ls
GET    /containers/{*}/export              container export
GET    /containers/{*}/changes             container diff
GET    /containers/{*}/json                container inspect, container port, inspect
GET    /containers/{*}/top                 container top
GET    /containers/{*}/logs                container logs
GET    /containers/{*}/stats               container stats
GET    /containers/{*}/attach/ws           container attach
GET    /containers/{*}/archive             container cp
GET    /exec/{*}/json                      container exec
POST   /containers/create                  container create, container run
POST   /containers/{*}/kill                container kill
POST   /containers/{*}/pause               container pause
POST   /containers/{*}/unpause             container unpause
POST   /containers/{*}/restart             container restart
POST   /containers/{*}/start               container start
POST   /containers/{*}/stop                container stop
POST   /containers/{*}/wait                container wait
POST   /containers/{*}/resize              container attach
POST   /containers/{*}/attach              container attach
POST   /containers/{*}/copy                container cp
POST   /containers/{*}/exec                container exec
POST   /exec/{*}/start                     container exec
POST   /exec/{*}/resize                    container exec
POST   /containers/{*}/rename              container rename
POST   /containers/{*}/update              container update
POST   /containers/prune                   container prune, system prune
POST   /commit                             container commit
PUT    /containers/{*}/archive             container cp
DELETE /containers/{*}                     container rm

GET    /images/json                        image ls
GET    /images/search                      search
GET    /images/get                         image save
GET    /images/{*}/get                     image save
GET    /images/{*}/history                 image history
GET    /images/{*}/json                    image inspect, inspect
POST   /images/load                        image load
POST   /images/create                      image pull, image import
POST   /images/{*}/push                    image push
POST   /images/{*}/tag                     image tag
POST   /images/prune                       image prune, system prune
DELETE /images/{*}                         image rm
GET    /distribution/{*}/json              manifest inspect

POST   /build                              builder build
POST   /build/cancel                       builder build
POST   /build/prune                        builder prune, system prune
POST   /session                            builder build
POST   /grpc                               builder build

GET    /networks                           network ls
GET    /networks/                          network ls
GET    /networks/{*}                       network inspect, inspect
POST   /networks/create                    network create
POST   /networks/prune                     network prune, system prune
POST   /networks/{*}/connect               network connect
POST   /networks/{*}/disconnect            network disconnect
DELETE /networks/{*}                       network rm

GET    /volumes                            volume ls
GET    /volumes/{*}                        volume inspect, inspect
POST   /volumes/create                     volume create
POST   /volumes/prune                      volume prune, system prune
PUT    /volumes/{*}                        volume update
DELETE /volumes/{*}                        volume rm

GET    /plugins                            plugin ls
GET    /plugins/privileges                 plugin install, plugin upgrade
GET    /plugins/{*}/json                   plugin inspect, inspect
DELETE /plugins/{*}                        plugin rm
POST   /plugins/{*}/disable                plugin disable
POST   /plugins/{*}/push                   plugin push
!POST  /plugins/pull                       plugin install
!POST  /plugins/create                     plugin create
!POST  /plugins/{*}/enable                 plugin enable
!POST  /plugins/{*}/upgrade                plugin upgrade
!POST  /plugins/{*}/set                    plugin set

!GET   /swarm                              swarm join-token, swarm ca
!GET   /swarm/unlockkey                    swarm unlock-key
!POST  /swarm/init                         swarm init
!POST  /swarm/join                         swarm join
!POST  /swarm/update                       swarm update, swarm ca, swarm join-token
POST   /swarm/leave                        swarm leave
POST   /swarm/unlock                       swarm unlock

GET    /services                           service ls
GET    /services/{}                        service inspect, inspect
GET    /services/{}/logs                   service logs
!POST  /services/create                    service create, stack deploy
!POST  /services/{}/update           service update, service scale, service rollback, stack deploy
DELETE /services/{}                        service rm, stack rm
GET    /tasks                              service ps, node ps, stack ps
GET    /tasks/{}                           inspect
GET    /tasks/{}/logs                      service logs

GET    /nodes                              node ls
GET    /nodes/{}                           node inspect, inspect
POST   /nodes/{}/update                    node update, node promote, node demote
DELETE /nodes/{}                           node rm

GET    /secrets                            secret ls
GET    /secrets/{}                         secret inspect, inspect
POST   /secrets/create                     secret create, stack deploy
POST   /secrets/{}/update                  stack deploy
DELETE /secrets/{}                         secret rm, stack rm

GET    /configs                            config ls
GET    /configs/{}                         config inspect, inspect
POST   /configs/create                     config create, stack deploy
POST   /configs/{}/update                  stack deploy
DELETE /configs/{}                         config rm, stack rm
"""

VERSION_PREFIX = r"(?:/v(?P<version>[0-9.]+))?"
"""What may stand before each path, and stands before it in what docker sends."""


class Route(msgspec.Struct, frozen=True):
    """One line of the table."""

    method: str
    path: str
    """As in the table."""
    commands: frozenset[str]
    """Canonical names (commands.py); empty: always allowed."""
    takes_host: bool
    """Refused unless an `allow` list has one of the commands."""

    def match(self, path: str) -> re.Match[str] | None:
        """Match a decoded and cleaned path, version prefix included."""
        return _pattern(self.path).fullmatch(path)

    @property
    def family(self) -> str:
        """The first segment of the path."""
        return first_segment(self.path)


def first_segment(path: str) -> str:
    """Return the first segment of a path without version prefix, without its slash."""
    return path.split("/", 2)[1]


@cache
def _pattern(path: str) -> re.Pattern[str]:
    quoted = re.escape(path).replace(r"\{\*\}", "(.*)").replace(r"\{\}", "([^/]+)")
    return re.compile(VERSION_PREFIX + quoted)


@cache
def routes() -> tuple[Route, ...]:
    """Return the table; made when first asked for."""
    found = []
    for line in TABLE.split("\n"):
        if not line:
            continue
        method, path, commands = line.split(maxsplit=2)
        names = frozenset(commands.split(", ")) if commands != "-" else frozenset()
        found.append(
            Route(
                method=method.lstrip("!"),
                path=path,
                commands=names,
                takes_host=method.startswith("!"),
            )
        )
    return tuple(found)


def match(method: str, path: str) -> tuple[Route, re.Match[str]] | None:
    """Return the route that the engine takes for a decoded and cleaned `path`; None: unknown."""
    for route in routes():
        if route.method == method:
            found = route.match(path)
            if found is not None:
                return route, found
    return None


def without_version(path: str) -> str:
    """Return `path` without the version prefix, if it has one."""
    found = re.match(VERSION_PREFIX + "(?=/)", path)
    return path[found.end() :] if found else path
