"""What switching one engine over comes to, before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines.errors import EngineError
from eci_supervisor.engines.files import Tree
from eci_supervisor.engines.journal import LIBRARY, Link
from eci_supervisor.engines.launcher import Launcher

if TYPE_CHECKING:
    from eci_supervisor.engines.edits import Change

KUBELET = ("/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet.conf")


class Where(msgspec.Struct, frozen=True):
    """Which files are meant."""

    tree: Tree = Tree()
    library: str = LIBRARY
    docker: str = "/etc/docker/daemon.json"
    containerd: str = "/etc/containerd/config.toml"
    podman: str = ""
    """One file in the place of all that podman reads (CONTAINERS_CONF); empty: the machine's."""

    @property
    def launcher(self) -> Launcher:
        """Our links in that tree."""
        return Launcher(self.tree, self.library)

    def is_usual(self, engine: str) -> bool:
        """Say whether the file is the one that the engine reads unless told otherwise."""
        mine: str = getattr(self, engine)
        usual: str = getattr(Where(), engine)
        return mine == usual


class Options(msgspec.Struct, frozen=True):
    """What the administrator decides."""

    drop_runtimes: bool = False
    """Whether runtimes that cannot be put under protection are taken out until `disable`."""
    pods: str = ""
    """`all` or `by-class`: which pods of Kubernetes are protected; empty: not said."""


class Plan:
    """What is to be done for one engine; gathered step by step."""

    def __init__(self) -> None:
        """Make one that does nothing."""
        self.changes: list[Change] = []
        self.links: list[Link] = []
        self.notes: list[str] = []
        self.restart: list[str] = []
        """Services that have to be started anew, in this order."""

    def add(self, change: Change | None) -> None:
        """Add the change of a file; None is none."""
        if change is not None:
            self.changes.append(change)

    def link(self, links: tuple[Link, ...]) -> None:
        """Add links of ours."""
        self.links += [link for link in links if link not in self.links]


def is_node(where: Where) -> bool:
    """Say whether the machine is a node of a Kubernetes cluster."""
    return any(where.tree.exists(path) for path in KUBELET)


def not_protected(where: str, name: str, what: str) -> EngineError:
    """Return the refusal of a runtime that is neither runc nor crun."""
    return EngineError(
        f"{where}: {what} is neither runc nor crun, so what is started with runtime {name} would "
        "not be protected: remove it, or have it taken out until `eci disable` with "
        "--drop-runtimes"
    )
