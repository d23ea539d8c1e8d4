"""Podman as root, with storage, run directory and configuration of the tests' own."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.result import require_success

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place

PODMAN = "/usr/bin/podman"
SERVICE_SECONDS = 20.0

# conmon starts the runtime with these variables and no others.
CONTAINERS_CONF = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
conmon_env_vars = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "ECI_STATE_DIR={state}", "ECI_LOG_DIR={log}", "ECI_SYSLOG=0"]
[network]
network_config_dir = "{top}/cni"
"""


class Podman:
    """A podman that keeps everything below one directory of the session's place."""

    def __init__(self, place: Place) -> None:
        """Write the configuration; podman has no daemon, so nothing runs between calls."""
        self.place = place
        self.top = place.directory("p")
        # The cgroup of every conmon, made by the first and kept.
        place.engine_cgroups.add("conmon")
        (self.top / "cni").mkdir()
        config = CONTAINERS_CONF.format(top=self.top, state=place.state_dir, log=place.log_dir)
        (self.top / "containers.conf").write_text(config)

    @property
    def environment(self) -> dict[str, str]:
        """What every call has in its environment."""
        return {"CONTAINERS_CONF": f"{self.top}/containers.conf"}

    def words(self, runtime: Path | str) -> list[str]:
        """Return the flags that every call begins with."""
        return [
            f"--root={self.top}/root",
            f"--runroot={self.top}/run",
            f"--tmpdir={self.top}/tmp",
            "--storage-driver=overlay",
            f"--runtime={runtime}",
        ]

    def podman(
        self, *words: str, runtime: Path | str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run podman to its end; `check` fails with what it printed."""
        done = subprocess.run(
            [PODMAN, *self.words(runtime), *words],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check:
            require_success(done, f"podman {words}")
        return done

    @contextmanager
    def service(self, path: Path) -> Iterator[None]:
        """Serve podman's API at `path` for the length of the block."""
        top = self.top
        words = [PODMAN, f"--root={top}/root", f"--runroot={top}/run", f"--tmpdir={top}/tmp"]
        words += ["--storage-driver=overlay", "system", "service", "--time=0", f"unix://{path}"]
        with subprocess.Popen(
            words,
            env=os.environ | {"CONTAINERS_CONF": f"{top}/containers.conf"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                deadline = time.monotonic() + SERVICE_SECONDS
                while not path.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError("podman's service did not come up")
                    time.sleep(0.02)
                yield
            finally:
                process.terminate()

    def run_words(self) -> list[str]:
        """Return the flags that every `podman run` of the tests needs.

        The cgroup keeps what it starts recognisable.
        """
        return [f"--cgroup-parent=/{self.place.cgroup}", "--network=none"]

    def import_image(self, tree: Path, name: str, runtime: Path | str) -> None:
        """Import the directory as the image `name`."""
        archive = self.top / "image.tar"
        subprocess.run(["tar", "-C", str(tree), "-cf", str(archive), "."], check=True)
        self.podman("import", "--change", "ENV PATH=/bin", str(archive), name, runtime=runtime)
        archive.unlink()

    def close(self) -> None:
        """Remove every container and image."""
        self.podman("rm", "-fa", runtime="runc", check=False)
        self.podman("rmi", "-fa", runtime="runc", check=False)
