"""python -I -S start.py proxy PLACE LISTENER LOCK: the process of one restricted socket.

PLACE is the directory that launch.py made, LISTENER and LOCK are inherited descriptors.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket

import msgspec

from eci_supervisor.policy.commands import Commands
from eci_supervisor.socket import refusals
from eci_supervisor.socket.proxy import Config, Proxy, is_removed, raise_limits


async def _run(proxy: Proxy, listener: socket.socket, lock: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await proxy.serve(listener, lambda: ended.is_set() or is_removed(lock))


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
    raise_limits()
    proxy = Proxy(config, Commands(config.type, config.commands))
    with socket.socket(fileno=listener_fd) as listener:
        asyncio.run(_run(proxy, listener, lock_fd))
    return 0
