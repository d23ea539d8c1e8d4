"""mount(8) of a later Debian, which makes the new mount calls wherever the kernel has them.

What the program prints and what is mounted tells that it works; the trace tells that it was the
new calls that did it: util-linux falls back to mount(2) in silence.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import Runtime, bind, make_spec, write_bundle
from tests.support.debian import current

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the root file system.
    pytest.mark.timeout(120, func_only=True),
]

PRIVILEGED, SYS_ADMIN = "privileged", "sys_admin"
PATH = "PATH=/usr/sbin:/usr/bin"
PATIENCE = 5.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Box:
    """A running container with that Debian, and its trace."""

    runtime: Runtime
    name: str
    trace: Path
    masked: bool

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in it."""
        words = ["exec", "--env", PATH, self.name, "bash", "-c", script]
        return self.runtime.call(*words, check=False)

    def out(self, script: str) -> str:
        """Run a script that ends with its first failure; return what it printed."""
        done = self.run(f"set -e\n{script}")
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout.rstrip("\n")

    def refuses(self, script: str) -> str:
        """Run a script that has to fail; return what it said."""
        done = self.run(f"set -e\n{script}")
        assert done.returncode != 0, script
        return done.stderr

    def table(self) -> dict[str, set[str]]:
        """Return the mount points, as the first process sees them; later mounts hide earlier ones.

        With each: the flags of the mount, and what its file system says.
        """
        lines = [line.split() for line in self.out("cat /proc/1/mountinfo").splitlines()]
        return {words[4]: {*words[5].split(","), *words[-1].split(",")} for words in lines}

    def options(self, point: str) -> set[str]:
        """Return the options of the uppermost mount on `point`."""
        return self.table()[point]

    def beneath(self, point: str) -> dict[str, bool]:
        """Return what is mounted on places beneath `point`, and whether it is read-only."""
        return {
            mount.removeprefix(point): "ro" in options
            for mount, options in self.table().items()
            if mount.startswith(f"{point}/")
        }

    def calls(self) -> list[str]:
        """Return the trace so far: the program, a colon, and the call."""
        mark = f"/mark{next(_numbers)}"
        self.out(f"/opt/mnt umount2 {mark} -")
        deadline = time.monotonic() + PATIENCE
        while mark not in (text := self.trace.read_text()):
            assert time.monotonic() < deadline, "the trace does not come to an end"
            time.sleep(0.02)
        calls = re.findall(r"^\S+ \S+ ([^:]+: \w+\(.*)$", text, re.MULTILINE)
        return [call for call in calls if "/mark" not in call]


@pytest.fixture(scope="session")
def _root(place: Place) -> Path:
    """The root file system, without what needs device nodes."""
    root = place.directory("b") / "root"
    root.mkdir(mode=0o755)
    words = ["tar", "-C", str(root), "--exclude=./dev/*", "-xf", str(current().archive)]
    subprocess.run(words, check=True)
    for name in ("m", "m2", "m3", "vol", "ro"):
        (root / name).mkdir()
    (root / "opt/mnt").touch()
    (root / "f").touch()
    return root


@pytest.fixture(
    scope="module",
    params=itertools.product(("eci", "eci-crun"), (PRIVILEGED, SYS_ADMIN)),
    ids="-".join,
)
def _container(
    request: pytest.FixtureRequest,
    place: Place,
    runtimes: dict[str, Path],
    programs: dict[str, Path],
    _root: Path,
) -> Iterator[Box]:
    program, kind = request.param
    writable, read_only = place.directory("v"), place.directory("v")
    (read_only / "kept").write_text("kept")
    name = f"mount{next(_numbers)}"
    spec = make_spec(
        ["sleep", "infinity"],
        cgroup=f"/{place.cgroup}/{name}",
        privileged=kind == PRIVILEGED,
        cap_add=["CAP_SYS_ADMIN"],
        mounts=[
            bind(writable, "/vol"),
            bind(read_only, "/ro", "ro"),
            bind(programs["mnt"], "/opt/mnt", "ro"),
        ],
    )
    spec["process"]["env"] = [PATH]
    bundle = write_bundle(place.directory("bundle"), spec, _root)
    trace = place.directory("trace") / "trace.log"
    runtime = Runtime(str(runtimes[program]), place.directory("rt"), env={"ECI_TRACE": str(trace)})
    runtime.call("create", "--bundle", str(bundle), name)
    try:
        runtime.start(name)
        yield Box(runtime, name, trace, kind == SYS_ADMIN)
    finally:
        runtime.call("delete", "--force", name)


