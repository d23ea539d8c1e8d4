"""What a figure depends on besides the code: stored with every file of results."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VULNERABILITIES = "/sys/devices/system/cpu/vulnerabilities"
PROGRAMS = {
    "runc": ("runc", "--version"),
    "crun": ("crun", "--version"),
    "docker": ("dockerd", "--version"),
}


def environment() -> dict[str, object]:
    """Return what this machine is and what is measured on it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "command_line": _read("/proc/cmdline"),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "bpf_jit_enable": _read("/proc/sys/net/core/bpf_jit_enable"),
        "mitigations": _mitigations(),
        "python": platform.python_version(),
        **{name: _first_line(command) for name, command in PROGRAMS.items()},
        "commit": _commit(),
    }


@contextmanager
def awake() -> Iterator[bool]:
    """Have idle processors wait for work without sleep; give whether the kernel does that.

    A request for a wake-up latency of 0 µs, for as long as the file is open: "PM Quality Of
    Service Interface" in the kernel's documentation.
    """
    try:
        fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        os.write(fd, struct.pack("i", 0))
        yield True
    finally:
        os.close(fd)


def _read(path: str) -> str | None:
    """Return a file's text without white space around it, None where it is missing."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _cpu_model() -> str | None:
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, None)


def _mitigations() -> dict[str, str | None]:
    names = sorted(os.listdir(VULNERABILITIES)) if os.path.isdir(VULNERABILITIES) else []
    return {name: _read(os.path.join(VULNERABILITIES, name)) for name in names}


def _first_line(command: tuple[str, ...]) -> str | None:
    """Return the first line that a program says, None where it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.partition("\n")[0] or None


def _commit() -> str | None:
    """Return the commit of the source tree, with a + where files differ from it."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", ROOT, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
