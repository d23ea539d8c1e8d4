"""The `eci` command."""

from __future__ import annotations

import click

from eci_supervisor.cli.run import run
from eci_supervisor.cli.settings import settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="eci-supervisor", prog_name="eci")
def main() -> None:
    """Enhanced container isolation for every Linux host and engine."""


main.add_command(run)
main.add_command(settings)

if __name__ == "__main__":
    main()
