"""Read-only cgroups are made writable, or taken off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engines import Bundles

pytestmark = [pytest.mark.root, pytest.mark.engine]

CGROUPS = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}
# The other spelling, which runtimes mount as any file system.
CGROUP2 = {**CGROUPS, "destination": "/version2", "type": "cgroup2"}
# Of version 1 there is a mount for each hierarchy, of version 2 one.
VERSION_1 = Path("/sys/fs/cgroup/pids").exists()
POINT = "/sys/fs/cgroup/pids" if VERSION_1 else "/sys/fs/cgroup"
REMOUNT = f"mount - {POINT} - MS_REMOUNT|MS_BIND|MS_NOSUID|MS_NODEV|MS_NOEXEC -"
EMPTY = "''"
CLEAR = "setattr {} {} AT_EMPTY_PATH - MOUNT_ATTR_RDONLY -"
# The calls, and what the last of them is answered.
ATTACKS = {
    "remount": (REMOUNT, "EPERM"),
    "remount_in_a_private_namespace": (f"unshare CLONE_NEWNS , {REMOUNT}", "EPERM"),
    "mount_setattr": (CLEAR.format("cwd", POINT), "EPERM"),
    "mount_setattr_of_a_copy": (
        f"open_tree 1 cwd {POINT} OPEN_TREE_CLONE , {CLEAR.format(1, EMPTY)}",
        "EPERM",
    ),
    "umount": (f"umount2 {POINT} -", "EINVAL"),
    "umount_lazily": (f"umount2 {POINT} MNT_DETACH", "EINVAL"),
    "remount_of_version_2": (REMOUNT.replace(POINT, "/version2"), "EPERM"),
    "mount_setattr_of_version_2": (CLEAR.format("cwd", "/version2"), "EPERM"),
    "move": (f"mount {POINT} /mnt - MS_MOVE -", "EINVAL"),
}


@pytest.fixture(params=["mnt", "mnt32"])
def run(request: pytest.FixtureRequest, bundles: Bundles) -> Callable[[Path, str], list[str]]:
    """Runs calls in a new privileged container with cgroups; returns what each is answered."""

    def run(runtime: Path, calls: str) -> list[str]:
        words = ["" if word == EMPTY else word for word in calls.split()]
        return bundles.answers(
            runtime,
            [request.param, *words],
            privileged=True,
            mounts=[CGROUPS, CGROUP2],
            identity_userns=runtime == Path("runc"),
            cgroupns=True,
        )

    return run


@pytest.mark.parametrize("name", ATTACKS)
def test_succeeds_without_protection(run: Callable[[Path, str], list[str]], name: str) -> None:
    assert set(run(Path("runc"), ATTACKS[name][0])) == {"0"}


@pytest.mark.parametrize("name", ATTACKS)
def test_fails(
    run: Callable[[Path, str], list[str]], runtimes: dict[str, Path], runtime: str, name: str
) -> None:
    calls, error = ATTACKS[name]
    *before, last = run(runtimes[runtime], calls)
    assert set(before) <= {"0"}
    assert last == error


def test_hierarchy_can_be_mounted_anew(
    run: Callable[[Path, str], list[str]], runtimes: dict[str, Path], runtime: str
) -> None:
    """As systemd does; what it can write there was delegated to it."""
    kind = "cgroup" if VERSION_1 else "cgroup2"
    data = "pids" if VERSION_1 else "-"
    calls = f"mount none /mnt tmpfs - - , mkdir /mnt/d , mount none /mnt/d {kind} - {data}"
    assert run(runtimes[runtime], calls) == ["0", "0", "0"]
