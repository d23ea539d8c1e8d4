"""mount(8) of util-linux and of busybox, overlays and FUSE, as people use them by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.debian import USER
from tests.support.workload import PRIVILEGED, SYS_ADMIN

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

KINDS = {"privileged": PRIVILEGED, "sys_admin": SYS_ADMIN}


@pytest.fixture(
    scope="module",
    params=[("eci", "privileged"), ("eci-crun", "sys_admin")],
    ids="-".join,
)
def _container(
    request: pytest.FixtureRequest, workloads: Workloads, programs: dict[str, Path]
) -> Iterator[Workload]:
    runtime, kind = request.param
    # Not in /usr: the kernel takes no directory with a locked mount below it as an overlay's layer.
    mnt = f"--volume={programs['mnt']}:/opt/mnt:ro"
    words = [*KINDS[kind], "--volume=/vol", "--device=/dev/fuse", mnt]
    with workloads.start(runtime, *words) as container:
        yield container


@pytest.fixture
def box(_container: Workload) -> Iterator[Workload]:
    """A container with a volume on /vol and FUSE, and with what a test mounts unmounted by it."""
    before = _container.out(
        "mkdir -p /m /m2 /m3; rm -rf /vol/*; mkdir /vol/lower /vol/upper /vol/work\n"
        "cut -d ' ' -f 5 /proc/1/mountinfo"
    )
    yield _container
    assert _container.out("cut -d ' ' -f 5 /proc/1/mountinfo") == before


@pytest.fixture(params=["", "busybox "], ids=["util-linux", "busybox"])
def by(request: pytest.FixtureRequest) -> str:
    """What stands before `mount` and `umount`."""
    prefix: str = request.param
    return prefix


# -- mount(8) -----------------------------------------------------------------------------


def options(box: Workload, point: str) -> set[str]:
    """Return the flags of the uppermost mount on `point`, and what its file system says."""
    words = box.out(f"grep ' {point} ' /proc/1/mountinfo | tail -n 1").split()
    return {*words[5].split(","), *words[-1].split(",")}


def test_tmpfs_and_remount(box: Workload, by: str) -> None:
    box.out(f"{by}mount -t tmpfs -o size=1m,mode=750,nosuid t /m; echo x > /m/x")
    assert options(box, "/m") > {"rw", "nosuid", "size=1024k", "mode=750"}
    assert box.out("stat -c '%a %u' /m") == "750 0"
    box.out(f"{by}mount -o remount,ro /m; ! touch /m/y 2> /dev/null")
    assert "ro" in options(box, "/m")
    box.out(f"{by}mount -o remount,rw,size=2m /m; touch /m/y")
    assert "size=2048k" in options(box, "/m")
    box.out(f"{by}mount -o remount,bind,ro,noexec /m; ! touch /m/z 2> /dev/null; {by}umount /m")
    assert box.out("ls -A /m") == ""


def test_bind_move_and_propagation(box: Workload, by: str) -> None:
    box.out(f"echo x > /vol/x; {by}mount --bind /vol /m; {by}mount --make-private /m")
    assert box.out("cat /m/x") == "x"
    # A mount is moved from a private parent only.
    box.out(f"{by}mount -t tmpfs t /m2; {by}mount --make-private /m2; mkdir /m2/a /m2/b")
    box.out(f"{by}mount --bind /m /m2/a; {by}mount --move /m2/a /m2/b; cat /m2/b/x")
    assert box.out("ls /m2/a") == ""
    box.out(f"{by}mount --make-rshared /m2; {by}mount --rbind /m2 /m3; cat /m3/b/x")
    # What happens in a shared mount happens in its copy.
    box.out(f"{by}umount /m2/b; ls -A /m3/b")
    assert box.out("ls -A /m3/b") == ""
    box.out(f"{by}umount /m3; {by}umount /m2; {by}umount /m")


def test_bind_of_a_file(box: Workload, by: str) -> None:
    box.out(f"echo over > /vol/file; touch /f; {by}mount --bind /vol/file /f")
    assert box.out(f"cat /f; {by}umount /f; cat /f") == "over"


def test_stacked_and_lazy_unmounts(box: Workload, by: str) -> None:
    box.out(f"for i in 1 2 3; do {by}mount -t tmpfs t$i /m; echo $i > /m/i; done")
    assert box.out(f"cat /m/i; {by}umount /m; cat /m/i; {by}umount /m; cat /m/i").split() == [
        *["3", "2", "1"]
    ]
    busy = box.run(f"cd /m; {by}umount /m", check=False)
    assert busy.returncode != 0
    assert "busy" in busy.stderr
    assert box.out(f"cd /m; {by}umount -l /m; ls -A /m; cat i") == "1"


def test_copy_of_the_whole_tree_goes_lazily(box: Workload, by: str) -> None:
    """One by one it does not: what hides something stays in a copy too."""
    box.out(f"{by}mount --rbind / /m; test -e /m/vol/lower; test -e /m/proc/1; {by}umount -l /m")
    assert box.out("ls -A /m") == ""


def test_recursive_unmount(box: Workload) -> None:
    box.out("mount -t tmpfs t /m; mkdir -p /m/a; mount -t tmpfs t /m/a; mkdir /m/a/b")
    box.out("mount --rbind /vol /m/a/b; umount -R /m")


REFUSALS = {
    "-o loop /tmp/image /m": "Operation not permitted|permission denied",
    "-t ext4 /tmp/image /m": "permission denied|failed to setup loop device|not permitted",
    "-t ext4 /dev/null /m": "permission denied",
    "-t tmpfs t /nowhere": "mount point does not exist|No such file",
    "-t tmpfs -o nonsense=1 t /m": "bad option|Invalid argument",
    "--bind /nowhere /m": "does not exist|No such file",
    "--move /vol/lower /m": "bad option|Invalid argument",
    "-o remount,rw /vol/lower": "mount point not mounted|can't find /vol/lower",
}


def test_refusals_are_told(box: Workload, by: str) -> None:
    """The programs understand the errno: what they say is what they say of the kernel's own."""
    box.out("truncate -s 1m /tmp/image")
    for words, error in REFUSALS.items():
        done = box.run(f"{by}mount {words}", check=False)
        assert done.returncode != 0, words
        assert re.search(error, done.stderr), (words, done.stderr)
    # No loop device is attached to anything: there is none.
    assert box.run("ls /dev/loop*", check=False).stdout == ""


