"""What the body of a request may ask for, where the command list alone cannot say.

Pure.  Nearly all that a new container asks for is judged in its OCI bundle by eci-runtime.  What is
judged here never gets there: it decides which runtime is called, or the engine does it by itself
(SECURITY.md, "The restricted socket").  A body that was judged is written anew from what was read,
so the engine reads the same.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, object]

HOST_LOGS = ("syslog", "journald")
"""Log drivers with which a container could write whatever lines into the host's log."""
DRIVER_OPTIONS = "a volume's driver options can name any file of the host"


class BodyError(ValueError):
    """The body cannot be judged (400); the text is for the client."""


class BodyRefusedError(Exception):
    """The request asks for what the isolation does not hold (403); the text says for what."""


def _pairs(pairs: list[tuple[str, object]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BodyError("the JSON body has a key twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise BodyError(f"the JSON body has {name}")


def _parse(body: bytes) -> object:
    try:
        return json.loads(body.decode(), object_pairs_hook=_pairs, parse_constant=_no_constant)
    except BodyError:
        raise
    except (ValueError, RecursionError) as error:
        raise BodyError("the body is not JSON in UTF-8") from error


def _object(value: object, what: str) -> Json:
    """Return an object that is judged: with keys in ASCII alone.

    Go's encoding/json folds some letters beyond ASCII to such in it, and which, is its own matter.
    """
    if not isinstance(value, dict):
        raise BodyError(f"{what} is not a JSON object")
    if not all(map(str.isascii, value)):
        raise BodyError(f"{what} has a key that is not ASCII")
    return value


def _key(found: Json, name: str) -> str | None:
    """Return the key of `found` that the engine takes for `name`; Go does not mind its case.

    `found` is from `_object`.  BodyError: more than one.
    """
    keys = [key for key in found if key.lower() == name.lower()]
    if len(keys) > 1:
        raise BodyError(f"the JSON body has {name} twice")
    return keys[0] if keys else None


def _get(found: Json, name: str) -> object:
    key = _key(found, name)
    return None if key is None else found[key]


def _without(found: Json, name: str) -> Json:
    """Return `found` without what the engine takes for `name`."""
    unwanted = _key(found, name)
    return {key: value for key, value in found.items() if key != unwanted}


def _part(found: Json, name: str) -> Json:
    """Return the object that the engine takes for `name`; an empty one where there is none."""
    value = _get(found, name)
    return {} if value is None else _object(value, name)


def _items(value: object, what: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BodyError(f"{what} is not a JSON array")
    return value


class NewContainer(msgspec.Struct, frozen=True):
    """A judged body of POST /containers/create."""

    body: bytes
    """What to send on."""
    volumes: tuple[str, ...]
    """Names of the volumes that it asks for; those that exist must have no driver options."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9][A-Za-z0-9_.:-]*)*")


_SEPARATOR = re.compile(r'[,"\x00-\x1f\x7f]')


def _judge_driver(found: Json, name: str, what: str) -> None:
    """Refuse the name of a driver that the engine would take for a path.

    It looks for /run/docker/plugins/NAME.sock, and asks whoever listens there what to mount.
    """
    driver = _get(found, name)
    if driver and _NAME.fullmatch(str(driver)) is None:
        raise BodyRefusedError(f"{what}: the name of a driver may not lead elsewhere")


def _judge_host_config(config: Json) -> tuple[str, ...]:
    """Judge a HostConfig, or what can be read as one; returns the names of volumes in it."""
    for name in ("Devices", "DeviceRequests", "DeviceCgroupRules"):
        if _items(_get(config, name), f"HostConfig.{name}"):
            raise BodyRefusedError(f"HostConfig.{name}: no device of the host is given")
    for name in _part(config, "Annotations"):
        # crun loads plugins and finds sockets by these, as the host's root.
        if name.lower().startswith(("run.oci.", "krun", "io.krun")):
            raise BodyRefusedError(f"HostConfig.Annotations: {name} changes what the runtime does")
    _judge_driver(config, "VolumeDriver", "HostConfig.VolumeDriver")
    log = _part(config, "LogConfig")
    _judge_driver(log, "Type", "HostConfig.LogConfig.Type")
    if _get(log, "Type") in HOST_LOGS:
        raise BodyRefusedError("HostConfig.LogConfig.Type: that driver writes to the host's log")
    for name, value in _part(log, "Config").items():
        if str(value).lower().startswith("unix"):
            raise BodyRefusedError(f"HostConfig.LogConfig: {name} names a socket of the host")
    return tuple(dict.fromkeys((*_bound_volumes(config), *_mounted_volumes(config))))


def _bound_volumes(config: Json) -> list[str]:
    """Return the names of volumes in HostConfig.Binds (`docker run -v`)."""
    binds = [str(bind) for bind in _items(_get(config, "Binds"), "HostConfig.Binds")]
    sources = [bind.partition(":")[0] for bind in binds if ":" in bind]
    return [source for source in sources if not source.startswith("/")]


def _mounted_volumes(config: Json) -> list[str]:
    """Return the names of volumes in HostConfig.Mounts (`docker run --mount`)."""
    volumes = []
    for one in _items(_get(config, "Mounts"), "HostConfig.Mounts"):
        mount = _object(one, "an entry of HostConfig.Mounts")
        # Who writes a mount as docker's flag `--mount` has it, would read these as further options.
        if any(_SEPARATOR.search(value) for value in mount.values() if isinstance(value, str)):
            raise BodyRefusedError("HostConfig.Mounts: a comma, quote or control character")
        driver = _part(_part(mount, "VolumeOptions"), "DriverConfig")
        _judge_driver(driver, "Name", "HostConfig.Mounts")
        if _get(driver, "Options"):
            raise BodyRefusedError(f"HostConfig.Mounts: {DRIVER_OPTIONS}")
        name = _get(mount, "Source")
        if name and str(_get(mount, "Type")).lower() not in ("bind", "tmpfs", "image"):
            volumes.append(str(name))
    return volumes


def judge_new_container(body: bytes, runtime: str) -> NewContainer:
    """Judge the body of POST /containers/create, and have `runtime` run the container.

    `--runtime` is ignored: what an allowed container makes runs as it does itself.

    The engine reads the top level as a HostConfig too, and takes some of it from there
    (VolumeDriver), as the first versions of the API had it: so it is judged as one.
    """
    config = _object(_parse(body), "the body")
    host = _part(config, "HostConfig")
    volumes = dict.fromkeys((*_judge_host_config(config), *_judge_host_config(host)))
    host = _without(host, "Runtime") | {"Runtime": runtime}
    config = _without(_without(config, "Runtime"), "HostConfig") | {"HostConfig": host}
    return NewContainer(body=_dump(config), volumes=tuple(volumes))


def judge_start(body: bytes) -> bytes:
    """Judge the body of POST /containers/NAME/start, which API 1.23 took for a HostConfig."""
    if body.strip() not in (b"", b"{}", b"null"):
        raise BodyRefusedError("a container is started as it was created: send no body")
    return body


def judge_new_volume(body: bytes) -> bytes:
    """Judge the body of POST /volumes/create."""
    config = _object(_parse(body) if body.strip() else {}, "the body")
    _judge_driver(config, "Driver", "Driver")
    if _get(config, "DriverOpts"):
        raise BodyRefusedError(f"DriverOpts: {DRIVER_OPTIONS}")
    if _get(config, "ClusterVolumeSpec"):
        raise BodyRefusedError("ClusterVolumeSpec: cluster volumes are made by the host's drivers")
    return _dump(config)


def judge_new_network(body: bytes) -> bytes:
    """Judge the body of POST /networks/create."""
    config = _object(_parse(body), "the body")
    _judge_driver(config, "Driver", "Driver")
    _judge_driver(_part(config, "IPAM"), "Driver", "IPAM.Driver")
    return _dump(config)


def _dump(config: Json) -> bytes:
    return json.dumps(config, separators=(",", ":")).encode()


PLAIN: dict[tuple[str, str], Callable[[bytes], bytes]] = {
    ("POST", "/containers/{*}/start"): judge_start,
    ("POST", "/volumes/create"): judge_new_volume,
    ("POST", "/networks/create"): judge_new_network,
}
"""By method and path of a route: how its body is judged, apart from /containers/create."""


def host_mount(container: Json, options_of: Callable[[str], object]) -> str | None:
    """Return what the engine itself would open for `docker cp`, or None.

    `container`: what the engine says of it.  `options_of` returns the driver options of a volume.
    Only what lies in the engine's own store is sure not to be somewhere else by now.
    """
    for one in _items(container.get("Mounts"), "Mounts"):
        mount = _object(one, "an entry of Mounts")
        kind, name = mount.get("Type"), str(mount.get("Name") or "")
        if kind == "tmpfs":
            continue
        if kind == "volume" and mount.get("Driver") == "local" and name and not options_of(name):
            continue
        return str(mount.get("Source") or name)
    return None
