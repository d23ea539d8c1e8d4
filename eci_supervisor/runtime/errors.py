"""What eci-runtime can fail with: each error is one line for the user."""

from __future__ import annotations


class EciError(Exception):
    """The container cannot be started; the text says what is wrong and what to do."""


class UsageError(EciError):
    """The command line is not one that the runtime would take."""


class SpecError(EciError):
    """config.json is not an OCI spec that can be run; the text names the key."""


class RefusedError(EciError):
    """The container asks for what no protected container gets: contract, "Messages"."""


class RangeError(EciError):
    """No ID range can be had."""


class StageError(EciError):
    """The root file system, a mount or a device cannot be prepared."""
