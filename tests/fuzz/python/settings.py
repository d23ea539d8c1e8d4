"""The administrator's settings: what is accepted is what it says, to every reader of it."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from eci_supervisor.policy import commands, images, paths, settings
from eci_supervisor.policy.settings import SettingsError


def _value(text: str, *keys: str) -> Any:
    """Return what a plain parser finds at these keys, or None."""
    found: Any = json.loads(text)
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def one(data: bytes) -> None:
    """Parse them, and again what came out; compare with a plain parser."""
    try:
        found = settings.parse(data, "FILE")
    except SettingsError as error:
        match = re.match(r"FILE: (?:line (\d+): |nested)", str(error))
        assert match
        assert match[1] is None or 1 <= int(match[1]) <= data.count(b"\n") + 1
        return
    text = data.decode("utf-8-sig")
    isolation = found.enhanced_container_isolation
    for name, value in (("value", isolation.value), ("locked", isolation.locked)):
        assert _value(text, "enhancedContainerIsolation", name) in (None, value)
    for name, values in (
        ("protectedPaths", found.vm.protected_paths),
        ("sharedPaths", found.vm.shared_paths),
    ):
        assert _value(text, "vm", name) in (None, list(values))
    assert settings.parse(msgspec.json.encode(found), "FILE") == found
    # Whoever goes by them understands them.
    mount = isolation.docker_socket_mount
    for image in mount.image_list.images:
        images.parse_entry(image)
    for command in mount.command_list.commands:
        assert commands.expand(command)
    for path in found.vm.protected_paths:
        assert paths.split(path)[0].startswith("/")
    settings.line_of(text, ["vm", "sharedPaths", 0])
