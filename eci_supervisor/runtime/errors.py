"""What eci-runtime can fail with: each error is one line for the user."""

from __future__ import annotations

from eci_supervisor.policy import refusals


class EciError(Exception):
    """The container cannot be started; the text says what is wrong and what to do."""


class UsageError(EciError):
    """The command line is not one that the runtime would take."""


class SpecError(EciError):
    """config.json is not an OCI spec that can be run; the text names the key."""


class RefusedError(EciError):
    """The container asks for what no protected container gets.

    `reason` is its code in `policy.refusals`, for the audit log: that of the class, or its own.
    """

    reason: str = refusals.CONTAINER_SPEC

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class RangeError(EciError):
    """No ID range can be had."""


class StageError(EciError):
    """The root file system, a mount or a device cannot be prepared."""
