"""What is an engine's own is known by where it keeps it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.policy.paths import Access
from eci_supervisor.runtime import owned, restricted
from eci_supervisor.runtime.errors import RefusedError
from eci_supervisor.runtime.overlay import Layers
from eci_supervisor.runtime.sources import open_sources
from tests.support.children import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

OWN = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
NERD = "00112233445566778899aabbccddeeff" * 2
POD = "01234567-89ab-cdef-0123-456789abcdef"


class Host:
    """A data directory as an engine's, in a protected directory."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "protected/engine"
        for name in (
            f"containers/{OWN}/mounts/shm",
            f"containers/{OTHER}",
            "volumes/v/_data/sub",
            "volumes/_data",
            "volumes/space/v/_data",
            f"containers/space/{NERD}",
            f"plugins/{OTHER}/propagated-mount/v/sub",
            f"sandboxes/{OTHER}",
            f"pods/{POD}/volumes/x",
            "buildkit/executor/abc",
            "overlay2/layer/diff",
        ):
            (self.root / name).mkdir(parents=True)
        for name in (
            f"containers/{OWN}/hosts",
            f"containers/{OTHER}/hosts",
            f"sandboxes/{OTHER}/hosts",
            "buildkit/executor/resolv.conf",
            "buildkit/metadata_v2.db",
        ):
            (self.root / name).touch()

    def is_refused(
        self,
        source: Path | str,
        *,
        container_id: str = OWN,
        bundle: str = "/",
        annotations: dict[str, str] | None = None,
        namespaces: list[dict[str, str]] | None = None,
        names: list[tuple[str, Access]] | None = None,
        at: str = "/etc/hosts",
        beside: Path | None = None,
    ) -> bool:
        """Say whether a container of that id may not have it, on /etc/hosts or elsewhere.

        `beside`: what the container has as well, on /y.
        """
        wanted = [(at, source), *([("/y", beside)] if beside else [])]
        spec = {
            "mounts": [
                {"destination": where, "source": str(what), "options": ["rbind"]}
                for where, what in wanted
            ],
            "annotations": annotations or {},
            "linux": {"namespaces": namespaces or []},
        }
        with open_sources(spec, bundle) as sources:
            mine = owned.own(sources, spec, container_id, bundle)
            given = names or [("/", Access.SHARED), (f"{self.top}/protected", Access.PROTECTED)]
            given = [*given, *((path, Access.PROTECTED) for path in mine.protected)]
            table = restricted.table(sources.mounts, restricted.find(sources.mounts, given))
            try:
                restricted.refuse(sources, spec, table, mine, passed=())
            except RefusedError:
                return True
        return False


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """An engine's directories."""
    return Host(tmp_path)


def test_what_lies_in_the_containers_own_directory(host: Host) -> None:
    store = host.root / "containers"
    assert not host.is_refused(store / OWN / "hosts")
    assert not host.is_refused(store / OWN / "mounts/shm")
    assert host.is_refused(store / OWN)
    assert host.is_refused(store / OTHER / "hosts")
    assert host.is_refused(store / OWN / "hosts", container_id=OTHER)


def test_a_link_to_it_was_the_users_choice(host: Host) -> None:
    (host.top / "link").symlink_to(host.root / "containers" / OWN)
    assert host.is_refused(host.top / "link/hosts")
    (host.top / OWN).symlink_to(host.root / "containers")
    assert host.is_refused(host.top / OWN / OTHER / "hosts")


def test_an_id_that_was_chosen_proves_nothing(host: Host) -> None:
    (host.root / "containers/mine").mkdir()
    (host.root / "containers/mine/hosts").touch()
    assert host.is_refused(host.root / "containers/mine/hosts", container_id="mine")
    assert host.is_refused(host.root / "volumes/v/_data", container_id="containers")


def test_volumes_of_the_engine_that_keeps_the_container(host: Host) -> None:
    for name in ("volumes/v/_data", "volumes/v/_data/sub"):
        assert not host.is_refused(host.root / name)
        assert host.is_refused(host.root / name, container_id=OTHER.replace("f", "0"))
    for name in ("volumes/v", "volumes", "volumes/_data", "overlay2/layer/diff"):
        assert host.is_refused(host.root / name)
    assert not host.is_refused(host.root / "volumes/space/v/_data", container_id=NERD)
    assert host.is_refused(host.root / "volumes/v/_data", container_id=NERD)
    plugin = host.root / f"plugins/{OTHER}/propagated-mount"
    assert not host.is_refused(plugin / "v/sub")
    assert host.is_refused(plugin)
    os.chown(host.root / "containers" / OWN, 1, 1)
    assert host.is_refused(host.root / "volumes/v/_data")


