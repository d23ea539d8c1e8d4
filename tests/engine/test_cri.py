"""Pods through containerd's CRI, as a kubelet makes them, with eci-runtime as a runtime handler."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cri
from tests.support.containerd import Containerd, Pod
from tests.support.cri import CriError
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

PREFIX = "error in the container spec: invalid or unsupported container spec: "
HOST_NETWORK = (
    f"{PREFIX}eci containers can't share a network namespace with the host "
    "(because they use the linux user-namespace for isolation)"
)
HOST_NAMESPACES = (
    PREFIX + "eci containers can't share namespaces [{}] with the host "
    "(because they use the linux user-namespace for isolation)"
)
SIZE = 65536
USER = 1000


@pytest.fixture(scope="module")
def engine(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Containerd]:
    """A running containerd with the images, and `eci` as its default handler."""
    with Containerd(place, runtimes, "eci") as daemon:
        daemon.import_images(busybox_root)
        yield daemon


SYSCTLS = {
    "net.core.somaxconn": "1234",
    "kernel.shm_rmid_forced": "1",
    "net.ipv4.ping_group_range": "0 2147483647",
}
# All that a pod may ask for: sysctls, one PID namespace, privileged containers.
OPEN: dict[str, Any] = {
    "sysctls": SYSCTLS,
    "namespace_options": {"pid": cri.POD},
    "privileged": True,
}


class Pods:
    """Pods that are made when first asked for, and live as long as the module."""

    def __init__(self, engine: Containerd, stack: ExitStack) -> None:
        self._engine = engine
        self._stack = stack
        self._made: dict[str, Pod] = {}
        self._apps: dict[str, str] = {}

    def get(self, name: str, handler: str, **options: Any) -> Pod:
        """Return the pod `name`."""
        if name not in self._made:
            pod = self._engine.pod(handler, **options)
            self._made[name] = self._stack.enter_context(pod)
        return self._made[name]

    def app(self, handler: str) -> str:
        """Return a running container of the pod of that handler."""
        if handler not in self._apps:
            self._apps[handler] = self.get(handler, handler).start()
        return self._apps[handler]


@pytest.fixture(scope="module")
def pods(engine: Containerd) -> Iterator[Pods]:
    """The pods of the module.  Tests come in any order, and would have parameters change often."""
    with ExitStack() as stack:
        yield Pods(engine, stack)


@pytest.fixture(params=["eci", "eci-crun"])
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a runtime handler under test."""
    name: str = request.param
    return name


@pytest.fixture
def pod(pods: Pods, handler: str) -> Pod:
    """A pod of that handler."""
    return pods.get(handler, handler)


@pytest.fixture
def app(pods: Pods, handler: str) -> str:
    """A running container of that pod."""
    return pods.app(handler)


@pytest.fixture
def other(pods: Pods) -> Pod:
    """A pod that names no handler."""
    return pods.get("other", "")


@pytest.fixture
def open_pod(pods: Pods, handler: str) -> Pod:
    """A pod of that handler with all that a pod may ask for."""
    return pods.get(f"open {handler}", handler, **OPEN)


@pytest.fixture
def bare(pods: Pods) -> Pod:
    """A pod of plain runc."""
    return pods.get("bare", "runc")


def pid_of(engine: Containerd, container: str) -> int:
    pid: int = engine.info(container)["pid"]
    return pid


def sandbox_pid(engine: Containerd, pod: Pod) -> int:
    return engine.sandbox_info(pod.sandbox)["pid"]  # type: ignore[no-any-return]


def base_of(map_text: str) -> int:
    inside, outside, size = (int(word) for word in map_text.split())
    assert (inside, size, outside % SIZE) == (0, SIZE, 100000 % SIZE)
    return outside


def namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


# -- one pod ------------------------------------------------------------------------------


def test_containers_of_a_pod_share_its_user_namespace(
    engine: Containerd, pod: Pod, app: str
) -> None:
    sandbox, container = sandbox_pid(engine, pod), pid_of(engine, app)
    assert namespace(sandbox, "user") == namespace(container, "user") != namespace("self", "user")
    outside = Path(f"/proc/{container}/uid_map").read_text()
    assert base_of(outside) == base_of(engine.out(app, "cat", "/proc/self/uid_map"))
    assert base_of(Path(f"/proc/{container}/gid_map").read_text()) == base_of(outside)


