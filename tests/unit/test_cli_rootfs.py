"""The small root file system of `eci run`."""

from __future__ import annotations

import io
import os
import stat
import struct
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.cli.rootfs import NoBusyboxError, find_busybox, is_static, make_busybox_root

if TYPE_CHECKING:
    from pathlib import Path


def elf(*segments: int) -> bytes:
    """Return the beginning of a 64-bit ELF file with program headers of these types."""
    header = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64)
    header = header.ljust(54, b"\0") + struct.pack("<HH", 56, len(segments))
    return header.ljust(64, b"\0") + b"".join(
        struct.pack("<I", kind).ljust(56, b"\0") for kind in segments
    )


@pytest.mark.parametrize(
    ("content", "static"),
    [
        (elf(1, 1), True),
        (elf(1, 3), False),
        (elf(1, 1)[:66], False),
        (b"", False),
        (b"#!/bin/sh\n" * 20, False),
        (b"\x7fELF\x01\x01".ljust(64, b"\0"), False),
    ],
)
def test_static_means_no_loader_asked_for(content: bytes, static: bool) -> None:  # noqa: FBT001
    assert is_static(io.BytesIO(content)) is static


def test_busybox_that_needs_a_loader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "busybox"
    program.write_bytes(elf(1, 3))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBusyboxError, match=r"not static: install busybox-static"):
        find_busybox()


def test_no_busybox_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBusyboxError, match=r"none on PATH: install busybox-static"):
        find_busybox()


def test_root_has_what_a_container_needs_whatever_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(0o700)
    before = os.umask(0o077)
    try:
        make_busybox_root(str(root))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("", "bin", "etc")}
    assert set(modes.values()) == {0o755}
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "root").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "etc/passwd").stat().st_mode) == 0o644
    for name in ("sh", "mount", "umount", "unshare", "chroot", "id"):
        assert (root / "bin" / name).resolve() == root / "bin/busybox"
        assert os.access(root / "bin" / name, os.X_OK)
    # A link that points out of the root would name a path of the host.
    for link in root.rglob("*"):
        if link.is_symlink():
            assert link.resolve().is_relative_to(root)
