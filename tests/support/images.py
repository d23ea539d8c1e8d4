"""Images for engines that take archives: made of directories, without any engine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def write_archive(out: Path, tree: Path, commands: Mapping[str, Sequence[str]]) -> None:
    """Write the archive `out`, as `docker save` does, of images that share one layer, `tree`.

    `commands`: full name of an image -> what it runs.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(tree, arcname=".")
    data = layer.getvalue()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    manifest = []
    with tarfile.open(out, "w") as archive:
        _add(archive, "layer.tar", data)
        for number, (name, command) in enumerate(commands.items()):
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
                "rootfs": {"type": "layers", "diff_ids": [digest]},
                "history": [{"created_by": name}],
            }
            _add(archive, f"{number}.json", json.dumps(config).encode())
            manifest.append(
                {"Config": f"{number}.json", "RepoTags": [name], "Layers": ["layer.tar"]}
            )
        _add(archive, "manifest.json", json.dumps(manifest).encode())
