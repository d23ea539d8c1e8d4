"""mountinfo, and the grants that are made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eci_supervisor.kernel import mountinfo
from eci_supervisor.policy import grants

if TYPE_CHECKING:
    from eci_supervisor.kernel.mountinfo import Mount


def _escape(raw: bytes) -> bytes:
    """fs/seq_file.c, mangle_path."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in raw)


def _written(mount: Mount) -> bytes:
    """Return the line that the kernel writes of it."""
    return b" ".join(
        (
            b"%d %d" % (mount.mount_id, mount.parent_id),
            mount.device,
            _escape(mount.root),
            _escape(mount.target),
            b",".join(mount.options),
            *mount.propagation,
            b"-",
            _escape(mount.fstype),
            _escape(mount.source),
            mount.super_options,
        )
    )


def one(data: bytes) -> None:
    """Parse the table, write it, parse it again; make grants of it."""
    mountinfo.split_layers(data)
    for key, value in mountinfo.split_options(data):
        assert b"," not in key + value or b"\\054" in data
    try:
        found = mountinfo.parse(data)
    except ValueError:
        return
    for mount in found:
        assert mountinfo.parse_line(_written(mount)) == mount
    try:
        made = grants.compile_grants(found, ["/proc/kcore"], ["/proc/sys"])
    except ValueError:
        assert any(not _is_device(mount.device) for mount in found)
        return
    assert [grant.point for grant in made] == [mount.target for mount in found]
    for mount, grant in zip(found, made, strict=True):
        # All that the mount has on is held.
        assert {word for word in grants.FLAGS if word in mount.options} <= grant.flags
        if mount.target in (b"/proc/kcore", b"/proc/sys"):
            assert grant.hides


def _is_device(text: bytes) -> bool:
    major, colon, minor = text.partition(b":")
    try:
        return bool(colon) and int(major) >= 0 and int(minor) >= 0
    except ValueError:
        return False
