"""`eci settings`: what the administrator has set, before it counts."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
import msgspec

from eci_supervisor.policy import settings as policy
from eci_supervisor.policy.paths import split

# The public identifier of the form; nothing is fetched from there.
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.group()
def settings() -> None:
    """Check the administrator's settings."""


@settings.command()
@click.argument("file", required=False, metavar="[FILE]")
def check(file: str | None) -> None:
    """Validate FILE, or the settings that are in force.

    The exit code is 0 where containers would start with it, and 1 where none would.  What is
    accepted and has no effect is told, too.
    """
    named = file or os.environ.get("ECI_SETTINGS") or None
    try:
        found = policy.read(file) if file is not None else policy.load(named)
    except policy.SettingsError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    path = named or policy.DEFAULT_PATH
    if not os.path.exists(path):
        click.echo(f"{path}: no such file: the defaults are in force")
        return
    for note in notes(path, found):
        click.echo(f"{path}: {note}")
    click.echo(f"{path}: in order")


@settings.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors and other programs."""
    click.echo(schema_text(), nl=False)


def schema_text() -> str:
    """Return the schema as it is shipped, made from the types of `policy.settings`."""
    made: dict[str, Any] = msgspec.json.schema(policy.Settings)
    return json.dumps({"$schema": _DIALECT, **made}, indent=2) + "\n"


def notes(path: str, found: policy.Settings) -> list[str]:
    """Return what an administrator may not have meant: keys and paths without effect."""
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    said = [
        f"line {policy.line_of(text, steps)}: {'.'.join(steps)}: unknown key, without effect"
        for steps in unknown_keys(json.loads(text), policy.Settings)
    ]
    for key, entries in (
        ("protectedPaths", found.vm.protected_paths),
        ("sharedPaths", found.vm.shared_paths),
    ):
        given = json.loads(text).get("vm", {}).get(key, ())
        said += [
            f"line {policy.line_of(text, ['vm', key, index])}: vm.{key}[{index}]: "
            f"nothing is at {split(entry)[0]} on this host"
            for index, entry in enumerate(entries if given else ())
            if not os.path.exists(split(entry)[0])
        ]
    if not found.enhanced_container_isolation.value:
        said.append("enhancedContainerIsolation.value: false, so no container is protected")
    return said


def unknown_keys(document: dict[str, Any], kind: type[msgspec.Struct]) -> list[list[str]]:
    """Return the paths of keys that `kind` does not have, in the order of the document."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    found = []
    for key, value in document.items():
        inner = fields.get(key)
        if inner is None:
            found.append([key])
        elif isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found += [[key, *rest] for rest in unknown_keys(value, inner)]
    return found