def test_a_part_of_a_volume_may_be_bound_elsewhere(host: Host) -> None:
    safe = host.top / "safe-mount"
    safe.mkdir()

    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        syscalls.mount(str(host.root / "volumes/v/_data/sub"), str(safe), None, lib.MS_BIND)
        assert not host.is_refused(safe)
        # Also where nothing but a list is shared.
        assert not host.is_refused(safe, names=[("/srv", Access.SHARED)])
        assert host.is_refused(safe, container_id=OTHER.replace("f", "0"))
        syscalls.umount2(str(safe), 0)
        syscalls.mount(str(host.root / "volumes/v"), str(safe), None, lib.MS_BIND)
        assert host.is_refused(safe)
        assert host.is_refused(safe / "_data")

    in_child(work)


def test_a_volume_that_shows_something_else_is_that(host: Host) -> None:
    data = host.root / "volumes/v/_data"
    (host.top / "free").mkdir()

    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        for source, refused in (
            (host.root / "containers", True),
            (host.top / "protected", True),
            (host.top, True),
            (host.top / "free", False),
        ):
            syscalls.mount(str(source), str(data), None, lib.MS_BIND)
            assert host.is_refused(data) == refused, source
            syscalls.umount2(str(data), 0)
        syscalls.mount(str(host.top / "free"), str(data), None, lib.MS_BIND)
        assert host.is_refused(data, names=[("/srv", Access.SHARED)])
        assert not host.is_refused(data, names=[(f"{host.top}/free", Access.SHARED)])

    in_child(work)


def test_a_volume_that_is_a_device_is_that_device(host: Host) -> None:
    data = host.root / "volumes/v/_data"
    image = host.top / "image"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    done = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    loop = done.stdout.strip()

    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        os.chdir("/")
        for source in (loop, loop.lstrip("/")):
            syscalls.mount(source, str(data), "ext4", 0)
            whole = [("/", Access.SHARED), ("/dev", Access.PROTECTED)]
            assert host.is_refused(data, names=whole)
            assert not host.is_refused(data, names=[*whole, (loop, Access.SHARED)])
            syscalls.umount2(str(data), 0)

    try:
        in_child(work)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_a_kubernetes_sandbox_and_pod(host: Host) -> None:
    bundle = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{OWN}"

    def is_refused(name: str, key: str, value: str, bundle: str = bundle) -> bool:
        annotations = {f"io.kubernetes.cri.sandbox-{key}": value}
        return host.is_refused(host.root / name, annotations=annotations, bundle=bundle)

    sandbox, pod = f"sandboxes/{OTHER}/hosts", f"pods/{POD}/volumes/x"
    assert not is_refused(sandbox, "id", OTHER)
    assert not is_refused(pod, "uid", POD)
    assert is_refused(f"pods/{POD}", "uid", POD)
    assert is_refused(sandbox, "id", "sandboxes")
    assert is_refused(pod, "uid", "pods")
    # `docker run --annotation`
    moby = bundle.replace("k8s.io", "moby")
    assert is_refused(sandbox, "id", OTHER, moby)
    assert is_refused(pod, "uid", POD, moby)


def test_what_buildkit_binds(host: Host) -> None:
    bundle = str(host.root / "buildkit/executor/abc")
    for name in ("buildkit/executor/resolv.conf", "overlay2/layer/diff"):
        assert not host.is_refused(host.root / name, container_id="abc", bundle=bundle)
        assert host.is_refused(host.root / name, container_id="xyz", bundle=bundle)
        assert host.is_refused(host.root / name, container_id="abc")


def test_a_directory_of_that_name_is_not_buildkits(host: Host) -> None:
    """Containerd's namespace is its users' choice: `nerdctl -n executor`."""
    for name in ("tasks", "io.containerd.runtime.v2.task"):
        (host.root / name / "executor" / OWN).mkdir(parents=True)
        (host.root / name / "moby").mkdir()
        bundle = str(host.root / name / "executor" / OWN)
        assert host.is_refused(host.root / name / "moby", bundle=bundle)
        # Nor is it beneath containerd's directory of bundles, whatever lies there.
        (host.root / name / "metadata_v2.db").touch()
        is_refused = host.is_refused(host.root / name / "moby", bundle=bundle)
        assert is_refused == name.startswith("io.")