def test_kernel_file_systems(box: Workload, by: str) -> None:
    for fstype in ("mqueue", "devpts -o newinstance", "ramfs", "tmpfs"):
        box.out(f"{by}mount -t {fstype} x /m; {by}umount /m")


# -- overlays and FUSE --------------------------------------------------------------------

LAYERS = "lowerdir=/vol/lower,upperdir=/vol/upper,workdir=/vol/work"
# A change, a removal, a new directory and an owner, and what became of the layers.
CHANGES = """\
echo changed > /m/kept; rm /m/removed; mkdir /m/new; echo owned > /m/new/f
chown {user} /m/new/f; mv /m/kept /m/new/moved
"""


def test_overlay(box: Workload, by: str) -> None:
    mount = f"{by}mount -t overlay -o {LAYERS} overlay /m"
    box.out(f"echo low > /vol/lower/kept; echo low > /vol/lower/removed; {mount}")
    box.out(CHANGES.format(user=USER))
    for _ in range(2):
        assert box.out("ls -R /m | grep .; cat /m/new/moved; stat -c %u /m/new/f").split() == [
            *["/m:", "new", "/m/new:", "f", "moved", "changed", str(USER)]
        ]
        # And again, after the layers were put together anew.
        box.out(f"{by}umount /m; {mount}")
    box.out(f"{by}umount /m")
    # What the lower layer has is hidden, not gone.
    assert box.out("cat /vol/lower/kept; stat -c %F /vol/upper/removed") == (
        "low\ncharacter special file"
    )


def test_overlay_over_the_image(box: Workload) -> None:
    box.out("mount -t overlay -o lowerdir=/usr,upperdir=/vol/upper,workdir=/vol/work o /m")
    assert box.out("echo x > /m/bin/new; /m/bin/ls /vol/upper/bin; rm /m/bin/new") == "new"
    box.out("umount /m; mount -t overlay -o lowerdir=/vol/upper:/usr o /m; umount /m")


