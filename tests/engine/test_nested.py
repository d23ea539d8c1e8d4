"""Volumes that the kernel holds in their places, and what stays as it was.

Whether it does is asked of the kernel itself, by a process of the host's that enters the
container's namespaces past the supervisor.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind

if TYPE_CHECKING:
    from tests.support.containers import Containers

pytestmark = [pytest.mark.root, pytest.mark.engine]

HELD = "EINVAL"


def test_kernel_holds_what_is_read_only_over_something_writable(containers: Containers) -> None:
    outer, inner = containers.volume("in"), containers.volume("sub")
    file = inner / "file"
    file.write_text("text")
    paths = ["/w/in", "/w/made/for it", "/vol", "/a b/c", "/etc/conf", "/etc/passwd", "/w"]
    container = containers.start(
        bind(outer, "/w"),
        bind(inner, "/w/in", "ro"),
        bind(inner, "/w/made/for it", "ro"),
        bind(inner, "/vol", "ro", "nosuid"),
        bind(inner, "/a b/c", "ro"),
        bind(file, "/etc/conf", "ro"),
        bind(file, "/etc/passwd", "ro"),
    )
    assert container.held(*paths) == dict.fromkeys(paths, HELD)
    assert container.run("cat", "/etc/conf", "/etc/passwd") == ["texttext"]
    assert container.run("mnt", "flags", "/vol", ",", "flags", "/w/in", ",", "flags", "/w") == [
        "ro,nosuid",
        "ro",
        "rw",
    ]
    # The supervisor's answer comes first, and says why.
    for path in paths[:-1]:
        assert container.run("mnt", "umount2", path, "MNT_DETACH") == ["EPERM"], path
    # Mount points that were not there belong to the container's root, on disk the host's.
    made = [outer / "made", outer / "made/for it", containers.root / "a b/c"]
    made.append(containers.root / "etc/conf")
    assert [(path.stat().st_uid, path.stat().st_gid) for path in made] == [(0, 0)] * len(made)
    assert made[-1].is_file()
    assert made[-1].stat().st_size == 0
    assert container.run("stat", "-c", "%u", "/a b", "/w/made") == ["0", "0"]


def test_destinations_through_links_of_the_image(containers: Containers) -> None:
    root, inner = containers.root, containers.volume("sub")
    (root / "run").mkdir()
    (root / "var/run").symlink_to("/run")
    (root / "up").symlink_to("../../../../srv/gone")
    (root / "etc/time").symlink_to("../usr/zone")
    (inner / "file").write_text("zone")
    container = containers.start(
        bind(inner, "/var/run/secret", "ro"),
        bind(inner, "/up", "ro"),
        bind(inner / "file", "/etc/time", "ro"),
    )
    paths = ["/run/secret", "/srv/gone", "/usr/zone"]
    assert container.held(*paths) == dict.fromkeys(paths, HELD)
    assert container.run("cat", "/etc/time", "/up/file", "/var/run/secret/file") == ["zone" * 3]


def test_what_hides_nothing_can_be_unmounted(containers: Containers) -> None:
    volume = containers.volume("in")
    container = containers.start(
        bind(volume, "/w"), bind(volume, "/w/in"), bind(volume / "in", "/etc/hosts.d")
    )
    words = "umount2 /w/in - , umount2 /w - , umount2 /etc/hosts.d - , write /w/x".split()
    assert container.run("mnt", *words) == ["0"] * 4
    assert list(volume.iterdir()) == [volume / "in"]


def test_read_only_root_file_system_stays_as_it_is(containers: Containers) -> None:
    volume = containers.volume("in")
    container = containers.start(
        bind(volume, "/vol", "ro"),
        bind(volume, "/w"),
        bind(volume / "in", "/w/in", "ro"),
        readonly=True,
    )
    assert container.run(*"mnt write /x , write /vol/x , write /w/x , write /w/in/x".split()) == [
        "EROFS",
        "EROFS",
        "0",
        "EROFS",
    ]
    assert container.held("/w/in", "/w", "/vol") == {"/w/in": HELD, "/w": HELD, "/vol": "0"}


def test_order_of_volumes_stays(containers: Containers) -> None:
    first, second, third = (containers.volume(name) for name in ("first", "in", "third"))
    container = containers.start(
        bind(first, "/data/in", "ro"),
        bind(second, "/data"),
        bind(third, "/data/in"),
        bind(third, "/twice", "ro"),
        bind(first, "/twice"),
    )
    assert container.run("ls", "/data", "/data/in", "/twice") == [
        *("/data:", "in", "", "/data/in:", "third", "", "/twice:", "first")
    ]
    assert container.held("/data/in", "/data", "/twice") == {
        "/data/in": "0",
        "/data": HELD,
        "/twice": HELD,
    }


# -- what is the runtime's to mount --------------------------------------------------------


@pytest.mark.parametrize("target", ["/srv/in", "../../../../../srv/in"])
def test_link_in_a_volume_leaves_the_mount_to_the_runtime(
    containers: Containers, target: str
) -> None:
    outer, inner = containers.volume("in"), containers.volume("sub")
    (containers.root / "srv/in").mkdir(parents=True)  # crun makes none behind a link
    (outer / "link").symlink_to(target)
    container = containers.start(bind(outer, "/w"), bind(inner, "/w/link", "ro"))
    assert container.run("ls", "/srv/in") == ["sub"]
    assert container.run(*"mnt umount2 /srv/in MNT_DETACH , write /srv/in/x".split()) == [
        "EPERM",
        "EROFS",
    ]
    assert not (containers.root / "srv/in/sub").exists()


def test_volume_in_a_tmpfs_is_held(containers: Containers) -> None:
    inner = containers.volume("sub")
    tmpfs = {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []}
    sealed = {"destination": "/s", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}
    container = containers.start(
        tmpfs, bind(inner, "/t/in", "ro"), sealed, bind(inner, "/vol", "ro")
    )
    # The root directory has a mount that the kernel has locked, and two that it has not.
    words = "umount2 /t/in - , umount2 /s - , umount2 /vol - , umount2 /proc MNT_DETACH".split()
    assert container.run("mnt", *words) == ["EPERM", "EPERM", "EPERM", "EBUSY"]
    # Copies of them elsewhere in that very directory are the container's own.
    words = []
    for path in ("/t/in", "/s", "/vol", "/proc"):
        words += f"mount {path} /mnt - MS_BIND|MS_REC - , umount2 /mnt MNT_DETACH ,".split()
    assert container.run("mnt", *words[:-1]) == ["0"] * 8
    assert container.held("/t/in", "/s", "/vol") == {"/t/in": HELD, "/s": "0", "/vol": HELD}


def test_a_volume_with_a_mount_that_cannot_be_mapped(containers: Containers, runtime: str) -> None:
    """Where the source cannot be mapped with its mounts, these come one by one, not it itself.

    With crun 1.8 they do not come at all.
    """
    volume = containers.volume("proc", "own")
    settings = containers.place.directory("set") / "settings.json"
    settings.write_text(json.dumps({"vm": {"sharedPaths": ["/", f"{volume}/proc"]}}))
    for name, kind in (("proc", "proc"), ("own", "tmpfs")):
        subprocess.run(["mount", "-t", kind, "none", volume / name], check=True)
    try:
        container = containers.start(bind(volume, "/w"), settings=settings)
        assert sorted(container.run("ls", "/w")) == ["own", "proc"]
        shown = ["self"] if runtime == "eci" else []
        # Of the other entries some may be gone before find has looked at them.
        found = container.run("sh", "-c", "find /w/proc -maxdepth 1 -name self 2> /dev/null; true")
        assert found == [f"/w/proc/{name}" for name in shown]
        for path in ("/w/x", "/w/own/x"):
            assert container.run("sh", "-c", f"touch {path} && stat -c %u {path}") == ["0"]
    finally:
        for name in ("proc", "own"):
            subprocess.run(["umount", volume / name], check=True)


def test_volume_under_a_volume_that_lacks_its_place(containers: Containers) -> None:
    first, second = containers.volume("first"), containers.volume("other")
    container = containers.start(bind(first, "/data/in/it", "ro"), bind(second, "/data"))
    assert container.run("ls", "/data") == ["other"]
    assert container.run("mnt", "umount2", "/data", "MNT_DETACH") == ["EPERM"]
    assert container.held("/data") == {"/data": HELD}


@pytest.mark.parametrize("privileged", [True, False])
def test_kernel_locks_the_flags_of_volumes_wherever_they_lie(
    containers: Containers, *, privileged: bool
) -> None:
    """Crun makes the clones of what is not nested outside of the user namespace."""
    volume, file = containers.volume("sub"), containers.volume() / "file"
    file.touch()
    container = containers.start(
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"},
        bind(file, "/proc/cpuinfo", "ro"),
        bind(file, "/dev/file", "ro"),
        bind(volume, "/scratch/ro", "ro"),
        bind(file, "/scratch/file", "ro"),
        bind(volume, "/flags", "nosuid", "noexec"),
        bind(volume, "/free"),
        privileged=privileged,
    )
    remount = ("-", "MS_REMOUNT|MS_BIND", "-")
    for path, flags in (
        ("/scratch/ro", "ro"),
        ("/scratch/file", "ro"),
        ("/proc/cpuinfo", "ro"),
        ("/dev/file", "ro"),
        ("/flags", "rw,nosuid,noexec"),
    ):
        assert container.native("mount", "-", path, *remount) == ["EPERM"]
        assert container.native("flags", path)[0].startswith(flags)
    # Nothing else of them is locked.
    for path in ("/flags", "/free", "/scratch"):
        assert container.held(path) == {path: "0"}


def test_kernel_holds_the_masks(containers: Containers) -> None:
    container = containers.start(privileged=False)
    masks = ("/proc/timer_list", "/proc/sys", "/sys/firmware")
    assert container.held(*masks) == dict.fromkeys(masks, HELD)
    for path in ("/proc/sys", "/sys"):
        assert container.native("mount", "-", path, "-", "MS_REMOUNT|MS_BIND", "-") == ["EPERM"]
    assert container.native("mount", "/proc", "/mnt", "-", "MS_BIND", "-") == [HELD]


def test_sysctls_are_set_before_they_become_read_only(containers: Containers) -> None:
    """By the worker, with the container's own rights; what a container cannot have is refused."""
    container = containers.start(
        privileged=False,
        sysctl={"net.ipv4.ip_default_ttl": "77", "kernel.msgmax": "4242", "fs.mqueue.msg_max": "9"},
    )
    seen = container.run(
        *"cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax".split(),
        "/proc/sys/fs/mqueue/msg_max",
    )
    assert seen == ["77", "4242", "9"]
    for name, word in (("net.ipv4.not_there", "No such file"), ("kernel.panic", "kernel.panic")):
        with pytest.raises(AssertionError, match=word):
            containers.start(privileged=False, sysctl={name: "1"})


def test_a_mask_on_what_only_the_hosts_network_namespace_has(containers: Containers) -> None:
    """What a sysfs does not show of it needs no mask."""
    name = f"eci{os.getpid()}"
    path = f"/sys/devices/virtual/net/{name}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        box = containers.start(
            privileged=False, change=lambda spec: spec["linux"]["maskedPaths"].append(path)
        )
        assert box.run("mnt", "kind", path) == ["ENOENT"]
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
