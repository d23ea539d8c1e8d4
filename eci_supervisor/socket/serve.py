"""python -I -S start.py proxy PLACE LISTENER LOCK: the process of one restricted socket.

PLACE is the directory that launch.py made, LISTENER and LOCK are inherited descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import msgspec

from eci_supervisor.kernel.syscalls import CAP_DAC_OVERRIDE, confine, filter_proxy, renounce
from eci_supervisor.observe import audit, tally
from eci_supervisor.observe.commands import CommandLog
from eci_supervisor.policy.commands import Commands
from eci_supervisor.socket import refusals
from eci_supervisor.socket.channel import Address
from eci_supervisor.socket.proxy import Config, Proxy, set_limits

WATCH_SECONDS = 1.0
"""Between two looks whether the container's state is still there."""


def _is_removed(fd: int) -> bool:
    """Whether the file open as `fd` has no name any more."""
    return os.fstat(fd).st_nlink == 0


async def _run(proxy: Proxy, listener: socket.socket, lock: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    serving = asyncio.create_task(proxy.serve(listener))
    serving.add_done_callback(lambda _: ended.set())
    while not ended.is_set() and not _is_removed(lock):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_SECONDS):
                await ended.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def _confine(place: str) -> None:
    """Have the kernel refuse all files but our code, and what is written: logs and counts.

    Root of the host could read and write any file else.  A log directory that is removed and made
    anew is another one, in which nothing is written.
    """
    writes = [place, tally.directory(), audit.directory()]
    for path in writes:
        os.makedirs(path, mode=0o700, exist_ok=True)
    reads = [path for path in dict.fromkeys(sys.path) if os.path.isdir(path)]
    confine(reads, writes)


def main(argv: list[str]) -> int:
    """Serve until the container's state is removed, or SIGTERM."""
    place, listener_fd, lock_fd = argv[0], int(argv[1]), int(argv[2])
    for fd in (listener_fd, lock_fd):
        os.set_inheritable(fd, False)  # noqa: FBT003
    gc.enable()
    with open(f"{place}/config.json", "rb") as file:
        config = msgspec.json.decode(file.read(), type=Config)
    if config.log is not None:
        refusals.hooks.append(refusals.Log(config.log))
    log = CommandLog(config.container)
    refusals.hooks.append(log)
    set_limits()
    upstream = Address(config.upstream)
    # Root of the host as far as files go, as an engine's socket may be another user's, and no more:
    # what comes from a container is read here.
    renounce(CAP_DAC_OVERRIDE)
    proxy = Proxy(config, Commands(config.type, config.commands), upstream)
    _confine(place)
    filter_proxy()
    with socket.socket(fileno=listener_fd) as listener:
        asyncio.run(_run(proxy, listener, lock_fd))
    log.close()
    return 0
