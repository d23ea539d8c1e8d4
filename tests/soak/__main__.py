"""`python -m tests.soak [--minutes N] [--out DIR]`: mixed load for a chosen time; flat or not."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import click

from tests.soak.run import soak
from tests.support.engines import ECI_RUNTIME
from tests.support.place import Place


@click.command()
@click.option("--minutes", default=10.0, help="How long the load lasts.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build/soak"),
    help="Where samples, chart and table go.",
)  # fmt: skip
@click.option("--seed", type=int, help="Which load; else a random number.")
@click.option(
    "--shared", is_flag=True, help="Others use this machine: do not judge what is the machine's."
)
def main(minutes: float, out: Path, seed: int | None, *, shared: bool) -> None:
    """Run mixed load, and look whether anything grows. Needs root."""
    number = secrets.randbits(32) if seed is None else seed
    click.echo(f"seed {number}")
    place = Place.create()
    os.environ.update(place.environment)
    link = place.directory("r") / "eci-runtime-crun"
    link.symlink_to(ECI_RUNTIME)
    runtimes = {"eci": ECI_RUNTIME, "eci-crun": link}
    try:
        result = soak(place, runtimes, minutes, out, seed=number, alone=not shared, tell=click.echo)
        left = place.leftovers()
    finally:
        if not place.left_mounts():
            place.remove()
    click.echo(result.text())
    for line in left:
        click.echo(f"left behind: {line}")
    sys.exit(bool(result.all_faults or left))


if __name__ == "__main__":
    main()
