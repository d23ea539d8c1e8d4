"""A real containerd of our own, with its CRI: own data, sockets, pods and network namespace."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from tests.support import cri
from tests.support.cri import Cri, CriError
from tests.support.images import write_archive
from tests.support.result import require_success
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.place import Place

CONTAINERD = "/usr/bin/containerd"
PLUGINS = "/usr/lib/cni"
IMAGE = "docker.io/library/box:latest"
PAUSE = "docker.io/library/pause:latest"
START_SECONDS = 30.0
SUBNET = "172.31.9.0/24"

CONFIG = """\
version = 2
root = "{top}/root"
state = "{top}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{top}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{top}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "{default}"
"""

HANDLER = """\
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
        BinaryName = "{program}"
"""


class Pod:
    """A pod: a sandbox and the containers in it."""

    def __init__(self, engine: Containerd, name: str, config: dict[str, Any], sandbox: str) -> None:
        self.engine = engine
        self.name = name
        self.config = config
        self.sandbox = sandbox
        self._number = 0
        self._logs: dict[str, str] = {}

    def create(
        self,
        command: Sequence[str],
        *,
        mounts: Sequence[dict[str, Any]] = (),
        devices: Sequence[dict[str, Any]] = (),
        pid: int = cri.CONTAINER,
        **security: Any,
    ) -> str:
        """Make a container of `command`, not started; returns its id.

        `security`: of LinuxContainerSecurityContext.  The masks are those that a kubelet names.
        """
        self._number += 1
        security.setdefault("namespace_options", {"pid": pid})
        if not security.get("privileged"):
            security.setdefault("masked_paths", MASKED)
            security.setdefault("readonly_paths", READONLY)
        log = f"{self.name}-c{self._number}.log"
        config = {
            "metadata": {"name": f"c{self._number}"},
            "image": {"image": IMAGE},
            "command": list(command),
            "mounts": list(mounts),
            "devices": list(devices),
            "log_path": log,
            "linux": {"security_context": security},
        }
        created = self.engine.call(
            "CreateContainer",
            pod_sandbox_id=self.sandbox,
            config=config,
            sandbox_config=self.config,
        )
        self._logs[created.container_id] = log
        return str(created.container_id)

    def start(self, command: Sequence[str] = ("sleep", "1000"), **options: Any) -> str:
        """Make and start a container; returns its id.  `options`: of `create`."""
        container = self.create(command, **options)
        self.engine.call("StartContainer", container_id=container)
        return container

    def log(self, container: str) -> str:
        """Return the log of a container, in the kubelet's format."""
        return (self.engine.logs / self._logs[container]).read_text()

    def address(self) -> str:
        """Return the address that the network plugin gave the pod."""
        status = self.engine.call("PodSandboxStatus", pod_sandbox_id=self.sandbox)
        return str(status.status.network.ip)

    def run(self, *words: str, **options: Any) -> str:
        """Exec `words` in a new container, which stays; return what they print."""
        return self.engine.out(self.start(**options), *words)


