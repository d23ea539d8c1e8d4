"""`python -m benchmarks`: asks the questions, draws charts, checks the bounds."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import expect, frame, plot, show, store
from benchmarks.environment import awake, environment

WIDTH = 110
"""Of a table that goes into a file or a pipe."""


def spread(words: list[str]) -> list[str]:
    """Write `--only A B` as `--only A --only B`: click's options take one word each."""
    out: list[str] = []
    listing = False
    for word in words:
        if listing and word in frame.QUESTIONS and out[-1] != "--only":
            out.append("--only")
        listing = word == "--only" or (listing and word in frame.QUESTIONS)
        out.append(word)
    return out


class _Suite(click.Group):
    """A group whose `--only` takes several names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after spreading them."""
        return super().parse_args(ctx, spread(args))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _progress() -> Progress:
    """Return a bar on standard error: standard output is for the tables."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), transient=True)


@click.group(cls=_Suite, invoke_without_command=True)
@click.option("--quick", is_flag=True, help="A first impression, in a few minutes.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(frame.QUESTIONS),
    metavar="NAME...",
    help=f"Only these questions: {', '.join(frame.QUESTIONS)}.",
)
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the results there.")
@click.option(
    "--asleep",
    is_flag=True,
    help="Let idle processors sleep, as in everyday use: unmounts take longer, and scatter.",
)
@click.pass_context
def main(
    context: click.Context, *, quick: bool, only: tuple[str, ...], path: str | None, asleep: bool
) -> None:
    """Measure what protection costs, against the bare kernel and against rivals. Needs root."""
    if context.invoked_subcommand is not None:
        return
    if os.geteuid() != 0:
        raise click.ClickException("making containers needs root")
    # What was made is taken away as after a Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = _console()
    results: list[frame.Result] = []
    for name in [name for name in frame.QUESTIONS if not only or name in only]:
        question = frame.load(name)
        with (
            awake() if not asleep else nullcontext(enter_result=False) as kept,
            _progress() as progress,
        ):
            machine = {**environment(), "quick": quick, "processors_stay_awake": kept}
            found = list(question.measure(frame.Run(quick=quick, progress=progress)))
        results += found
        console.print(show.results_table(f"{name}: {frame.title(question)}", found))
        # After each question: what was found must not be lost with the next one.
        if path is not None:
            store.dump(path, store.Report(machine, results))
    console.print(show.findings_table(_measured(results)))


def _measured(results: list[frame.Result]) -> list[expect.Finding]:
    """Return the findings for which there are figures."""
    return [one for one in expect.check(results) if one.figure is not None]


_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False))


@main.command("plot")
@_FILE
@click.option("--to", type=click.Path(file_okay=False, exists=True), help="Else beside FILE.")
def plot_command(file: str, to: str | None) -> None:
    """Draw charts of the results in FILE, as SVG and PNG."""
    for path in plot.draw(store.load(file).results, to or os.path.dirname(file) or "."):
        click.echo(path)


@main.command("expect")
@_FILE
def expect_command(file: str) -> None:
    """Check the bounds against the results in FILE; fails where one does not hold."""
    findings = list(expect.check(store.load(file).results))
    _console().print(show.findings_table(findings))
    if any(finding.verdict is expect.Verdict.FAILED for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