def test_process_of_exec_is_in_the_namespaces_of_the_container(
    engine: Containerd, pod: Pod, app: str
) -> None:
    script = 'for n in net ipc uts pid mnt user cgroup; do readlink "/proc/self/ns/$n"; done'
    seen = dict(line.split(":") for line in engine.out(app, "sh", "-c", script).split())
    container, sandbox = pid_of(engine, app), sandbox_pid(engine, pod)
    for kind in ("net", "ipc", "uts", "pid", "mnt", "user", "cgroup"):
        assert f"{kind}:{seen[kind]}" == namespace(container, kind), kind
        assert f"{kind}:{seen[kind]}" != namespace(engine.pid, kind), kind
    for kind in ("net", "ipc", "uts"):
        assert namespace(container, kind) == namespace(sandbox, kind)
    assert namespace(container, "pid") != namespace(sandbox, "pid")
    addresses = engine.out(app, "ip", "-o", "-4", "address", "show", "dev", "eth0")
    assert f"inet {pod.address()}/" in addresses


def test_pods_reach_one_another_by_their_addresses(
    engine: Containerd, pod: Pod, other: Pod
) -> None:
    """On a port below 1024, over which the pod's root has no capability."""
    pod.start(["httpd", "-f", "-p", "80", "-h", "/home/user"])
    asking = f"until wget -qO- http://{pod.address()}/mine 2>/dev/null; do sleep 0.05; done"
    assert other.run("timeout", "20", "sh", "-c", asking) == "mine"
    # Busybox' ping knows no sockets without CAP_NET_RAW, which this would be for.
    inside = ["nsenter", f"--net=/proc/{sandbox_pid(engine, pod)}/ns/net", "cat"]
    seen = subprocess.check_output([*inside, "/proc/sys/net/ipv4/ping_group_range"])
    assert seen.split() == [b"0", b"2147483647"]


def test_two_pods_have_different_ranges(engine: Containerd, pod: Pod, app: str, other: Pod) -> None:
    theirs = base_of(other.run("cat", "/proc/self/uid_map"))
    assert theirs != base_of(engine.out(app, "cat", "/proc/self/uid_map"))
    user = namespace(sandbox_pid(engine, other), "user")
    assert user not in {namespace("self", "user"), namespace(sandbox_pid(engine, pod), "user")}


def test_shared_memory_is_the_pods(engine: Containerd, pod: Pod, app: str) -> None:
    other = pod.start()
    script = "umask 0; echo hello >/dev/shm/x; echo mine >/dev/shm/y; chown 1000:1000 /dev/shm/y"
    engine.out(app, "sh", "-c", script)
    assert engine.out(other, "cat", "/dev/shm/x") == "hello"
    assert engine.out(other, "stat", "-c", "%u", "/dev/shm/x", "/dev/shm/y") == "0\n1000"
    engine.out(other, "rm", "/dev/shm/x", "/dev/shm/y")


def test_volumes_keep_their_owners(engine: Containerd, pod: Pod, place: Place) -> None:
    volume = place.directory("v")
    for uid in (0, USER):
        (volume / f"old-{uid}").write_text("old\n")
        os.chown(volume / f"old-{uid}", uid, uid)
    volume.chmod(0o777)
    mount = {"container_path": "/vol", "host_path": str(volume)}
    for uid in (0, USER):
        user = {"value": uid}
        container = pod.start(mounts=[mount], run_as_user=user, run_as_group=user)
        script = f"id -u; stat -c %u /vol/old-0 /vol/old-{USER}; echo new >/vol/new-{uid}"
        assert engine.out(container, "sh", "-c", script).split() == [str(uid), "0", str(USER)]
        info = (volume / f"new-{uid}").stat()
        assert (info.st_uid, info.st_gid) == (uid, uid)
    assert (volume / "old-0").stat().st_uid == 0


def test_volume_is_shared_between_pods(
    engine: Containerd, pod: Pod, other: Pod, place: Place
) -> None:
    volume = place.directory("v")
    mount = {"container_path": "/vol", "host_path": str(volume)}
    container = pod.start(mounts=[mount])
    engine.out(container, "sh", "-c", "echo hello >/vol/x; chown 1000:1000 /vol/x")
    seen = other.run("sh", "-c", "stat -c %u /vol/x; cat /vol/x", mounts=[mount])
    assert seen.split() == ["1000", "hello"]


def test_files_of_the_image_and_of_the_container_have_their_owners(
    engine: Containerd, app: str
) -> None:
    script = "stat -c %u /bin/busybox /home/user/mine; echo x >/new; stat -c %u /new"
    assert engine.out(app, "sh", "-c", script).split() == ["0", "1000", "0"]


