"""New procfs and sysfs where the container's own have masks, and the calls of the new mount API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.workload import PRIVILEGED, SYS_ADMIN, UNFILTERED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.workload import Workload, Workloads

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the image.
    pytest.mark.timeout(120, func_only=True),
]


@pytest.fixture
def masked(workloads: Workloads, runtime: str) -> Iterator[Workload]:
    """A container that may mount and has masks on its /proc and /sys."""
    with workloads.start(runtime, *UNFILTERED) as container:
        yield container


def test_unshare_gets_a_procfs_of_its_own(masked: Workload) -> None:
    script = "unshare -mpf --mount-proc sh -c 'echo $$; ls -d /proc/[0-9]* | wc -l'"
    pid, processes = (int(word) for word in masked.out(script).split())
    assert pid == 1
    assert processes <= 4


def test_bubblewrap_gets_a_procfs_of_its_own(masked: Workload) -> None:
    sandbox = "bwrap --unshare-pid --bind / / --proc /proc --dev /dev"
    processes = masked.out(f"{sandbox} sh -c 'ls -d /proc/[0-9]* | wc -l'")
    assert int(processes) <= 5


@pytest.mark.parametrize("by", ["", "busybox "], ids=["util-linux", "busybox"])
def test_new_procfs_has_the_masks(masked: Workload, by: str) -> None:
    masked.out(f"mkdir /m; {by}mount -t proc p /m; test -e /m/1/status")
    assert masked.out("cat /m/timer_list /m/keys 2> /dev/null | wc -c") == "0"
    write = masked.run("echo x > /m/sys/kernel/domainname", check=False)
    assert "Read-only file system" in write.stderr
    masked.out(f"{by}umount /m")
    assert masked.out("ls -A /m") == ""
    assert masked.mounts("/m") == []


@pytest.mark.parametrize("by", ["", "busybox "], ids=["util-linux", "busybox"])
def test_new_sysfs_has_the_masks(masked: Workload, by: str) -> None:
    masked.out(f"mkdir /m; {by}mount -t sysfs s /m; test -e /m/class/net/lo")
    assert masked.out("ls -A /m/firmware") == ""
    masked.out(f"{by}umount /m")
    assert masked.mounts("/m") == []


# It keeps its fds on what it mounts, so nothing but a lazy unmount is possible.
NEW_CALLS = (
    "mkdir /m , fsmount tmpfs /m , write /m/x , umount2 /m MNT_DETACH , "
    "clone /vol /m - , write /m/x , umount2 /m MNT_DETACH"
)


@pytest.mark.parametrize("flags", [PRIVILEGED, SYS_ADMIN], ids=["privileged", "sys_admin"])
def test_program_that_knows_the_new_calls_alone(
    workloads: Workloads, programs: dict[str, Path], runtime: str, flags: tuple[str, ...]
) -> None:
    mnt = f"--volume={programs['mnt']}:/bin/mnt:ro"
    with workloads.start(runtime, *flags, mnt, "--volume=/vol") as box:
        assert box.out(f"mnt {NEW_CALLS}").split() == ["0"] * 7
        assert box.out("ls /vol") == "x"
