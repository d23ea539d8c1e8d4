"""What the wrapper makes of a spec before anything is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eci_supervisor.runtime.points import Point
from eci_supervisor.runtime.prepare import mount_points
from eci_supervisor.runtime.sources import open_sources

if TYPE_CHECKING:
    from pathlib import Path


def test_mount_points_are_what_the_runtime_would_make(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    mounts = [
        {"destination": "/proc", "type": "proc"},
        {"destination": "dev/", "type": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "//run", "type": "tmpfs", "options": ["mode=1770", "size=64k"]},
        {"destination": "/scratch", "type": "tmpfs"},
        {"destination": "/dev/pts", "type": "devpts"},
        {"destination": "/etc/hosts", "type": "bind", "source": str(file), "options": ["bind"]},
        {"destination": "/vol/../v", "type": "bind", "source": str(tmp_path), "options": ["bind"]},
    ]
    spec = {"mounts": mounts, "process": {"cwd": "/run/here"}}
    with open_sources(spec, str(tmp_path)) as sources:
        points = mount_points(spec, sources)
    assert points == [
        Point("/proc"),
        Point("/dev", mode=0o755),
        Point("/run", mode=0o1770),
        Point("/scratch", mode=0o1777),
        Point("/etc/hosts", directory=False),
        Point("/v"),
    ]
    with open_sources({}, str(tmp_path)) as none:
        assert mount_points({"process": {"cwd": "/work"}}, none) == [Point("/work")]
