"""`python -m benchmarks [--quick]`: measures, and prints medians and ratios."""

from __future__ import annotations

import platform

import click
from rich.console import Console
from rich.table import Table

from benchmarks import pairs

AIM = 1.5
"""A mount and umount pair may take so many times the native one."""


@click.command()
@click.option("--quick", is_flag=True, help="A first impression, in less than half a minute.")
def main(*, quick: bool) -> None:
    """Measure mounts in a protected container against the bare kernel. Needs root."""
    rounds, count = (10, 100) if quick else (50, 400)
    for busy in (False, True):
        state = "a busy process beside" if busy else "nothing else started"
        title = f"kernel {platform.release()}, medians of {rounds} x {count}, {state}"
        Console().print(_table(title, pairs.run(rounds, count, busy=busy)))


def _table(title: str, rows: list[pairs.Row]) -> Table:
    """Return the rows as a table; those of a whole pair say how they stand to the aim."""
    caption = f"aim: a mount and umount pair at most {AIM} x native"
    table = Table(title=title, caption=caption, min_width=len(title))
    for name in ("call", "native µs", "protected µs", "ratio", ""):
        table.add_column(name, justify="left" if name in {"call", ""} else "right")
    for row in rows:
        verdict = ("within the aim" if row.ratio <= AIM else "above the aim") if row.pair else ""
        table.add_row(
            row.call,
            f"{row.native:.1f}",
            f"{row.protected:.1f}",
            f"{row.ratio:.2f}",
            verdict,
            end_section=row.pair,
        )
    return table


if __name__ == "__main__":
    main()
