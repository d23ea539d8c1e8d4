"""The `eci` command."""

from __future__ import annotations

import click

import eci_supervisor
from eci_supervisor.cli.completion import completion
from eci_supervisor.cli.doctor import doctor
from eci_supervisor.cli.engines import disable, enable
from eci_supervisor.cli.explain import explain
from eci_supervisor.cli.metrics import metrics
from eci_supervisor.cli.run import run
from eci_supervisor.cli.settings import settings
from eci_supervisor.cli.status import status
from eci_supervisor.cli.trace import trace


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eci_supervisor.__version__, prog_name="eci")
def main() -> None:
    """Enhanced container isolation for every Linux host and engine."""


for command in (
    completion,
    disable,
    doctor,
    enable,
    explain,
    metrics,
    run,
    settings,
    status,
    trace,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
