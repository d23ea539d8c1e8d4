"""Bodies that are judged: what goes on means one thing, and asks for nothing that is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from eci_supervisor.socket import bodies
from eci_supervisor.socket.bodies import BodyError, BodyRefusedError


def _go(found: Any, name: str) -> Any:
    """Return what Go's encoding/json takes for `name`: in any case, and the last one counts."""
    values = [value for key, value in found.items() if key.casefold() == name.casefold()]
    return values[-1] if values else None


def _check_host(config: Any) -> None:
    for name in ("Devices", "DeviceRequests", "DeviceCgroupRules"):
        assert not _go(config, name)
    for name in _go(config, "Annotations") or {}:
        assert not name.startswith("run.oci.")
    for mount in _go(config, "Mounts") or []:
        driver = _go(_go(mount, "VolumeOptions") or {}, "DriverConfig") or {}
        assert not _go(driver, "Options")
    log = _go(config, "LogConfig") or {}
    assert _go(log, "Type") not in bodies.HOST_LOGS


def _container(data: bytes) -> None:
    judged = bodies.judge_new_container(data, "eci")
    found = json.loads(judged.body)
    host = _go(found, "HostConfig")
    assert _go(host, "Runtime") == "eci"
    assert _go(found, "Runtime") is None
    _check_host(found)
    _check_host(host)
    # What is judged stands there once; other keys are the engine's own business.
    assert [key.casefold() for key in found].count("hostconfig") == 1
    again = bodies.judge_new_container(judged.body, "eci")
    assert again == judged


def one(data: bytes) -> None:
    """Judge it as each kind of body that there is."""
    with contextlib.suppress(BodyError, BodyRefusedError):
        _container(data)
    for judge in bodies.PLAIN.values():
        try:
            judged = judge(data)
            assert judge(judged) == judged
        except (BodyError, BodyRefusedError):
            continue
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        try:
            bodies.host_mount(found, lambda _: None)
        except BodyError:
            return
