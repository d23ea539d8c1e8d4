"""The engine's view of a running container's files (csrc/view.c), as the keeper starts it.

It lies on the engine's own mount of the root file system, in the host's mount namespace, and
shows the container's files with the ids that the engine expects.  Whoever unmounts it ends it.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eci_supervisor.runtime.state import bin_path

if TYPE_CHECKING:
    from eci_supervisor.supervisor.charge import Charge

PROGRAM = bin_path("eci-view")
READY_SECONDS = 10
PID_FILE = "view.pid"
"""In the state directory: who serves the view, in the host's PID namespace."""


class ViewError(Exception):
    """The view did not come up; the text says why."""


class Root(NamedTuple):
    """A root file system.  Owns two descriptors."""

    directory: int
    namespace: int
    """The mount namespace that the directory's mount is in."""

    @classmethod
    def open(cls, pid: int, path: str = "") -> Root:
        """Open what a process (host's number) has at `path`, by default its root directory."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        directory = os.open(f"/proc/{pid}/root{path}", flags)
        try:
            return cls(directory, os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            os.close(directory)
            raise

    def close(self) -> None:
        """Close both."""
        os.close(self.directory)
        os.close(self.namespace)


def staged(runtime_pidfd: int, state_dir: str) -> Root:
    """Open the root file system in the stage, which lasts as long as the runtime's invocation.

    The container's own copy cannot be had without the mounts that the kernel has locked in it.
    """
    text = Path(f"/proc/self/fdinfo/{runtime_pidfd}").read_text(encoding="ascii")
    found = re.search(r"^Pid:\t(\d+)$", text, re.MULTILINE)
    if found is None:
        raise ProcessLookupError
    return Root.open(int(found[1]), f"{state_dir}/rootfs")


def begin(charge: Charge, engine_rootfs: str, errors: int, root: Root) -> int:
    """Start to lay a view of `root`, the caller's, over `engine_rootfs`.

    `errors` is an fd that gets the program's standard error.  Returns the descriptor, the caller's,
    that `finish` is given.  The program lives on by itself.
    """
    ready, tell = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            [
                PROGRAM,
                f"--base={charge.base}",
                f"--size={charge.size}",
                f"--root-fd={root.directory}",
                f"--mntns-fd={root.namespace}",
                f"--ready-fd={tell}",
                *(["--read-only"] if charge.readonly_root else []),
                engine_rootfs,
            ],
            pass_fds=[*root, tell],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            env={},
            start_new_session=True,
        )
        Path(charge.state_dir, PID_FILE).write_text(f"{process.pid}\n", encoding="ascii")
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(tell)
    return ready


def finish(ready: int) -> None:
    """Wait until the view stands; consumes what `begin` gave.  ViewError if it does not come up."""
    try:
        readable, _, _ = select.select([ready], [], [], READY_SECONDS)
        if not readable or not os.read(ready, 1):
            msg = "eci-view did not come up"
            raise ViewError(msg)
    finally:
        os.close(ready)


def is_begun(state_dir: str) -> bool:
    """Say whether a view was begun for the container, by whichever keeper."""
    return os.path.exists(f"{state_dir}/{PID_FILE}")
