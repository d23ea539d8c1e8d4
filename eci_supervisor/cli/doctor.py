"""`eci doctor`: what this kernel and host offer, and what that costs in protection or speed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from eci_supervisor.cli.engines import files, where_of
from eci_supervisor.cli.status import console

if TYPE_CHECKING:
    from eci_supervisor.engines.checks import Check


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON; its form is stable.")
@files
def doctor(*, as_json: bool, **paths: Any) -> None:
    """Say what this kernel and host offer, and what is lost where they offer less.

    Exits with 1 where something is missing without which no container starts.
    """
    from eci_supervisor.engines import checks  # noqa: PLC0415 - others need none of it

    if os.geteuid() != 0:
        raise click.ClickException("trying what the host offers needs root")
    found = checks.run(where_of(**paths))
    fit = all(check.result != checks.MISSING for check in found)
    if as_json:
        import msgspec  # noqa: PLC0415

        text = msgspec.json.format(msgspec.json.encode({"fit": fit, "checks": found}), indent=2)
        click.echo(text.decode())
    else:
        _show(found, fit=fit)
    sys.exit(0 if fit else 1)


def _show(found: list[Check], *, fit: bool) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "what", "found", "what is lost, and what to do"):
        table.add_column(name, overflow="fold")
    for check in found:
        lost = "" if check.result == "ok" else check.without
        table.add_row(*(Text(word) for word in (check.result, check.name, check.found, lost)))
    out = console()
    out.print(table)
    out.print(
        "containers can be protected here"
        if fit
        else "NO CONTAINER STARTS: see what is missing above"
    )