@pytest.fixture
def box(_container: Box) -> Iterator[Box]:
    """A container in which a test unmounts what it mounts, and mount(8) makes no old call.

    unshare(1) does.
    """
    before = list(_container.table())
    known = len(_container.calls())
    _container.out("rm -rf /vol/*; mkdir /vol/lower /vol/upper /vol/work")
    yield _container
    assert list(_container.table()) == before
    made = _container.calls()[known:]
    assert [call for call in made if call.startswith("mount: mount(")] == []
    # Every call was answered by the kernel, or by a rule: none for want of something of ours.
    assert [call for call in made if "internal" in call or "ENOSYS" in call] == []


def test_it_is_the_new_one(box: Box) -> None:
    known = len(box.calls())
    assert "fd-based-mount" in box.out("mount --version")
    box.out("mount -t tmpfs t /m; mount -o remount,ro,bind /m; umount /m")
    names = [call.partition("(")[0] for call in box.calls()[known:]]
    for name in ("mount: fsmount", "mount: move_mount", "mount: mount_setattr", "umount: umount2"):
        assert name in names, names


def test_tmpfs_and_remount(box: Box) -> None:
    box.out("mount -t tmpfs -o size=1m,mode=750,uid=1,gid=2,nosuid,noatime t /m; echo x > /m/x")
    assert box.options("/m") > {"rw", "nosuid", "noatime", "size=1024k", "mode=750"}
    assert box.out("stat -c '%a %u %g' /m") == "750 1 2"
    known = len(box.calls())
    box.out("mount -o remount,ro /m; ! touch /m/y 2> /dev/null")
    assert "ro" in box.options("/m")
    # It hands back what it has read, and that are ids of the host.
    handed_back = [call for call in box.calls()[known:] if '"uid", "' in call]
    assert [re.search(r'"uid", "1"', call) for call in handed_back] == [None]
    assert "= 0 <performed>" in handed_back[0]
    box.out("mount -o remount,rw,size=2m /m; touch /m/y")
    assert "size=2048k" in box.options("/m")
    assert box.out("stat -c '%a %u %g' /m") == "750 1 2"
    box.out("mount -o remount,bind,ro,noexec /m; ! touch /m/z 2> /dev/null")
    assert box.options("/m") > {"ro", "noexec"}
    box.out("umount /m")
    assert box.out("ls -A /m") == ""


def test_options_that_are_no_file_systems_own(box: Box) -> None:
    box.out("mount -t tmpfs -o nosymfollow t /m; ln -s /etc/passwd /m/link; ! cat /m/link")
    assert "nosymfollow" in box.options("/m")
    box.out("umount /m; mount -t tmpfs -o X-mount.mkdir=711,X-mount.mode=700 t /vol/new/dir")
    assert box.out("stat -c %a /vol/new /vol/new/dir").split() == ["711", "700"]
    box.out("umount /vol/new/dir")
    box.out("mount -t tmpfs -o X-mount.owner=3,X-mount.group=4 t /m")
    assert box.out("stat -c '%u %g' /m; umount /m") == "3 4"


def test_binds(box: Box) -> None:
    box.out("echo x > /vol/x; mount --bind /vol /m; cat /m/x; umount /m")
    box.out("mount --bind -o ro,nosuid,noexec /vol /m; ! touch /m/y 2> /dev/null; cat /m/x")
    assert box.options("/m") > {"ro", "nosuid", "noexec"}
    box.out("mount -o remount,bind,rw /m; touch /m/y; umount /m")
    box.out("mount --bind /vol/x /f; umount /f")
    assert box.out("mount --bind /vol/x /f; cat /f; umount /f; cat /f") == "x"


def test_recursive_flags(box: Box) -> None:
    box.out("mount -t tmpfs t /m; mkdir /m/a; mount -t tmpfs a /m/a")
    box.out("mount --rbind -o ro=recursive /m /m2; ! touch /m2/a/x 2> /dev/null; touch /m/a/x")
    assert "ro" in box.options("/m2/a")
    box.out("umount -R /m2; mount --rbind -o ro /m /m2; touch /m2/a/y; ! touch /m2/y 2> /dev/null")
    box.out("umount -R /m2; umount -R /m")


def test_move_and_propagation(box: Box) -> None:
    box.out("mount -t tmpfs t /m2; mount --make-private /m2; mkdir /m2/a /m2/b")
    box.out("echo x > /vol/x; mount --bind /vol /m2/a; mount --move /m2/a /m2/b; cat /m2/b/x")
    assert box.out("ls -A /m2/a") == ""
    box.out("mount --make-rshared /m2; mount --rbind /m2 /m3; cat /m3/b/x")
    assert "shared" in box.out("findmnt --noheadings --output PROPAGATION /m2")
    box.out("umount /m2/b")
    assert box.out("ls -A /m3/b") == ""
    box.out("mount --make-rslave /m3; mount -t tmpfs t /m2/a; findmnt /m3/a; umount /m2/a")
    box.out("mount --make-unbindable /m3; ! mount --bind /m3 /m2/a 2> /dev/null")
    box.out("umount /m3; umount /m2; mount -t tmpfs --make-private t /m; umount /m")


