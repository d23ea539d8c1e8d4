"""What each container's worker has counted, and all of them together."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import holding, watch
from eci_supervisor.runtime import state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.kernel.watch import Counts


class Seen(msgspec.Struct, frozen=True):
    """One container that has a state directory, and what was counted for it."""

    id: str
    """The id that the engine chose."""
    key: str
    """Name of its state directory: unique over all runtime roots."""
    state_dir: str
    runtime: str
    """`runc` or `crun`."""
    runtime_root: str
    supervised: bool
    """False: it cannot mount at all, so there is nobody to count anything."""
    spared: bool
    """Plain unmounts, binds and new file systems are not trapped, and so not counted: spare.py."""
    keeper_alive: bool
    worker_alive: bool
    """False where it is not supervised."""
    counts: Counts

    @property
    def calls(self) -> int:
        """How many calls were trapped so far."""
        return sum(self.counts.calls.values())

    @property
    def refusals(self) -> int:
        """How many of them a rule refused."""
        return sum(n for (_, reason), n in self.counts.calls.items() if is_refusal(reason))

    @property
    def drops(self) -> int:
        """How many refusals could not be logged, because the ring was full."""
        return self.counts.dropped


def is_refusal(reason: str) -> bool:
    """Say whether a reason's name (kernel.reasons) is that of a refusal."""
    return reason.startswith("refused:")


def verdict_of(reason: str) -> str:
    """Return what became of a call that was answered for this reason (its name).

    `performed`, `passed` (the kernel made it), `failed` (it would have without us), `refused` or
    `gone` (nobody waited any more).
    """
    if is_refusal(reason):
        return "refused"
    if reason.startswith("passed:"):
        return "passed"
    return {"performed": "performed", "caller-gone": "gone"}.get(reason, "failed")


@contextlib.contextmanager
def _locked(state_root: str) -> Iterator[None]:
    """Hold off who clears up, for as long as it takes to read a few files."""
    try:
        fd = os.open(f"{state_root}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def _is_spared(state_dir: str) -> bool:
    try:
        with open(f"{state_dir}/{state.COVER}", "rb") as file:
            return state.SPARED in file.read().split(b"\0")
    except FileNotFoundError:
        return False


def _look(state_dir: str) -> Seen | None:
    record = state.read_record(state_dir)
    if record is None:
        return None
    return Seen(
        id=record.id,
        key=record.key,
        state_dir=state_dir,
        runtime=record.runtime,
        runtime_root=record.runtime_root,
        supervised=record.supervised,
        spared=_is_spared(state_dir),
        keeper_alive=holding.is_held(f"{state_dir}/{state.KEPT}"),
        worker_alive=holding.is_held(f"{state_dir}/{watch.FILE}"),
        counts=watch.read_counts(f"{state_dir}/{watch.FILE}") or watch.NONE,
    )


def _containers(state_root: str) -> list[Seen]:
    try:
        keys = sorted(os.listdir(f"{state_root}/containers"))
    except FileNotFoundError:
        return []
    found = (_look(f"{state_root}/containers/{key}") for key in keys)
    return [seen for seen in found if seen is not None]


def containers(state_root: str | None = None) -> list[Seen]:
    """Return every container that there is, in the order of their keys.

    Without `state_root`: that of the environment.  Wakes nobody.  PermissionError for others than
    root.
    """
    root = state.root() if state_root is None else state_root
    with _locked(root):
        return _containers(root)


def everything(state_root: str | None = None) -> tuple[list[Seen], Counts]:
    """Return the same, and what all containers together have counted since the host was started.

    The second never shrinks: those that are gone are in it.
    """
    root = state.root() if state_root is None else state_root
    with _locked(root):
        found = _containers(root)
        total = watch.read_counts(f"{root}/{watch.TOTAL}") or watch.NONE
    for seen in found:
        total += seen.counts
    return found, total
