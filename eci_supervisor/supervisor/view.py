"""The engine's view of a running container's files (csrc/view.c), as the keeper starts it.

It lies on the engine's own mount of the root file system, in the host's mount namespace, and
shows the container's files with the ids that the engine expects.  Whoever unmounts it ends it.
"""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from eci_supervisor.runtime.state import bin_path

if TYPE_CHECKING:
    from eci_supervisor.supervisor.charge import Charge

PROGRAM = bin_path("eci-view")
READY_SECONDS = 10
PID_FILE = "view.pid"
"""In the state directory: who serves the view, in the host's PID namespace."""


class ViewError(Exception):
    """The view did not come up; the text says why."""


def start(charge: Charge, pid: int, engine_rootfs: str, errors: int) -> None:
    """Lay a view of the root of `pid` (host's number) over `engine_rootfs`.

    `errors` is an fd that gets the program's standard error.  The program lives on by itself.
    """
    fds: list[int] = []
    try:
        fds.append(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        fds.append(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        ready, tell = os.pipe2(os.O_CLOEXEC)
        fds += [tell, ready]
        root, mntns = fds[:2]
        process = subprocess.Popen(
            [
                PROGRAM,
                f"--base={charge.base}",
                f"--size={charge.size}",
                f"--root-fd={root}",
                f"--mntns-fd={mntns}",
                f"--ready-fd={tell}",
                engine_rootfs,
            ],
            pass_fds=[root, mntns, tell],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            env={},
            start_new_session=True,
        )
        os.close(fds.pop(2))
        Path(charge.state_dir, PID_FILE).write_text(f"{process.pid}\n", encoding="ascii")
        readable, _, _ = select.select([ready], [], [], READY_SECONDS)
        if not readable or not os.read(ready, 1):
            msg = f"eci-view did not come up on {engine_rootfs}"
            raise ViewError(msg)
    finally:
        for fd in fds:
            os.close(fd)