def test_read_only_root_file_system(engine: Containerd, pod: Pod) -> None:
    container = pod.start(readonly_rootfs=True)
    code, _, err = engine.exec(container, "touch", "/x")
    assert (code, "Read-only file system" in err) == (1, True)


def test_exit_code_and_output(engine: Containerd, pod: Pod) -> None:
    container = pod.start(["sh", "-c", "echo out; echo err >&2; exit 7"])
    status = engine.wait(container)
    assert status.exit_code == 7
    lines = pod.log(container).splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines) == ["stderr F err", "stdout F out"]


def test_stop_ends_it_by_its_signal(engine: Containerd, pod: Pod) -> None:
    container = pod.start(
        ["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 1000 & wait $!; done"]
    )
    engine.out(container, "sh", "-c", "until [ -e /proc/1/cwd ]; do :; done")
    engine.call("StopContainer", container_id=container, timeout=20)
    assert engine.wait(container).exit_code in {5, 143}
    engine.call("RemoveContainer", container_id=container)


# -- namespaces ---------------------------------------------------------------------------


def test_shared_process_namespace(engine: Containerd, open_pod: Pod) -> None:
    one = open_pod.start(["sleep", "1001"], pid=cri.POD)
    two = open_pod.start(["sleep", "1002"], pid=cri.POD)
    processes = engine.out(two, "ps", "-o", "pid,args")
    assert all(f"sleep {number}" in processes for number in (1001, 1002, 100000))
    # The containers of one pod are each other's equals.
    script = "kill -9 $(ps -o pid,args | sed -n 's/^ *\\([0-9]*\\) sleep 1001$/\\1/p')"
    engine.out(two, "sh", "-c", script)
    assert engine.wait(one).exit_code == 137


def test_process_namespace_of_a_target_container(engine: Containerd, pod: Pod, app: str) -> None:
    """What `kubectl debug --target` asks for."""
    options = {"pid": cri.TARGET, "target_id": app}
    container = pod.start(namespace_options=options)
    assert namespace(pid_of(engine, container), "pid") == namespace(pid_of(engine, app), "pid")
    assert namespace(pid_of(engine, container), "user") == namespace(pid_of(engine, app), "user")
    assert engine.out(container, "ls", "/proc/1/root/home") == "user"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": cri.NODE, "pid": cri.CONTAINER}, HOST_NETWORK),
        ({"pid": cri.NODE}, HOST_NAMESPACES.format("pid")),
        ({"pid": cri.CONTAINER, "ipc": cri.NODE}, HOST_NAMESPACES.format("ipc")),
    ],
    ids=["network", "pid", "ipc"],
)
def test_namespaces_of_the_node_are_refused(
    engine: Containerd, handler: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(CriError) as caught, engine.pod(handler, namespace_options=options):
        pass
    assert f"OCI runtime create failed: {message}: unknown" in str(caught.value)


def test_container_gets_no_processes_of_the_node(engine: Containerd, pod: Pod) -> None:
    """Where its pod does not share them, containerd gives it those of the sandbox."""
    container = pid_of(engine, pod.start(pid=cri.NODE))
    assert namespace(container, "pid") == namespace(sandbox_pid(engine, pod), "pid")


def test_sysctls_of_a_pod(open_pod: Pod) -> None:
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS]
    assert open_pod.run("cat", *files).split()[:2] == ["1234", "1"]


# -- what a container with rights may do ---------------------------------------------------

LOOSEN = "mount - /vol - MS_REMOUNT|MS_BIND -"
ATTACKS = (LOOSEN, "write /vol/x", "umount2 /proc/keys MNT_DETACH", "umount2 /etc/hosts -")
POWERS: dict[str, Any] = {
    "capabilities": {"add_capabilities": ["SYS_ADMIN"]},
    "seccomp": {"profile_type": cri.UNCONFINED},
}


def answers(engine: Containerd, container: str, *calls: str) -> list[str]:
    return engine.out(container, "mnt", *" , ".join(calls).split()).split()


def test_read_only_volume_and_masks_hold(
    engine: Containerd, pod: Pod, bare: Pod, place: Place
) -> None:
    for one, expected in (
        (bare, ["0", "0", "0", "0"]),
        (pod, ["EPERM", "EROFS", "EPERM", "0"]),
    ):
        volume = place.directory("v")
        mount = {"container_path": "/vol", "host_path": str(volume), "readonly": True}
        container = one.start(mounts=[mount], **POWERS)
        assert answers(engine, container, *ATTACKS) == expected
        assert (volume / "x").exists() == (one is bare)