def test_where_the_engine_keeps_what_no_source_names(host: Host) -> None:
    top, root = str(host.root), os.fsencode(host.root)
    tasks = f"/run/other/io.containerd.runtime.v2.task/moby/{OWN}"
    merged = root + b"/overlay2/x/merged"
    assert owned.data_roots(OWN, tasks, merged, None) == {"/run/other", top}
    podman = f"{top}/overlay-containers/{OWN}/userdata"
    assert owned.data_roots(OWN, podman, b"/x", None) == {top}
    layers = Layers(
        (b"/other/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs",), (), None, ()
    )
    assert owned.data_roots(OWN, "/b", b"/x", layers) == {"/other"}
    # An id that was chosen, and a root file system that no engine keeps, tell nothing.
    assert owned.data_roots("mine", f"{top}/mine", merged, None) == set()
    assert owned.data_roots(NERD, "/b", merged, None) == set()


def test_a_joined_container_tells_where_the_engine_keeps_it(host: Host) -> None:
    file = host.root / f"containers/{OTHER}/hosts"

    def work() -> None:
        private()
        with another_container() as spaces:
            syscalls.mount(str(file), "/etc/hosts", None, lib.MS_BIND)
            names = [("/", Access.SHARED)]
            other = host.root / "overlay2"
            assert host.is_refused(file, namespaces=spaces, names=names, beside=other)

    in_child(work)


@contextlib.contextmanager
def another_container() -> Iterator[list[dict[str, str]]]:
    """A process with namespaces of its own but for its mounts; yields how to join it."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.unshare(lib.CLONE_NEWNET)
    with subprocess.Popen(["sleep", "60"]) as process:
        syscalls.setns(home, lib.CLONE_NEWNET)
        os.close(home)
        try:
            yield [{"type": "network", "path": f"/proc/{process.pid}/ns/net"}]
        finally:
            process.terminate()


def private() -> None:
    """Go to a mount namespace whose mounts nobody else sees."""
    syscalls.unshare(lib.CLONE_NEWNS)
    syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)


def test_the_same_file_as_in_a_joined_container(host: Host) -> None:
    store = host.root / f"containers/{OTHER}"
    file, shm = store / "hosts", store / "mounts/shm"
    shm.mkdir(parents=True)

    def work() -> None:
        private()
        with another_container() as spaces:
            assert host.is_refused(file, namespaces=spaces)
            syscalls.mount(str(file), "/etc/hosts", None, lib.MS_BIND)
            syscalls.mount("shm", str(shm), "tmpfs", 0)
            syscalls.mount(str(shm), "/dev/shm", None, lib.MS_BIND)
            assert not host.is_refused(file, namespaces=spaces)
            assert not host.is_refused(shm, namespaces=spaces, at="/dev/shm")
            assert host.is_refused(file, namespaces=spaces, at="/etc/hostname")
            assert host.is_refused(store, namespaces=spaces)
            # What every container shares with the host proves nothing.
            for kind, name in (("cgroup", "cgroup"), ("network", "user"), ("ipc", "ipc")):
                path = spaces[0]["path"].replace("/net", f"/{name}")
                assert host.is_refused(file, namespaces=[{"type": kind, "path": path}])

    in_child(work)


def test_a_link_in_a_joined_container_proves_nothing(host: Host) -> None:
    """Its root file system is its users', who may have links to anything in it."""
    file = host.root / f"containers/{OTHER}/hosts"
    top = host.top / "theirs"
    (top / "etc").mkdir(parents=True)
    (top / "etc/hosts").symlink_to(file)
    (top / "d").symlink_to(file.parent)

    def work() -> None:
        private()
        home = os.open("/", os.O_RDONLY)
        os.chroot(top)
        with contextlib.ExitStack() as stack:
            # Popen has to find its program: the other's root is what this process had.
            pid = os.fork()
            if pid == 0:
                syscalls.unshare(lib.CLONE_NEWNET)
                os.write(ready[1], b".")
                os.read(done[0], 1)
                os._exit(0)
            os.fchdir(home)
            os.chroot(".")
            stack.callback(os.waitpid, pid, 0)
            stack.callback(os.write, done[1], b".")
            os.read(ready[0], 1)
            spaces = [{"type": "network", "path": f"/proc/{pid}/ns/net"}]
            assert os.path.samefile(f"/proc/{pid}/root/etc", top / "etc")
            assert host.is_refused(file, namespaces=spaces)
            assert host.is_refused(file.parent, namespaces=spaces, at="/d")
            # Nor is a file that is not mounted there.
            os.unlink(top / "etc/hosts")
            os.link(file, top / "etc/hosts")
            assert host.is_refused(file, namespaces=spaces)
            os.unlink(top / "etc/hosts")
            (top / "etc/hosts").touch()
            syscalls.mount(str(file), str(top / "etc/hosts"), None, lib.MS_BIND)
            assert not host.is_refused(file, namespaces=spaces)

    ready, done = os.pipe(), os.pipe()
    try:
        in_child(work)
    finally:
        for fd in (*ready, *done):
            os.close(fd)


