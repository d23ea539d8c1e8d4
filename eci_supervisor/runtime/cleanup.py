"""Clearing up after containers: when, and after which.

What is done is csrc/cleanup.c's, which is the poststop hook as well: idempotent, and in an order
that a crash cannot spoil.  All of it under the lock of the whole state.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime import state
from eci_supervisor.runtime.ranges import RangeStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = state.bin_path("eci-cleanup")
_PATIENCE = 10.0
"""Seconds that a new container of the same id waits for the old one's keeper."""


def clean(state_dir: str, nonce: str | None = None) -> None:
    """Remove all that the container of `state_dir` left: work directory, ID range, state.

    With `nonce`, only if the directory is still that container's: a new one may have its id.
    Called twice, the second time does nothing.
    """
    state_root = os.path.dirname(os.path.dirname(os.path.abspath(state_dir)))
    with RangeStore(state_root).locked():
        clean_locked(state_dir, nonce)


def clean_locked(state_dir: str, nonce: str | None = None) -> None:
    """As `clean`; the caller holds the lock.  OSError where something could not be removed.

    What it was stands on standard error.
    """
    record = state.read_record(state_dir)
    if nonce is not None and (record is None or record.nonce != nonce):
        return
    words = [PROGRAM, "--locked", os.path.abspath(state_dir), *words_of(record)]
    pid = os.posix_spawn(PROGRAM, words, os.environ)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise OSError(errno.EIO, "cannot clear up", state_dir)


def words_of(record: state.Record | None) -> tuple[str, str]:
    """Return what csrc/cleanup.c has to be told of a container: work directory, engine's mount."""
    if record is None:
        return "", ""
    return record.work or "", record.engine_rootfs or ""


def _held(path: str) -> bool:
    """Whether somebody holds the flock `path`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _in_use(state_dir: str) -> bool:
    """Whether a wrapper or a keeper is at work on `state_dir`."""
    return _held(f"{state_dir}/{state.BUSY}") or _held(f"{state_dir}/{state.KEPT}")


def is_gone(state_dir: str) -> bool:
    """Whether the container of `state_dir` is no more, so that its state may be removed.

    The caller holds the lock of the whole state.
    """
    if _in_use(state_dir):
        return False
    record = state.read_record(state_dir)
    if record is None:
        # Records are never written in part: one that cannot be read says nothing about whether its
        # container, and with it its ID range, is in use.
        return not os.path.lexists(f"{state_dir}/{state.RECORD}")
    return not _exists(record)


def _exists(record: state.Record) -> bool:
    """Whether the runtime still has the container.

    An engine may have a mount of its own over its runtime's root (PrivateTmp=, PrivateMounts= of
    systemd.exec(5)).  From another mount namespace that is seen through any process that lives
    there: the container's monitor does as long as it runs.
    """
    path = f"{record.runtime_root}/{record.id}"
    if os.path.lexists(path):
        return True
    namespace = os.stat("/proc/self/ns/mnt").st_ino
    if record.mount_namespace in (0, namespace):
        return False
    return any(_is_in(root, path) for root in _roots(record.mount_namespace))


def _roots(namespace: int) -> Iterator[str]:
    """Yield the root directory, in procfs, of each process in a mount namespace, by its inode."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                found = os.stat(f"/proc/{name}/ns/mnt").st_ino
            except OSError:
                continue  # it has ended
            if found == namespace:
                yield f"/proc/{name}/root"


def _is_in(root: str, path: str) -> bool:
    """Whether `path` exists in the directory `root`; links in it begin there, too."""
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(syscalls.openat2(top, path, os.O_PATH, resolve=lib.RESOLVE_IN_ROOT))
    except OSError:
        return False
    finally:
        os.close(top)
    return True


def collect(store: RangeStore, state_root: str) -> int:
    """Clear up after every container that is gone; returns how many.  The caller holds the lock."""
    count = 0
    keys = set()
    for key in os.listdir(f"{state_root}/containers"):
        state_dir = f"{state_root}/containers/{key}"
        if is_gone(state_dir):
            clean_locked(state_dir)
            count += 1
        else:
            keys.add(key)
    # Holders without a state directory: somebody removed it by hand.
    for slot in os.listdir(store.root):
        for key in store.holders(int(slot)):
            if key not in keys:
                store.release(key)
                count += 1
    return count


def wait_until_free(state_dir: str) -> bool:
    """Wait until no wrapper or keeper is at work on `state_dir`; False after ten seconds.

    A keeper needs a moment to end after its container has; an engine may start the next one
    of the same id meanwhile.
    """
    deadline = time.monotonic() + _PATIENCE
    while _in_use(state_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
