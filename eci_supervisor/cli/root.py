"""What people's commands share: for root only."""

from __future__ import annotations

import os

import click


def require_root(what: str) -> None:
    """Stop, with one line, unless the effective user is root; `what` needs it."""
    if os.geteuid() != 0:
        raise click.ClickException(f"{what} needs root")