class Containerd:
    """containerd, from start to removal of all pods.

    It runs in a network namespace of its own, which a restart does not change.
    """

    def __init__(self, place: Place, runtimes: Mapping[str, Path], default: str) -> None:
        """Prepare below `place`; nothing runs yet.

        `runtimes`: handlers by name, besides `runc`; `default`: one of them.
        """
        self.place = place
        self.top = place.directory("k")
        self.logs = place.directory("kl")
        self.socket = self.top / "c.sock"
        handlers = {"runc": "runc", **{name: str(path) for name, path in runtimes.items()}}
        text = CONFIG.format(top=self.top, pause=PAUSE, plugins=PLUGINS, default=default)
        for name, program in handlers.items():
            text += HANDLER.format(name=name, program=program)
        (self.top / "config.toml").write_text(text)
        (self.top / "cni").mkdir()
        (self.top / "cni/10-pods.conflist").write_text(json.dumps(self._network()))
        self._network_namespace = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0

    def _network(self) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": SUBNET}]],
            "dataDir": f"{self.top}/ipam",
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipam": ipam}
        return {"cniVersion": "0.4.0", "name": self.top.name, "plugins": [bridge]}

    # -- life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start it, wait until the CRI answers, and import the images."""
        self.place.daemon_dirs.update({self.top})
        try:
            self._start(["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"])
            pid = self._running().pid
            self._network_namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove every pod and end containerd."""
        try:
            if self._process is not None and self._process.poll() is None:
                with Cri(self.socket) as client:
                    for pod in client.call("ListPodSandbox").items:
                        client.call("StopPodSandbox", pod_sandbox_id=pod.id)
                        client.call("RemovePodSandbox", pod_sandbox_id=pod.id)
        finally:
            self._stop()
            if self._network_namespace >= 0:
                os.close(self._network_namespace)
            self.place.daemon_dirs.difference_update({self.top})

    def restart(self) -> None:
        """End containerd, and start it again beside the pods that live on."""
        self._stop()
        join = f"--net=/proc/{os.getpid()}/fd/{self._network_namespace}"
        self._start(["nsenter", join])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("containerd does not run")
        return self._process

    def _start(self, before: Sequence[str]) -> None:
        with (self.top / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *["setpriv", "--pdeathsig", "TERM", *before],
                    *[CONTAINERD, "-c", f"{self.top}/config.toml"],
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.place.daemons.add(self._process.pid)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with Cri(self.socket) as client:
                    client.call("Version")
            except CriError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = (self.top / "log").read_text()[-3000:]
                    raise RuntimeError(f"containerd did not come up: {error}\n{text}") from error
                time.sleep(0.02)
            else:
                return

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.place.daemons.discard(process.pid)

    def import_images(self, tree: Path) -> None:
        """Import the directory as the image of the containers and as that of the sandboxes."""
        archive = self.top / "images.tar"
        write_archive(archive, tree, {IMAGE: ["sh"], PAUSE: ["sleep", "100000"]})
        words = ["--namespace", "k8s.io", "images", "import", "--snapshotter", "overlayfs"]
        done = subprocess.run(
            ["ctr", "--address", str(self.socket), *words, str(archive)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        require_success(done, "ctr images import")
        archive.unlink()

    # -- pods -----------------------------------------------------------------------------

    def call(self, method: str, **fields: Any) -> Any:
        """As `Cri.call`, on a connection for this call alone: a restart breaks those before."""
        with Cri(self.socket) as client:
            return client.call(method, **fields)

    def run_pod(self, handler: str = "", **security: Any) -> Pod:
        """Run a sandbox.  `handler`: "" for the default.

        `security`: of LinuxSandboxSecurityContext, and `sysctls`.
        """
        self._number += 1
        name = f"pod{self._number}"
        linux: dict[str, Any] = {"cgroup_parent": f"/{self.place.cgroup}"}
        if "sysctls" in security:
            linux["sysctls"] = security.pop("sysctls")
        # A kubelet says of each pod whether its containers have PID namespaces of their own.
        security.setdefault("namespace_options", {"pid": cri.CONTAINER})
        config = {
            "metadata": {"name": name, "uid": name, "namespace": "default"},
            "hostname": name,
            "log_directory": str(self.logs),
            "linux": {**linux, "security_context": security},
        }
        made = self.call("RunPodSandbox", config=config, runtime_handler=handler)
        return Pod(self, name, config, str(made.pod_sandbox_id))

    @contextmanager
    def pod(self, handler: str = "", **security: Any) -> Iterator[Pod]:
        """Run a sandbox for the length of the block; its containers go with it."""
        pod = self.run_pod(handler, **security)
        try:
            yield pod
        finally:
            self.call("StopPodSandbox", pod_sandbox_id=pod.sandbox)
            self.call("RemovePodSandbox", pod_sandbox_id=pod.sandbox)

    def exec(self, container: str, *words: str) -> tuple[int, str, str]:
        """Run `words` in the container; returns exit code and what they printed."""
        done = self.call("ExecSync", container_id=container, cmd=words, timeout=30)
        return done.exit_code, done.stdout.decode(), done.stderr.decode()

    def out(self, container: str, *words: str) -> str:
        """Run `words` in the container and return what they printed, without the last newline."""
        code, out, err = self.exec(container, *words)
        assert code == 0, f"{words}: exit code {code}: {out}{err}"
        return out.rstrip("\n")

    @property
    def pid(self) -> int:
        """The daemon's."""
        return self._running().pid

    def wait(self, container: str) -> Any:
        """Wait until a container has ended; returns its status."""
        found: list[Any] = []

        def has_ended() -> bool:
            found[:] = [self.call("ContainerStatus", container_id=container).status]
            return bool(found[0].state == cri.EXITED)

        wait_until(has_ended, f"the end of {container}")
        return found[0]

    def sandbox_info(self, sandbox: str) -> dict[str, Any]:
        """Return what the engine says of a sandbox: its pid, and more."""
        status = self.call("PodSandboxStatus", pod_sandbox_id=sandbox, verbose=True)
        found: dict[str, Any] = json.loads(status.info["info"])
        return found

    def info(self, container: str) -> dict[str, Any]:
        """Return what the engine says of a container: its pid, its bundle's config, and more."""
        status = self.call("ContainerStatus", container_id=container, verbose=True)
        found: dict[str, Any] = json.loads(status.info["info"])
        return found


MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
]
READONLY = [
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
]
