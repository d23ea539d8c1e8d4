"""`eci explain`: one refusal, in words."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

import click

from eci_supervisor.cli.completion import refusals
from eci_supervisor.cli.root import require_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.observe.audit import Record, Thing

LISTED = 20
"""How many refusals are listed where none is named."""


@click.command()
@click.argument("refusal", required=False, metavar="[ID]", shell_complete=refusals)
@click.option("--json", "as_json", is_flag=True, help="Print the record as it is in the log.")
def explain(refusal: str | None, *, as_json: bool) -> None:
    """Explain the refusal ID: what was asked, which rule said no, which setting would allow it.

    ID is that of a line of the audit log, or what it begins with.  Without it the last refusals
    are listed.
    """
    from eci_supervisor.observe import audit, find  # noqa: PLC0415 - `eci run` needs none of it

    require_root("reading the audit log")
    where = f"{audit.directory()}/{audit.NAME}"
    if refusal is None:
        _list(where)
        return
    logs = find.logs(audit.directory())
    found = {record.id: record for path in logs for record in _refusals(path, refusal)}
    exact = found.get(refusal)
    if exact is not None:
        found = {refusal: exact}
    if not found:
        raise click.ClickException(
            f"no refusal {audit.printable(refusal)} in {where}, nor in those that were put away: "
            "`eci explain` lists the last ones"
        )
    if len(found) > 1:
        raise click.ClickException(
            f"{len(found)} refusals begin with {refusal}: {', '.join(sorted(found)[:LISTED])}"
        )
    (record,) = found.values()
    if as_json:
        import msgspec  # noqa: PLC0415 - as above

        click.echo(msgspec.json.encode(record).decode())
    else:
        click.echo("\n".join(lines(record)))


def _refusals(path: str, begun: str) -> Iterator[Record]:
    """Give the refusals of one file whose id begins so; warns where it cannot be read."""
    from eci_supervisor.observe import find  # noqa: PLC0415 - as above

    try:
        for record in find.records(path, begun):
            if record.id.startswith(begun) and record.event == "refusal":
                yield record
    except (OSError, EOFError, lzma.LZMAError) as error:
        click.echo(f"eci: {path} cannot be read: {error}", err=True)


def _list(where: str) -> None:
    from eci_supervisor.observe import audit, find  # noqa: PLC0415 - as above

    found: list[Record] = []
    for path in find.logs(audit.directory()):
        found += _refusals(path, "")
        if len(found) >= LISTED:
            break  # those that are left are older
    found = sorted(found, key=lambda record: record.id)[-LISTED:]
    if not found:
        click.echo(f"nothing was refused: {where} has no refusals")
    for record in found:
        what = record.call or record.message
        words = (record.id, record.time, record.container[:12], record.reason, what)
        click.echo("  ".join(audit.printable(word) for word in words))


def _thing(thing: Thing) -> str:
    name = thing.path or "(no path)"
    return f"{name} (device {thing.device}, inode {thing.inode}, mount {thing.mount})"


def lines(record: Record) -> list[str]:
    """Return what there is to say of a refusal.  Pure; all text is printable ASCII."""
    from eci_supervisor.observe.audit import printable  # noqa: PLC0415 - as above
    from eci_supervisor.policy.refusals import text_of  # noqa: PLC0415 - as above

    text = text_of(record.reason)
    who = f"{record.comm}, process {record.pid} of the host" if record.pid else ""
    rows = [
        ("refusal", record.id),
        ("when", record.time),
        ("container", record.container),
        ("image", record.image),
        ("who", who.removeprefix(", ")),
        ("asked", record.call),
        ("answer", record.result),
        ("source", "" if record.source is None else _thing(record.source)),
        ("target", "" if record.target is None else _thing(record.target)),
        ("message", record.message),
        ("reason", record.reason),
        ("rule", record.rule or text.rule),
        ("setting", record.setting or "none would allow it"),
        ("instead", text.advice),
    ]
    return [f"{name:<10} {printable(value)}" for name, value in rows if value]
