"""`python -m tests.differential [--calls N] [--seed N]`: compares random calls for longer."""

from __future__ import annotations

import os
import secrets
import sys
import time

import click

from tests.differential.search import search
from tests.differential.sides import sides_in
from tests.support.place import Place

CHUNK = 25_000
"""Calls of a seed; `make test` compares as many."""


@click.command()
@click.option("--calls", default=100_000, help="How many calls to compare at least.")
@click.option("--seed", type=int, help="Where to begin; else a random number.")
def main(calls: int, seed: int | None) -> None:
    """Compare random calls in a protected and in a bare container. Needs root."""
    number = secrets.randbits(32) if seed is None else seed
    place = Place.create()
    os.environ.update(place.environment)
    began = time.monotonic()
    done = 0
    try:
        with sides_in(place) as sides:
            while done < calls:
                click.echo(f"seed {number}: ", nl=False)
                count = search(sides, number, min(CHUNK, calls - done))
                done += count.calls
                click.echo(
                    f"{count.scripts} scripts, {count.calls} calls, {count.done} successful, "
                    f"{count.refused} refused; {done} calls in {time.monotonic() - began:.0f} s"
                )
                number += 1
    except AssertionError as difference:
        click.echo(f"a difference:\n{difference}")
        sys.exit(1)
    finally:
        place.remove()


if __name__ == "__main__":
    main()
