"""`eci metrics`: counts and times for Prometheus."""

from __future__ import annotations

import grp
import signal
import sys
from typing import TYPE_CHECKING

import click

from eci_supervisor.cli.root import require_root

if TYPE_CHECKING:
    from types import FrameType

SOCKET = "/run/eci/metrics.sock"


@click.group()
def metrics() -> None:
    """Counts and times of all protected containers, for Prometheus."""


@metrics.command()
def show() -> None:
    """Print the metrics."""
    from eci_supervisor.observe import metrics as observed  # noqa: PLC0415 - heavy

    require_root("reading the counts")
    click.echo(observed.text(), nl=False)


@metrics.command()
@click.argument("path", type=click.Path(dir_okay=False))
def textfile(path: str) -> None:
    """Write the metrics to PATH, for node_exporter: a name that ends in .prom in its directory.

    The file is replaced as a whole.  Have a timer call this every minute.
    """
    from eci_supervisor.observe import metrics as observed  # noqa: PLC0415 - heavy

    require_root("reading the counts")
    try:
        observed.write_textfile(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


@metrics.command()
@click.option("--socket", "path", default=SOCKET, show_default=True, metavar="PATH")
@click.option("--group", metavar="NAME", help="Let this group connect, too; root alone otherwise.")
def serve(path: str, group: str | None) -> None:
    """Answer HTTP requests for the metrics on a Unix socket, until ended by a signal."""
    from eci_supervisor.kernel.syscalls import renounce  # noqa: PLC0415 - as the next
    from eci_supervisor.observe import metrics as observed  # noqa: PLC0415 - heavy

    require_root("reading the counts")
    try:
        number = -1 if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise click.ClickException(f"--group {group}: there is no such group") from None
    signal.signal(signal.SIGTERM, _end)
    try:
        server = observed.Server(path, 0o600 if group is None else 0o660, number)
    except OSError as error:
        raise click.ClickException(f"cannot serve at {path}: {error.strerror}") from None
    with server:
        # Root owns what it reads.
        renounce()
        click.echo(f"eci metrics: serving at {path}", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(130)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
