"""Buildah as root, with storage, caches and a network namespace of the tests' own."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.result import require_success

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.place import Place

BUILDAH = "/usr/bin/buildah"


class Buildah:
    """A buildah that keeps everything below one directory of the session's place."""

    def __init__(self, place: Place) -> None:
        """Nothing runs between calls."""
        self.place = place
        self.top = place.directory("h")

    def buildah(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run buildah to its end, in a network namespace of its own; stderr is in stdout."""
        top = self.top
        done = subprocess.run(
            [
                *["unshare", "--net", BUILDAH],
                *[f"--root={top}/root", f"--runroot={top}/run", "--storage-driver=overlay"],
                *words,
            ],
            # The caches of `RUN --mount=type=cache` are there.
            env=os.environ | {"TMPDIR": str(top)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=100,
            check=False,
        )
        if check:
            require_success(done, f"buildah {words}")
        return done

    def import_image(self, archive: Path, name: str) -> None:
        """Load an image of an archive as `docker save` writes it, and call it `name`."""
        loaded = self.buildah("pull", f"docker-archive:{archive}").stdout.split()[-1]
        self.buildah("tag", loaded, name)

    def build(
        self,
        dockerfile: str,
        *words: str,
        runtime: Path,
        files: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Build an image without any cache of steps; as `Dockerd.build`."""
        context = self.place.directory("context")
        for name, content in {"Dockerfile": dockerfile, **(files or {})}.items():
            (context / name).write_text(content)
        # Its steps have this very cgroup, and none below it.
        group = f"/{self.place.cgroup}/buildah"
        flags = ["--isolation=oci", f"--cgroup-parent={group}", f"--runtime={runtime}"]
        return self.buildah("build", "--no-cache", *flags, *words, str(context), check=check)

    def close(self) -> None:
        """Remove every container and image."""
        self.buildah("rm", "--all", check=False)
        self.buildah("rmi", "--all", "--force", check=False)
