"""`eci completion`: what a shell needs to complete the words of `eci`."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL has to read to complete commands, options, containers and refusals.

    \b
    bash:  eci completion bash > /etc/bash_completion.d/eci
    zsh:   eci completion zsh > /usr/local/share/zsh/site-functions/_eci
    fish:  eci completion fish > /etc/fish/completions/eci.fish
    """  # noqa: D301 - the sign that click leaves the lines as they are
    root = context.find_root().command
    kind = get_completion_class(shell)
    if kind is None:  # click knows all three
        raise click.ClickException(f"no completion for {shell}")
    click.echo(kind(root, {}, "eci", "_ECI_COMPLETE").source())


def containers(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Complete the id of a container; nothing for others than root."""
    from eci_supervisor.observe import counts  # noqa: PLC0415 - where there is something to complete

    try:
        found = counts.containers()
    except OSError:
        return []
    return [CompletionItem(seen.id) for seen in found if seen.id.startswith(begun)]


def refusals(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Complete the id of a refusal of the newest log; nothing for others than root."""
    from eci_supervisor.observe import audit, find  # noqa: PLC0415 - as above

    try:
        found = list(find.records(f"{audit.directory()}/{audit.NAME}", begun))
    except OSError:
        return []
    return [
        CompletionItem(record.id, help=record.reason)
        for record in found
        if record.event == "refusal" and record.id.startswith(begun)
    ]
