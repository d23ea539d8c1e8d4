"""A small root file system: one static busybox under all its names."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from typing import BinaryIO

PT_INTERP = 3
_DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "home",
    "mnt",
    "opt",
    "proc",
    "run",
    "srv",
    "sys",
    "usr",
    "var",
)
# Every directory that a PATH may name is the one that holds busybox.
_LINKS = (
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/run", "../run"),
)
_FILES = (
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
)


class NoBusyboxError(Exception):
    """There is no busybox that runs without the host's libraries; the text says what to do."""


def is_static(stream: BinaryIO) -> bool:
    """Return whether the ELF file asks for no dynamic loader (elf(5), PT_INTERP).

    False also for what is no 64-bit little-endian ELF file.
    """
    header = stream.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":  # noqa: PLR2004 - size of Elf64_Ehdr
        return False
    (table,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    for index in range(count):
        stream.seek(table + index * size)
        entry = stream.read(4)
        if len(entry) < 4 or struct.unpack("<I", entry)[0] == PT_INTERP:  # noqa: PLR2004
            return False
    return True


def find_busybox() -> str:
    """Return the path of a static busybox; raise NoBusyboxError."""
    path = shutil.which("busybox")
    if path is not None:
        with open(path, "rb") as stream:
            if is_static(stream):
                return path
    reason = "there is none on PATH" if path is None else f"{path} is not static"
    raise NoBusyboxError(
        f"the small root file system needs a static busybox, and {reason}: "
        "install busybox-static, or name a root with --rootfs"
    )


def _make_directory(path: str, mode: int) -> None:
    """Make a directory with this mode, whatever the umask."""
    os.mkdir(path)
    os.chmod(path, mode)


def make_busybox_root(directory: str) -> None:
    """Fill the empty directory with a root file system; raise NoBusyboxError or OSError."""
    busybox = find_busybox()
    os.chmod(directory, 0o755)
    for name in _DIRECTORIES:
        _make_directory(os.path.join(directory, name), 0o755)
    _make_directory(os.path.join(directory, "root"), 0o700)
    _make_directory(os.path.join(directory, "tmp"), 0o1777)
    for name, target in _LINKS:
        os.symlink(target, os.path.join(directory, name))
    for name, text in _FILES:
        path = os.path.join(directory, name)
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)
        os.chmod(path, 0o644)
    own = os.path.join(directory, "bin", "busybox")
    shutil.copyfile(busybox, own)
    os.chmod(own, 0o755)
    applets = subprocess.run([own, "--list"], check=True, capture_output=True, text=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(directory, "bin", applet))
