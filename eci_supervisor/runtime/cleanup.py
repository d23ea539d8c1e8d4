"""Clearing up after a container.

Idempotent; also the poststop hook:

    python -I -S start.py cleanup STATE_DIR

Everything is done under the lock of the whole state, and in an order that a crash cannot
spoil: what the record names goes first, the record itself last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING

from eci_supervisor.runtime import overlay, state
from eci_supervisor.runtime.ranges import RangeStore

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 10.0
"""Seconds that a new container of the same id waits for the old one's keeper."""


def clean(state_dir: str, nonce: str | None = None) -> None:
    """Remove all that the container of `state_dir` left: work directory, ID range, state.

    With `nonce`, only if the directory is still that container's: a new one may have its id.
    Called twice, the second time does nothing.
    """
    store = _store_of(state_dir)
    with store.locked():
        clean_locked(store, state_dir, nonce)


def _store_of(state_dir: str) -> RangeStore:
    state_root = os.path.dirname(os.path.dirname(os.path.abspath(state_dir)))
    return RangeStore(state_root)


def clean_locked(store: RangeStore, state_dir: str, nonce: str | None = None) -> None:
    """As `clean`; the caller holds the lock."""
    record = state.read_record(state_dir)
    if nonce is not None and (record is None or record.nonce != nonce):
        return
    if record is not None and record.work is not None:
        _remove_work(record.work)
    if record is not None and record.engine_rootfs is not None:
        _let_go(state_dir, record.engine_rootfs)
    store.release(os.path.basename(state_dir))
    _remove_state(state_dir)


def _remove_work(path: str) -> None:
    """Remove an overlay's work directory; nothing is ever mounted in one."""
    if os.path.basename(path) == overlay.WORK_NAME:
        import shutil  # noqa: PLC0415 - it brings every compressor along

        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def _enter_engine_namespace(state_dir: str) -> None:
    """Go to the mount namespace that the view was mounted in, if this is another one.

    A `crun delete` runs in a private one of the launcher's, from where nothing propagates.
    """
    from eci_supervisor.kernel import syscalls  # noqa: PLC0415 - not always needed

    try:
        with open(f"{state_dir}/view.pid", encoding="ascii") as file:
            pid = int(file.read())
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != "eci-view":
            return
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return
    try:
        if not os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/mnt")):
            syscalls.setns(namespace, syscalls.lib.CLONE_NEWNS)
    finally:
        os.close(namespace)


def _let_go(state_dir: str, engine_rootfs: str) -> None:
    """Give the engine's own mount back as it was; where it is gone already nothing is to do."""
    from eci_supervisor.kernel import mountinfo, syscalls  # noqa: PLC0415 - not always needed

    _enter_engine_namespace(state_dir)
    target = os.fsencode(engine_rootfs)
    lib = syscalls.lib
    for mount in mountinfo.read():
        if mount.target == target and mount.fstype == b"fuse.eci-view":
            with contextlib.suppress(OSError):
                syscalls.umount2(engine_rootfs, lib.MNT_DETACH | lib.UMOUNT_NOFOLLOW)
    with contextlib.suppress(OSError):
        syscalls.mount_setattr(lib.AT_FDCWD, engine_rootfs, 0, attr_clr=lib.MOUNT_ATTR_RDONLY)


def _remove_mount_point(path: str) -> None:
    """Remove the empty directory `path`, from under a mount if there is one here.

    A poststop hook of `runc run` runs in the very mount namespace that the stage was built in.
    So this never descends: what is mounted there is the user's.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        from eci_supervisor.kernel import syscalls  # noqa: PLC0415 - hardly ever needed

        syscalls.umount2(path, syscalls.lib.MNT_DETACH | syscalls.lib.UMOUNT_NOFOLLOW)
        os.rmdir(path)


def _remove_state(state_dir: str) -> None:
    """Remove a state directory, entry by entry; the record goes last.

    Anything that is neither ours by name nor a plain file is left, and then an error.
    """
    for name in state.MOUNT_POINTS:
        _remove_mount_point(f"{state_dir}/{name}")
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"{state_dir}/bundle"):
            os.unlink(f"{state_dir}/bundle/{name}")
        os.rmdir(f"{state_dir}/bundle")
    try:
        names = os.listdir(state_dir)
    except FileNotFoundError:
        return
    for name in sorted(names, key=lambda name: name == state.RECORD):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{state_dir}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(state_dir)


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
    return record is None or not os.path.lexists(f"{record.runtime_root}/{record.id}")


def collect(store: RangeStore, state_root: str) -> int:
    """Clear up after every container that is gone; returns how many.  The caller holds the lock."""
    count = 0
    keys = set()
    for key in os.listdir(f"{state_root}/containers"):
        state_dir = f"{state_root}/containers/{key}"
        if is_gone(state_dir):
            clean_locked(store, state_dir)
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
    return _wait_while(lambda: _in_use(state_dir))


def _wait_while(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _enter_engine_mounts(inode: int) -> None:
    """Go into the engine's mount namespace, by way of the ancestor that lives in it.

    The hook of `runc run` starts in the stage's own namespace; what it gave back there, the
    engine would not see.  Without such an ancestor nothing is done: then nobody waits for it.
    """
    pid = os.getpid()
    while pid > 0:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_ino == inode:
                    if pid != os.getpid():
                        from eci_supervisor.kernel import syscalls  # noqa: PLC0415 - seldom needed

                        syscalls.setns(fd, syscalls.lib.CLONE_NEWNS)
                    return
            finally:
                os.close(fd)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The second field is the name, in parentheses; the fourth the parent: proc(5).
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except FileNotFoundError:
            return


def main(argv: list[str]) -> int:
    """Run the poststop hook: argv is the one state directory."""
    if len(argv) != 1:
        sys.stderr.write("usage: cleanup STATE_DIR\n")
        return 2
    try:
        # The keeper has the last trace lines to write; then nothing of ours is left running.
        _wait_while(lambda: _held(f"{argv[0]}/{state.KEPT}"))
        record = state.read_record(argv[0])
        if record is not None:
            _enter_engine_mounts(record.mount_namespace)
        clean(argv[0])
    except OSError as error:
        sys.stderr.write(f"eci-runtime: cannot clear up {argv[0]}: {error}\n")
        return 1
    return 0
