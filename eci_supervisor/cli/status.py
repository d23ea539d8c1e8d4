"""`eci status`: engines, settings, and each running container."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from eci_supervisor.cli.engines import files, where_of

if TYPE_CHECKING:
    from rich.console import Console

    from eci_supervisor.engines.running import Container
    from eci_supervisor.engines.status import Engine, SettingsState, Status


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON; its form is stable.")
@files
def status(*, as_json: bool, **paths: Any) -> None:
    """Show engines, settings, and which running containers are protected."""
    from eci_supervisor.engines.errors import EngineError  # noqa: PLC0415 - others need none
    from eci_supervisor.engines.status import gather  # noqa: PLC0415

    if os.geteuid() != 0:
        raise click.ClickException("looking at containers needs root")
    try:
        found = gather(where_of(**paths))
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        import msgspec  # noqa: PLC0415

        text = msgspec.json.format(msgspec.json.encode(found), indent=2)
        click.echo(text.decode())
        return
    _show(found)


def console() -> Console:
    """Return where tables go: as wide as the terminal; without one, as they are."""
    from rich.console import Console  # noqa: PLC0415

    wide = None if sys.stdout.isatty() else 240
    return Console(width=wide, highlight=False, markup=False, soft_wrap=True)


def _show(found: Status) -> None:
    out = console()
    out.print(f"eci-supervisor {found.version}, kernel {found.kernel}")
    out.print(f"settings: {_settings(found.settings)}")
    for engine in found.engines:
        for line in _engine(engine):
            out.print(line)
    if not found.containers:
        out.print("no container is running")
        return
    out.print(_table(found.containers))
    for container in found.containers:
        if container.recreate:
            name = _plain(container.name or container.id[:12])
            out.print(f"{name} is not protected: {container.why}. To protect it:")
            out.print(f"  {_plain(container.recreate)}")
    for container in found.containers:
        if container.renew:
            name = _plain(container.name or container.id[:12])
            version = _plain(container.version or "an older version")
            out.print(f"{name} keeps the programs of {version}. To have those of {found.version}:")
            out.print(f"  {_plain(container.renew)}")


def _settings(state: SettingsState) -> str:
    if state.state == "error":
        return f"NO CONTAINER STARTS: {state.error}"
    if not state.protects:
        return f"NEW CONTAINERS ARE NOT PROTECTED: {state.path}: enhancedContainerIsolation.value"
    return state.path if state.state == "file" else f"defaults, as there is no {state.path}"


def _engine(engine: Engine) -> list[str]:
    if not engine.program:
        return [f"{engine.name}: not installed"]
    lines = [f"{engine.name}: {'enabled' if engine.enabled else 'not enabled'}"]
    for process in engine.processes:
        path = "our runc first on its PATH" if process.shadowed else "bare runc on its PATH"
        lines.append(f"  process {process.pid}, {process.config}, {path}")
    lines += [f"  edited since: {path}" for path in engine.edited]
    lines += [f"  {problem}" for problem in engine.problems if engine.enabled]
    return lines


def _table(containers: list[Container]) -> Any:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("container", "engine", "pid", "protected", "why", "ids", "keeper", "version"):
        table.add_column(name, overflow="fold")
    table.add_column("calls", justify="right")
    table.add_column("refused", justify="right")
    for one in containers:
        words = [
            one.name or one.id[:12],
            one.engine,
            str(one.pid),
            "yes" if one.protected else "NO",
            one.why,
            "" if one.first_id is None else f"{one.first_id}-{one.first_id + one.ids - 1}",
            _number(one.supervisor),
            one.version,
            _number(one.calls),
            _number(one.refusals),
        ]
        table.add_row(*(Text(_plain(word)) for word in words))
    return table


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _plain(text: str) -> str:
    """Return text that says nothing to a terminal: names come from whoever made the container."""
    return "".join(c if c.isprintable() else "?" for c in text)