def test_kernel_file_systems_have_the_masks(box: Box) -> None:
    box.out(
        "mount -t proc proc /m; mount -t sysfs sysfs /m2; test -e /m/self/stat; test -d /m2/class"
    )
    for point, copy in {"/proc": "/m", "/sys": "/m2"}.items():
        covered = box.beneath(point)
        assert box.beneath(copy) == covered
        assert bool(covered) == box.masked
    if box.masked:
        assert box.out("cat /m/timer_list; ls /m2/firmware; wc -c < /m/keys") == "0"
        assert "ro" in box.options("/m/sys")
        assert "ro" in box.options("/m2")
        refused = box.refuses("mount -o remount,bind,rw /m/sys")
        assert "permission denied" in refused or "Operation not permitted" in refused
        box.refuses("umount /m/sys")
        box.refuses("mount -o remount,bind,rw /m2")
    box.out("umount /m; umount /m2")


def test_own_masks_stay(box: Box) -> None:
    box.refuses("umount /proc")
    if box.masked:
        for script in (
            "umount /proc/sys",
            "umount -l /proc/kcore",
            "mount --move /proc/sys /m",
            "mount -o remount,rw /proc/sys",
            "mount --bind /proc /m",
        ):
            box.refuses(script)
        box.out("mount --rbind /proc /m; ! touch /m/sys/kernel/hostname 2> /dev/null; umount -l /m")


def test_unshare_mount_proc(box: Box) -> None:
    shown = box.out("unshare --mount-proc --pid --fork -- bash -c 'echo $$; ls -d /proc/[0-9]*'")
    assert shown.split()[:2] == ["1", "/proc/1"]
    box.out("unshare --mount-proc=/m --pid --fork -- test -d /m/1")
    inner = "unshare --mount --propagation {} bash -c 'mount -t tmpfs t /m; findmnt /m'"
    for propagation in ("private", "slave", "unchanged"):
        box.out(inner.format(propagation))
        box.run("umount /m 2> /dev/null")
    box.out("unshare --user --map-root-user --mount bash -c 'mount -t tmpfs t /m; umount /m'")
    assert box.out("readlink /proc/self/ns/mnt") == box.out(
        "nsenter -t 1 -m readlink /proc/self/ns/mnt"
    )


LAYERS = "lowerdir=/vol/lower,upperdir=/vol/upper,workdir=/vol/work"


def test_overlay(box: Box) -> None:
    box.out(f"echo low > /vol/lower/x; mount -t overlay -o {LAYERS} o /m; cat /m/x; echo y > /m/x")
    assert box.out("umount /m; cat /vol/lower/x /vol/upper/x").split() == ["low", "y"]
    box.out(
        "mkdir /vol/l2; echo 2 > /vol/l2/2; mount -t overlay -o lowerdir=/vol/l2:/vol/lower o /m"
    )
    assert box.out("ls /m; umount /m").split() == ["2", "x"]
    box.out("cd /vol; mount -t overlay -o lowerdir=l2:lower o /m; cat /m/2; umount /m")


def test_read_only_volume_stays(box: Box) -> None:
    for script in (
        "mount -o remount,rw /ro",
        "mount -o remount,bind,rw /ro",
        "mount -o remount,rw=vfs /ro",
        "mount --bind -o rw /ro /m",
        "umount /ro",
        "mount --move /ro /m",
    ):
        box.refuses(script)
        box.out("! touch /ro/x 2> /dev/null; cat /ro/kept; ! test -e /m/kept")
    box.out("mount --bind /ro /m; ! touch /m/x 2> /dev/null")
    box.refuses("mount -o remount,bind,rw /m")
    box.out("! touch /m/x 2> /dev/null; umount /m")


def test_findmnt_tells_the_table(box: Box) -> None:
    box.out("mount -t tmpfs -o size=1m named /m")
    assert box.out("findmnt -no SOURCE,FSTYPE /m").split() == ["named", "tmpfs"]
    assert "size=1024k" in box.out("findmnt -no OPTIONS /m")
    assert box.out("findmnt --kernel=listmount -no SOURCE /m || findmnt -no SOURCE /m") == "named"
    box.out("umount /m; ! findmnt /m")
