"""How a worker has ended, as its keeper tells it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import pytest

from eci_supervisor.supervisor.worker import Worker


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 3", "exit code 3"),
        (f"kill -{signal.SIGKILL} $$", "killed by signal 9"),
        (f"kill -{signal.SIGSYS} $$", "killed by its own filter"),
    ],
)
def test_how_it_ended_is_told(script: str, told: str) -> None:
    with subprocess.Popen(["sh", "-c", script]) as process, socket.socket() as control:
        pidfd = os.pidfd_open(process.pid)
        worker = Worker(process.pid, pidfd, control)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert worker.ending().startswith(told)
        os.close(pidfd)


def test_one_that_lives_has_not_ended() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process, socket.socket() as control:
        pidfd = os.pidfd_open(process.pid)
        assert Worker(process.pid, pidfd, control).ending() == "it has not"
        process.kill()
        os.close(pidfd)