def test_what_is_shared_for_one_source_is_not_for_another(host: Host) -> None:
    """Who knows the container's id lets a link lead there, at the next start."""
    mine = host.root / f"containers/{OWN}"
    (host.top / "link").symlink_to(mine)
    assert not host.is_refused(mine / "hosts", beside=mine / "mounts/shm")
    assert host.is_refused(mine / "hosts", beside=host.top / "link")
    (host.top / "volume").symlink_to(host.root / "plugins")
    assert host.is_refused(
        host.root / f"plugins/{OTHER}/propagated-mount/v/sub", beside=host.top / "volume"
    )


def test_what_is_shared_for_one_source_is_not_what_a_volume_shows(host: Host) -> None:
    mine = host.root / f"containers/{OWN}"
    data = host.root / "volumes/v/_data"

    def work() -> None:
        private()
        syscalls.mount(str(mine), str(data), None, lib.MS_BIND)
        assert host.is_refused(mine / "hosts", beside=data)

    in_child(work)


@pytest.mark.parametrize("kind", ["overlay", "proc"])
def test_a_part_of_a_volume_is_what_the_volume_is(host: Host, kind: str) -> None:
    """A volume of driver options shows anything of the host's, and so does a part of it."""
    data, safe = host.root / "volumes/v/_data", host.top / "safe-mount"
    (host.top / "secret/sys").mkdir(parents=True)
    safe.mkdir()

    def work() -> None:
        private()
        options = f"lowerdir={host.top}/secret:{host.root}" if kind == "overlay" else None
        syscalls.mount(kind, str(data), kind, 0, options)
        assert host.is_refused(data)
        syscalls.mount(f"{data}/sys", str(safe), None, lib.MS_BIND)
        assert host.is_refused(safe)

    in_child(work)


def test_a_part_of_a_bound_volume_has_to_be_shared(host: Host) -> None:
    data, safe = host.root / "volumes/v/_data", host.top / "safe-mount"
    (host.top / "other/sub").mkdir(parents=True)
    safe.mkdir()

    def work() -> None:
        private()
        syscalls.mount(f"{host.top}/other", str(data), None, lib.MS_BIND)
        syscalls.mount(f"{data}/sub", str(safe), None, lib.MS_BIND)
        assert host.is_refused(safe, names=[("/srv", Access.SHARED)])
        assert not host.is_refused(safe, names=[(f"{host.top}/other", Access.SHARED)])

    in_child(work)


def test_mounts_in_the_own_directory_are_what_they_show(host: Host) -> None:
    """A subPath of Kubernetes is a bind in the pod's directory: of its volumes, or a hostPath."""
    mine = host.root / f"containers/{OWN}"
    for name in ("volume/sub", "disk", "part", "twice"):
        (mine / name).mkdir(parents=True)
    (host.top / "other/sub").mkdir(parents=True)
    (host.top / "layers").mkdir()
    exclusive = [("/srv", Access.SHARED)]

    def work() -> None:
        private()

        def shows(source: Path | str, kind: str | None = None, options: str | None = None) -> bool:
            for name in ("part", "twice"):
                flags = 0 if kind else lib.MS_BIND
                syscalls.mount(str(source), str(mine / name), kind, flags, options)
            refused = host.is_refused(mine / "part", names=exclusive)
            for name in ("part", "twice"):
                syscalls.umount2(str(mine / name), 0)
            return not refused

        assert shows(mine / "volume/sub")
        assert not shows(host.top / "other/sub")
        syscalls.mount("own", str(mine / "disk"), "tmpfs", 0)
        (mine / "disk/sub").mkdir()
        assert shows(mine / "disk")
        assert shows(mine / "disk/sub")
        layers = f"lowerdir={host.top}/other:{host.root}"
        syscalls.mount("overlay", str(host.top / "layers"), "overlay", 0, layers)
        assert not shows(host.top / "layers")
        assert not shows(host.top / "layers/sub")
        assert not shows("proc", "proc")

    in_child(work)
