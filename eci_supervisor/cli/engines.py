"""`eci enable` and `eci disable`: whole engines under protection, and back."""

from __future__ import annotations

import os
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.engines.plan import Where
    from eci_supervisor.engines.switch import Outcome

ENGINES = ("docker", "containerd", "podman")

_FILES = (
    click.option(
        "--root",
        default="/",
        type=click.Path(exists=True, file_okay=False, resolve_path=True),
        metavar="DIR",
        help="Change the files of the tree DIR, not this machine's.",
    ),
    click.option("--docker-config", metavar="FILE", help="dockerd's --config-file, if not usual."),
    click.option(
        "--containerd-config", metavar="FILE", help="containerd's --config, if not usual."
    ),
    click.option("--containers-conf", metavar="FILE", help="Podman's CONTAINERS_CONF, if any."),
)


def files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where an engine's files are."""
    for option in reversed(_FILES):
        command = option(command)
    return command


def where_of(
    root: str, docker_config: str | None, containerd_config: str | None, containers_conf: str | None
) -> Where:
    """Return the files that the options, and ECI_LIBRARY, name."""
    from eci_supervisor.engines.files import Tree  # noqa: PLC0415 - `eci run` needs none of it
    from eci_supervisor.engines.journal import LIBRARY  # noqa: PLC0415
    from eci_supervisor.engines.plan import Where  # noqa: PLC0415

    given = {
        "docker": docker_config,
        "containerd": containerd_config,
        "podman": containers_conf,
    }
    return Where(
        tree=Tree(root),
        library=os.environ.get("ECI_LIBRARY") or LIBRARY,
        **{name: os.path.abspath(path) for name, path in given.items() if path},
    )


_ENGINE = click.option(
    "--engine",
    type=click.Choice([*ENGINES, "all"]),
    default="all",
    help="Which one; all that are installed by default.",
)
_RESTART = click.option("--restart", is_flag=True, help="Start the engines anew afterwards.")


@click.command()
@_ENGINE
@_RESTART
@click.option(
    "--drop-runtimes",
    is_flag=True,
    help="Take out, until `disable`, registered runtimes that are neither runc nor crun.",
)
@click.option(
    "--pods",
    type=click.Choice(["all", "by-class"]),
    help="On a node of Kubernetes: which pods are protected.",
)
@files
def enable(
    *, engine: str, restart: bool, drop_runtimes: bool, pods: str | None, **paths: str | None
) -> None:
    """Have engines start every container protected.

    What they are told is undone exactly by `eci disable`.  No engine is started anew unless
    --restart says so; what has to be run is printed.
    """
    from eci_supervisor.engines import switch  # noqa: PLC0415
    from eci_supervisor.engines.plan import Options  # noqa: PLC0415

    where = _where(paths)
    names = switch.present(where) if engine == "all" else [engine]
    if not names:
        raise click.ClickException("no engine is installed: neither dockerd, containerd nor podman")
    options = Options(drop_runtimes=drop_runtimes, pods=pods or "")
    # All or none: what one of them cannot be given is found before anything is changed.
    for name in names:
        _one(partial(switch.rehearse, where, name, options))
    outcomes = [_one(partial(switch.enable, where, name, options)) for name in names]
    _report(where, outcomes, "protected", restart=restart)
    click.echo("What runs already is not protected before it is started again: see eci status")


@click.command()
@_ENGINE
@_RESTART
@files
def disable(*, engine: str, restart: bool, **paths: str | None) -> None:
    """Give engines back exactly the files that they had before `eci enable`."""
    from eci_supervisor.engines import switch  # noqa: PLC0415

    where = _where(paths)
    names = list(_one(lambda: switch.switched(where))) if engine == "all" else [engine]
    found = [_one(partial(switch.disable, where, name)) for name in names]
    outcomes = [outcome for outcome in found if outcome is not None]
    if not outcomes:
        click.echo("nothing is switched over")
        return
    _report(where, outcomes, "as before", restart=restart)


def _where(paths: dict[str, Any]) -> Where:
    if os.geteuid() != 0:
        raise click.ClickException("changing an engine's files needs root")
    return where_of(**paths)


def _one(call: Callable[[], Any]) -> Any:
    """Return what `call` does; what it refuses is one line for the user."""
    from eci_supervisor.engines.errors import EngineError  # noqa: PLC0415

    try:
        return call()
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"{error.filename or 'a file'}: {error.strerror or error}"
        ) from error


def _report(where: Where, outcomes: list[Outcome], what: str, *, restart: bool) -> None:
    """Say what was done, and what is left to do."""
    from eci_supervisor.engines import switch  # noqa: PLC0415

    services: list[str] = []
    for outcome in outcomes:
        files = ", ".join(outcome.changed) or "nothing to change"
        click.echo(f"{outcome.engine}: {what}: {files}")
        for note in outcome.notes:
            click.echo(f"  {note}")
        services += [name for name in outcome.restart if name not in services]
    if not switch.commands(where, services):
        return
    if restart and where.tree.root == "/":
        _one(lambda: switch.restart(where, services))
        click.echo(f"started anew: {' '.join(services)}")
        return
    _one(lambda: switch.reload_units(where))
    click.echo("To take effect, run (containers of Docker stop, unless live-restore is set):")
    for words in switch.commands(where, services):
        click.echo(f"  {shlex.join(words)}")
