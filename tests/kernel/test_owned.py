"""What is an engine's own is known by where it keeps it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.policy.paths import Access
from eci_supervisor.runtime import owned, restricted
from eci_supervisor.runtime.errors import RefusedError
from eci_supervisor.runtime.sources import open_sources
from tests.support.children import in_child

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

OWN = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
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
    ) -> bool:
        """Say whether a container of that id may not have it on /etc/hosts."""
        mount = {"destination": "/etc/hosts", "source": str(source), "options": ["rbind"]}
        spec = {
            "mounts": [mount],
            "annotations": annotations or {},
            "linux": {"namespaces": namespaces or []},
        }
        with open_sources(spec, bundle) as sources:
            mine = owned.own(sources, spec, container_id, bundle)
            given = names or [("/", Access.SHARED), (f"{self.top}/protected", Access.PROTECTED)]
            given = [*given, *((path, Access.PROTECTED) for path in mine.protected)]
            table = restricted.table(sources.mounts, given, mine.shared)
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
    sandbox = {"io.kubernetes.cri.sandbox-id": OTHER}
    assert not host.is_refused(host.root / f"sandboxes/{OTHER}/hosts", annotations=sandbox)
    assert host.is_refused(host.root / f"sandboxes/{OTHER}/hosts")
    pod = {"io.kubernetes.cri.sandbox-uid": POD}
    assert not host.is_refused(host.root / f"pods/{POD}/volumes/x", annotations=pod)
    assert host.is_refused(host.root / f"pods/{POD}", annotations=pod)
    wrong = {"io.kubernetes.cri.sandbox-id": "sandboxes", "io.kubernetes.cri.sandbox-uid": "pods"}
    assert host.is_refused(host.root / f"sandboxes/{OTHER}/hosts", annotations=wrong)


def test_what_buildkit_binds(host: Host) -> None:
    bundle = str(host.root / "buildkit/executor/abc")
    for name in ("buildkit/executor/resolv.conf", "overlay2/layer/diff"):
        assert not host.is_refused(host.root / name, container_id="abc", bundle=bundle)
        assert host.is_refused(host.root / name, container_id="xyz", bundle=bundle)
        assert host.is_refused(host.root / name, container_id="abc")


def test_the_same_file_as_in_a_joined_container(host: Host) -> None:
    file = host.root / f"containers/{OTHER}/hosts"
    spaces = [{"type": "network", "path": f"/proc/{os.getpid()}/ns/net"}]
    assert host.is_refused(file, namespaces=spaces)

    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        syscalls.mount(str(file), "/etc/hosts", None, lib.MS_BIND)
        mine = [{"type": "network", "path": f"/proc/{os.getpid()}/ns/net"}]
        assert not host.is_refused(file, namespaces=mine)
        assert host.is_refused(host.root / f"containers/{OTHER}", namespaces=mine)

    in_child(work)