def test_fuse_overlay(box: Workload) -> None:
    box.out("echo low > /vol/lower/kept; echo low > /vol/lower/removed")
    for umount in ("umount", "fusermount3 -u"):
        box.out(f"fuse-overlayfs -o {LAYERS} /m 2> /dev/null")
        assert box.out("grep ' /m ' /proc/1/mountinfo | grep -c fuse-overlayfs") == "1"
        box.out(f"echo x > /m/x; chown {USER} /m/x; stat -c %u /vol/upper/x; rm -f /m/removed")
        assert box.out("ls /m").split() == ["kept", "x"]
        box.out(f"{umount} /m")
        # Its program ends with the mount.
        box.out("while pgrep -x fuse-overlayfs; do sleep 0.05; done", timeout=10)
    assert box.out("cat /vol/upper/x") == "x"


def test_mounts_over_and_below_fuse(box: Workload) -> None:
    """The supervisor looks paths up that the container's own program answers for."""
    box.out(f"mkdir /vol/lower/d; fuse-overlayfs -o {LAYERS} /m 2> /dev/null")
    box.out("mount -t tmpfs t /m/d; echo x > /m/d/x; mount --bind /m/d /m2; cat /m2/x; umount /m2")
    box.out("umount /m/d; mount --bind /m/d /m2; umount /m2; mount -t tmpfs t /m; umount /m")
    box.out("umount /m")


@pytest.fixture
def of_user(box: Workload) -> Iterator[Workload]:
    """A FUSE file system on /tmp/u/m, mounted by somebody who may not mount.

    fusermount3 is set-user-ID root, which makes it a program that only CAP_SYS_PTRACE may look
    into; and the file system answers nobody but its user, not even root.
    """
    as_user = f"--user={USER}"
    box.out(
        "chmod 666 /dev/fuse; rm -rf /tmp/u; mkdir -p /tmp/u/lower /tmp/u/m\n"
        "echo x > /tmp/u/lower/x; chown -R user: /tmp/u"
    )
    refused = box.run("mount -t tmpfs t /tmp/u/m", as_user, check=False)
    assert (refused.returncode, "must be superuser" in refused.stderr) == (32, True)
    box.out("fuse-overlayfs -o lowerdir=/tmp/u/lower /tmp/u/m 2> /dev/null", as_user)
    yield box
    assert box.mounts("/tmp/u") == []
    box.out("while pgrep -x fuse-overlayfs; do sleep 0.05; done", timeout=10)


def test_fuse_of_a_user_is_mounted_and_unmounted_by_fusermount(of_user: Workload) -> None:
    seen = of_user.out("cat /tmp/u/m/x; cd /tmp/u; fusermount3 -u /tmp/u/m", f"--user={USER}")
    assert seen == "x"
    assert of_user.out("ls -A /tmp/u/m") == ""


MOVE_IT = (
    "mount -t tmpfs t /m; mount --make-private /m; mkdir /m/a /m/b; mount --bind /tmp/u/m /m/a\n"
    "mount --move /m/a /m/b; umount /m/b; umount /m; umount /tmp/u/m"
)
SEEN_BY_ROOT = (
    "umount /tmp/u/m",
    "umount -l /tmp/u/m",
    "mount -t tmpfs t /tmp/u/m; umount /tmp/u/m; umount /tmp/u/m",
    "mount --bind /tmp/u/m /m; umount /tmp/u/m; umount /m",
    "mount -o remount,bind,ro /tmp/u/m; umount /tmp/u/m",
    "mount --make-private /tmp/u/m; cd /tmp/u; umount m",
    MOVE_IT,
    "exec 3< /tmp/u; /opt/mnt umount2 /proc/self/fd/3/m - | grep -x 0",
)


@pytest.mark.parametrize("script", SEEN_BY_ROOT)
def test_root_mounts_and_unmounts_fuse_that_it_may_not_read(of_user: Workload, script: str) -> None:
    denied = of_user.run("ls /tmp/u/m", check=False)
    assert (denied.returncode, "Permission denied" in denied.stderr) == (2, True)
    of_user.out(script)
