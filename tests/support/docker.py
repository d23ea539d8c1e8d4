"""A real dockerd of our own: own data, sockets, containerd and network namespace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Self

from tests.support.result import require_success
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.place import Place

DOCKERD = "/usr/sbin/dockerd"
DOCKER = "/usr/bin/docker"
CONTAINERD = "/usr/bin/containerd"
IMAGE = "box"
START_SECONDS = 30.0

CONTAINERD_CONFIG = """\
version = 2
root = "{top}/cd/root"
state = "{top}/cd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{top}/cd.sock"
"""


class Dockerd:
    """dockerd and its containerd, from start to removal of all they kept.

    Both run in one network namespace of their own, made when they start, so that bridges and
    iptables rules neither touch the machine's nor survive.  Both die with this process.
    """

    def __init__(
        self,
        place: Place,
        runtimes: dict[str, Path],
        default: str,
        environment: Mapping[str, str] | None = None,
        *,
        live_restore: bool = False,
    ) -> None:
        """Prepare below `place`; nothing runs yet.

        `runtimes` maps names to programs.  `default` is one of them, or `runc`.  `environment`:
        what the daemons, and so the runtimes, have more in theirs than this process.
        """
        self.place = place
        self.top = place.directory("d")
        self.runtimes = runtimes
        self.default = default
        self.environment = environment or {}
        self.live_restore = live_restore
        """Whether containers live on without the daemon."""
        self.socket = self.top / "d.sock"
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def data_root(self) -> Path:
        """Dockerd's --data-root."""
        return self.top / "data"

    @property
    def pid(self) -> int:
        """The pid of the running dockerd."""
        return self._processes[1].pid

    def __enter__(self) -> Self:
        """Start both daemons and wait until the API answers."""
        self.place.daemon_dirs.update({self.data_root, self.top / "x"})
        (self.top / "cd.toml").write_text(CONTAINERD_CONFIG.format(top=self.top))
        self._write_config()
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove every container and volume, end both daemons by pid; leave what is left to see."""
        if self.socket.exists():
            ids = self.docker("ps", "-aq", check=False).stdout.split()
            if ids:
                self.docker("rm", "-fv", *ids, check=False)
        self._end_daemons()
        # dockerd pins the namespace of --network=host here and leaves it so when it ends, and,
        # with live-restore, its data root, which it binds to itself.
        for mount in (self.top / "x/netns/default", self.data_root):
            if mount.exists():
                subprocess.run(["umount", "-q", str(mount)], check=False)
        self.place.daemon_dirs.difference_update({self.data_root, self.top / "x"})

    # -- the client -----------------------------------------------------------------------

    def environ(self) -> dict[str, str]:
        """Return the environment of a client of this daemon."""
        return os.environ | {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.top / "client"),
            "DOCKER_BUILDKIT": "0",
        }

    def docker(
        self,
        *words: str,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run the client to its end; `check` fails with what it printed."""
        done = subprocess.run(
            [DOCKER, *words],
            env=self.environ(),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check:
            require_success(done, f"docker {words}")
        return done

    def out(self, *words: str, stdin: str | None = None) -> str:
        """Run the client and return what it printed, without the last newline."""
        return self.docker(*words, stdin=stdin).stdout.rstrip("\n")

    def tar(self, *words: str) -> bytes:
        """Run a client command that writes an archive to stdout."""
        done = subprocess.run(
            [DOCKER, *words], env=self.environ(), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"docker {words}: {done.stderr.decode(errors='replace')}"
        return done.stdout

    @contextmanager
    def container(self, *words: str, image: str = IMAGE, command: str = "") -> Iterator[str]:
        """Run a container in the background for the length of the block; yield its id.

        Without `command` it sleeps, ending at once on SIGTERM.
        """
        args = ["sh", "-c", command] if command else ["sh", "-c", SLEEP]
        created = self.out("create", *words, image, *args)
        try:
            self._ask("POST", f"/containers/{created}/start")
            yield created
        finally:
            self._ask("DELETE", f"/containers/{created}?force=1&v=1")

    def _ask(self, method: str, path: str) -> None:
        """Have something done by the API itself: to start a client takes 40 ms of a processor."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(self.socket))
            connection = HTTPConnection("docker")
            connection.sock = sock
            connection.request(method, path)
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
        assert answer.status == HTTPStatus.NO_CONTENT, f"{method} {path}: {answer.status} {said}"

    def inspect(self, container: str, form: str) -> str:
        """Return one templated value of `docker inspect`."""
        return self.out("inspect", "--format", form, container)

    def import_image(self, tree: Path, name: str = IMAGE) -> str:
        """Import the directory as the image `name`, with /bin on PATH."""
        with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [DOCKER, "import", "-c", "ENV PATH=/bin", "-c", 'CMD ["sh"]', "-", name],
                env=self.environ(),
                stdin=tar.stdout,
                capture_output=True,
                check=True,
                timeout=60,
            )
        if tar.returncode:
            raise RuntimeError(f"{tree} cannot be packed: tar exits with {tar.returncode}")
        return name

    def build(
        self,
        dockerfile: str,
        *words: str,
        kit: bool = True,
        files: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Build an image without any cache; `kit`: by BuildKit.  All that it prints is in stdout.

        `files`: name -> content of what the build context has besides the Dockerfile.
        """
        context = self.place.directory("context")
        for name, content in {"Dockerfile": dockerfile, **(files or {})}.items():
            (context / name).write_text(content)
        progress = ["--progress=plain"] if kit else []
        done = subprocess.run(
            [DOCKER, "build", "--no-cache", *progress, *words, str(context)],
            env=self.environ() | {"DOCKER_BUILDKIT": str(int(kit))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=100,
            check=False,
        )
        if check:
            require_success(done, f"docker build {words}: {dockerfile}")
        return done

    def import_archive(self, archive: Path, name: str) -> None:
        """Import a tar archive as the image `name`, with Debian's PATH."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.docker("import", "-c", f"ENV PATH={path}", str(archive), name, timeout=120)

    def set_default_runtime(self, name: str) -> None:
        """Make `name` the default runtime of the running daemon, as its reload allows."""
        self.default = name
        self._write_config()
        self._processes[1].send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_SECONDS
        while self.out("info", "--format", "{{.DefaultRuntime}}") != name:
            if time.monotonic() > deadline:
                raise TimeoutError("dockerd did not take the new default runtime")
            time.sleep(0.05)

    # -- starting -------------------------------------------------------------------------

    def restart(self, environment: Mapping[str, str]) -> None:
        """End both daemons and start them anew with this environment; the configuration stays.

        Containers live on if the configuration says live-restore, and have no network.
        """
        self._end_daemons()
        self.environment = environment
        self._start_daemons()

    def kill(self, *names: str) -> None:
        """Kill `dockerd`, `containerd` or both with SIGKILL."""
        for name in names:
            process = self._processes[("containerd", "dockerd").index(name)]
            process.kill()
            process.wait()
            self.place.daemons.discard(process.pid)

    def start_killed(self) -> None:
        """Start what was killed anew."""
        alive = [process.poll() is None for process in self._processes]
        before, self._processes = self._processes, []
        if not any(alive):
            self._start_daemons()
            return
        namespace = f"--net=/proc/{before[alive.index(True)].pid}/ns/net"
        for process, lives, start in zip(
            before, alive, (self._start_containerd, self._start_dockerd), strict=True
        ):
            if lives:
                self._processes.append(process)
            else:
                start(["nsenter", namespace])
        wait_until(self._reaches_containerd, "dockerd does not find containerd again")

    def _reaches_containerd(self) -> bool:
        """Say whether dockerd has found containerd, which it dials anew after a while."""
        return self.out("info", "--format", "{{.ContainerdCommit.ID}}") not in ("", "N/A")

    def _start_daemons(self) -> None:
        self._start_containerd(
            ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        )
        self._start_dockerd(["nsenter", f"--net=/proc/{self._processes[0].pid}/ns/net"])
        self.docker("version")

    def _start_containerd(self, namespace: list[str]) -> None:
        (self.top / "cd.sock").unlink(missing_ok=True)
        self._start([*namespace, CONTAINERD, "-c", f"{self.top}/cd.toml"], "cd.log")
        self._wait_for(self.top / "cd.sock")

    def _start_dockerd(self, namespace: list[str]) -> None:
        for path in (self.socket, self.top / "d.pid"):
            path.unlink(missing_ok=True)
        self._start([*namespace, *self._dockerd()], "d.log")
        self._wait_for(self.socket)

    def _end_daemons(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.place.daemons.difference_update(process.pid for process in self._processes)
        self._processes.clear()

    def _dockerd(self) -> list[str]:
        top = self.top
        return [
            DOCKERD,
            f"--config-file={top}/daemon.json",
            f"--containerd={top}/cd.sock",
            f"--data-root={self.data_root}",
            f"--exec-root={top}/x",
            f"--host=unix://{self.socket}",
            f"--pidfile={top}/d.pid",
            "--bip=172.31.7.1/24",
            f"--cgroup-parent=/{self.place.cgroup}",
            "--storage-driver=overlay2",
            "--userland-proxy=false",
        ]

    def _write_config(self) -> None:
        runtimes = {name: {"path": str(path)} for name, path in self.runtimes.items()}
        config = {
            "default-runtime": self.default,
            "runtimes": runtimes,
            "live-restore": self.live_restore,
        }
        (self.top / "daemon.json").write_text(json.dumps(config))

    def _start(self, argv: list[str], log: str) -> None:
        with (self.top / log).open("wb") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **self.environment},
                # A Ctrl-C at the terminal is for us, who then end the daemons in order.
                start_new_session=True,
            )
        self._processes.append(process)
        self.place.daemons.add(process.pid)

    def _wait_for(self, socket: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not socket.exists():
            process = self._processes[-1]
            if process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(log.read_text()[-2000:] for log in self.top.glob("*.log"))
                raise RuntimeError(f"{process.args!r} did not come up\n{logs}")
            time.sleep(0.02)


# A shell that waits for a child dies of no signal it has no trap for, being PID 1.
SLEEP = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