def test_new_proc_has_the_masks(engine: Containerd, pod: Pod, bare: Pod) -> None:
    script = "mount -t proc none /mnt && wc -c </mnt/keys && echo 1 >/mnt/sys/vm/drop_caches"
    for one in (bare, pod):
        container = one.start(**POWERS)
        code, out, err = engine.exec(container, "sh", "-c", script)
        if one is bare:
            assert (code, int(out) > 0) == (0, True)
        else:
            assert (code, out.strip(), "Read-only file system" in err) == (1, "0", True)


def test_privileged_container_is_safe(engine: Containerd, open_pod: Pod, place: Place) -> None:
    volume = place.directory("v")
    mount = {"container_path": "/vol", "host_path": str(volume), "readonly": True}
    container = open_pod.start(mounts=[mount], privileged=True)
    assert base_of(engine.out(container, "cat", "/proc/self/uid_map"))
    bounding = engine.out(container, "grep", "CapBnd", "/proc/self/status").split()[1]
    assert int(bounding, 16) & 1 << 21, "CAP_SYS_ADMIN"
    assert answers(engine, container, LOOSEN, "write /vol/x") == ["EPERM", "EROFS"]
    assert list(volume.iterdir()) == []
    # None of the node's devices, by name or by number.
    assert engine.out(container, "find", "/dev", "-type", "b", "-o", "-name", "kvm") == ""
    code, _, err = engine.exec(container, "mknod", "/tmp/disk", "b", "8", "0")
    assert (code, "Operation not permitted" in err) == (1, True)
    for path in ("sys/kernel/core_pattern", "sys/vm/drop_caches"):
        code, _, err = engine.exec(container, "sh", "-c", f"echo 1 >/proc/{path}")
        assert (code, "Permission denied" in err) == (1, True), path
    # What privileged pods are made for works.
    engine.out(container, "sh", "-c", "mount -t tmpfs none /mnt && echo x >/mnt/x")


def test_named_device_is_the_containers(engine: Containerd, pod: Pod, app: str) -> None:
    device = {"container_path": "/dev/fuse", "host_path": "/dev/fuse", "permissions": "rwm"}
    container = pod.start(devices=[device])
    assert engine.out(container, "sh", "-c", "exec 3<>/dev/fuse && echo open") == "open"
    assert engine.exec(app, "test", "-e", "/dev/fuse")[0] == 1


# -- life ---------------------------------------------------------------------------------


def test_pods_survive_a_restart_of_containerd(engine: Containerd) -> None:
    with engine.pod("eci") as one, engine.pod("eci-crun") as two:
        old = {pod: pod.start(**POWERS) for pod in (one, two)}
        before = {pod: pid_of(engine, old[pod]) for pod in old}
        bases = {pod: base_of(Path(f"/proc/{before[pod]}/uid_map").read_text()) for pod in old}
        engine.restart()
        for pod, container in old.items():
            assert pid_of(engine, container) == before[pod]
            calls = ("mount none /mnt tmpfs - -", "umount2 /proc/keys -")
            assert answers(engine, container, *calls) == ["0", "EPERM"]
            assert namespace(before[pod], "net") == f"net:{network_of(engine, container)}"
            # The old pod takes new containers, and its range stays its own.
            assert base_of(pod.run("cat", "/proc/self/uid_map")) == bases[pod]
        with engine.pod() as new:
            assert base_of(new.run("cat", "/proc/self/uid_map")) not in bases.values()


def network_of(engine: Containerd, container: str) -> str:
    """Return the network namespace of a process that joins the container."""
    return engine.out(container, "readlink", "/proc/self/ns/net").removeprefix("net:")


def test_nothing_is_left_of_a_pod(engine: Containerd, handler: str, place: Place) -> None:
    with engine.pod(handler) as pod:
        names = [name[:32] for name in (pod.sandbox, pod.start(**POWERS))]
        assert seen_of(names, place)
    wait_until(lambda: not seen_of(names, place), "the end of what the pod had")


def seen_of(names: list[str], place: Place) -> list[str]:
    """Return what there is of these containers; other pods are up at the same time."""
    return [line for line in place.leftovers(patience=0) if any(name in line for name in names)]
