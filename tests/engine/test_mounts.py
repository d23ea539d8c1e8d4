"""What root in a container may mount, answered as the kernel answers it, and what it may not.

What is an attack stands in `tests/attack`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import KINDS, PRIVILEGED, PROGRAMS, SYS_ADMIN, rebind
from tests.support.bundle import make_spec
from tests.support.docker import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.docker import Dockerd
    from tests.support.engines import Bundles
    from tests.support.place import Place
    from tests.support.sides import Protected

pytestmark = [pytest.mark.root, pytest.mark.engine]

REMOUNT = 32 | 4096
"""MS_REMOUNT|MS_BIND, which the worker makes by mount_setattr(2)."""
OF_A_MOUNT = (1, 2, 4, 8, 256, 1024, 2048, 1 << 21, 1 << 24)
"""MS_RDONLY to MS_NOEXEC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME, MS_RELATIME and
MS_STRICTATIME."""
SETS = [
    sum(flag for bit, flag in enumerate(OF_A_MOUNT) if number >> bit & 1)
    # Each set comes after one that differs from it in about half of the flags.
    for number in sorted(range(1 << len(OF_A_MOUNT)), key=lambda number: number * 197 % 512)
]

# Answers are not written down here: they are what the kernel says to the same calls under runc.
OWN_BUSINESS = {
    # Only overlayfs lets a backslash protect a comma: what stands behind is an option.  A number is
    # a relative path of the caller's, and none of the supervisor's fds.
    "options_behind_a_backslash": (
        r"mount - /mnt proc - source=\,pidns=2",
        r"mount - /mnt proc - source=\,pidns=../2",
        "mount - /mnt proc - pidns=3",
        "mount - /mnt proc - pidns=/etc/passwd",
        "mount - /mnt proc - pidns=/nothing",
        "umount2 /mnt -",
    ),
    "tmpfs_ro_and_rw_again": (
        "mount none /mnt tmpfs - -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT|MS_RDONLY -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "write /mnt/x",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "write /mnt/x",
        "umount2 /mnt -",
        "umount2 /mnt -",
    ),
    "each_set_of_flags": (
        "mount none /mnt tmpfs - -",
        *[word for one in SETS for word in (f"mount - /mnt - {REMOUNT | one} -", "all_flags /mnt")],
        "umount2 /mnt -",
    ),
    "tmpfs_with_data": (
        "mount none /mnt tmpfs MS_NOSUID|MS_NODEV|MS_NOEXEC size=64k,mode=700,uid=1000",
        "flags /mnt",
        "mount none /mnt tmpfs MS_REMOUNT size=128k",
        "mount none /mnt tmpfs MS_REMOUNT size=nonsense",
        "umount2 /mnt -",
        "mount none /mnt tmpfs - nonsense=1",
    ),
    "bind_made_and_removed": (
        "mount /bin /mnt - MS_BIND -",
        "kind /mnt/busybox",
        "umount2 /mnt -",
        "kind /mnt/busybox",
    ),
    "bind_of_a_file": (
        "mount /etc/passwd /tmp/file - MS_BIND -",
        "umount2 /tmp/file UMOUNT_NOFOLLOW",
    ),
    "bind_of_a_volume_that_is_writable": (
        "mount /w /mnt - MS_BIND|MS_REC -",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "write /mnt/own",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "write /mnt/own",
        "umount2 /mnt MNT_DETACH",
    ),
    "writable_volume_ro_and_rw_again": (
        "mount - /w - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "write /w/own",
        "mount - /w - MS_REMOUNT|MS_BIND -",
        "write /w/own",
    ),
    "read_only_volume_made_stricter": (
        "mount /vol /mnt - MS_BIND -",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_RDONLY|MS_NOSUID|MS_NOEXEC -",
        "flags /mnt",
        "umount2 /mnt -",
    ),
    "over_a_read_only_volume": (
        "mount none /vol tmpfs - -",
        "write /vol/own",
        "umount2 /vol -",
        "write /vol/own",
    ),
    "recursive_copy_of_the_tree": (
        "mount / /mnt - MS_BIND|MS_REC -",
        "umount2 /mnt -",
        "umount2 /mnt MNT_DETACH",
        "umount2 /mnt MNT_DETACH",
    ),
    "recursive_copy_of_proc": (
        "mount /proc /mnt - MS_BIND|MS_REC -",
        "umount2 /mnt MNT_DETACH",
        "kind /mnt/self",
    ),
    "move_and_propagation": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/a",
        "mkdir /mnt/b",
        "mount - /mnt - MS_SHARED -",
        "mount none /mnt/a tmpfs - -",
        "mount /mnt/a /mnt/b - MS_MOVE -",
        "mount - /mnt - MS_PRIVATE|MS_REC -",
        "mount /mnt/a /mnt/b - MS_MOVE -",
        "mount none /mnt/a tmpfs - -",
        "mount /mnt/a /mnt/b - MS_MOVE -",
        "write /mnt/b/x",
        "mount - /mnt - MS_UNBINDABLE|MS_SHARED -",
        "mount - /mnt - MS_UNBINDABLE -",
        "mount /mnt /tmp - MS_BIND -",
        "umount2 /mnt -",
        "umount2 /mnt MNT_DETACH",
    ),
    # As pivot_root(2) has it: the old root lies on the new one, and "." is what is under it.
    "pivot_root_and_detach": (
        "unshare CLONE_NEWNS",
        "mount - / - MS_PRIVATE|MS_REC -",
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/x",
        "chdir /mnt",
        "pivot_root . .",
        "umount2 . MNT_DETACH",
        "kind /x",
        "kind /tmp",
        "umount2 . MNT_DETACH",
        "umount2 / MNT_DETACH",
        "mount none /x tmpfs - -",
        "umount2 /x -",
    ),
    "overlay_of_layers_that_only_the_caller_has": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/a",
        "mkdir /mnt/b",
        "mkdir /mnt/m",
        "write /mnt/b/x",
        "chdir /mnt/a",
        "mount overlay /mnt/m overlay - lowerdir=/proc/self/cwd:/mnt/b",
        "kind /mnt/m/x",
        "umount2 /mnt/m -",
        "mount overlay /mnt/m overlay - lowerdir=.:/proc/thread-self/root/mnt/b",
        "kind /mnt/m/x",
        "umount2 /mnt/m -",
        "chdir /",
        "umount2 /mnt -",
    ),
    "overlay": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/l",
        "mkdir /mnt/u",
        "mkdir /mnt/k",
        "mkdir /mnt/m",
        "write /mnt/l/x",
        "mount overlay /mnt/m overlay - lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/k",
        "write /mnt/m/x",
        "kind /mnt/u/x",
        "umount2 /mnt/m -",
    ),
    "own_mount_namespace": (
        "unshare CLONE_NEWNS",
        "mount none /mnt tmpfs - -",
        "mount - /mnt - MS_REMOUNT|MS_RDONLY -",
        "write /mnt/x",
        "umount2 /mnt -",
        "mount - / - MS_PRIVATE|MS_REC -",
    ),
    "own_user_namespace": (
        "unshare CLONE_NEWUSER|CLONE_NEWNS",
        "map 0",
        "mount none /mnt tmpfs - -",
        "write /mnt/x",
        "umount2 /mnt -",
        "umount2 /w -",
        "umount2 /w/in -",
    ),
    "in_a_chroot": (
        "mount none /mnt tmpfs - -",
        "mkdir /mnt/d",
        "chroot /mnt",
        "mount none /d tmpfs - -",
        "mount none d tmpfs - -",
        "mount none /mnt tmpfs - -",
        "umount2 /d -",
        "chdir /d",
        "umount2 /d -",
    ),
    "errors_of_paths": (
        "mount none /none tmpfs - -",
        "mount none /etc/passwd tmpfs - -",
        "mount none /etc/passwd/x tmpfs - -",
        "mount none - tmpfs - -",
        "mount /bin /etc/passwd - MS_BIND -",
        "mount /etc/passwd /mnt - MS_BIND -",
        "mount /none /mnt - MS_BIND -",
        "mount - /mnt - MS_BIND -",
        "mount /mnt /bin - MS_MOVE -",
        "umount2 /none -",
        "umount2 - -",
        "umount2 /mnt MNT_FORCE|MNT_EXPIRE",
        "umount2 /mnt 0x100",
        f"umount2 /{'n' * 300} -",
        f"umount2 /{'n/' * 2100} -",
        f"mount none /{'n' * 300} tmpfs - -",
    ),
    "errors_of_types": (
        "mount none /mnt nonsense - -",
        "mount none /mnt - - -",
        f"mount none /mnt {'t' * 5000} - -",
        "mount /dev/null /mnt ext4 - -",
        "mount - /mnt tmpfs MS_REMOUNT -",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "mount - /mnt - MS_SHARED|MS_PRIVATE -",
        "mount - /mnt - MS_SHARED -",
    ),
    "loops_of_symlinks": (
        "mount none /mnt tmpfs - -",
        "symlink loop /mnt/loop",
        "mount none /mnt/loop tmpfs - -",
        "symlink /mnt /mnt/here",
        "umount2 /mnt/here UMOUNT_NOFOLLOW",
        "mount none /mnt/here tmpfs - -",
        "umount2 /mnt/here -",
        "umount2 /mnt -",
    ),
    "expire": (
        "mount none /mnt tmpfs - -",
        "umount2 /mnt MNT_EXPIRE",
        "umount2 /mnt MNT_EXPIRE",
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", OWN_BUSINESS)
def test_own_business_is_as_under_runc(
    protected: Protected, bare: Callable[[str, list[str]], str], name: str, program: str
) -> None:
    calls = OWN_BUSINESS[name]
    words = [program, *" , ".join(calls).split()]
    try:
        answers = [
            answer.splitlines()
            for answer in (protected.make(PRIVILEGED, words), bare(PRIVILEGED, words))
        ]
    except BaseException:
        protected.renew(PRIVILEGED)
        raise
    ours, kernels = (list(zip(calls, answer, strict=True)) for answer in answers)
    if ours != kernels:
        protected.renew(PRIVILEGED)
    assert ours == kernels


def test_own_business_is_worth_comparing(bare: Callable[[str, list[str]], str]) -> None:
    """Were everything refused on both sides, the comparison above would show nothing."""
    words = [f"mnt {' , '.join(OWN_BUSINESS[name])}".split() for name in ("overlay", "expire")]
    assert [bare(PRIVILEGED, one).split() for one in words] == [
        [*["0"] * 8, "reg", "0"],
        ["0", "EAGAIN", "0"],
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_unprivileged_user_cannot_mount(protected: Protected, kind: str, program: str) -> None:
    calls = [
        "mount none /mnt tmpfs - -",
        "mount /bin /mnt - MS_BIND -",
        "mount - /w - MS_REMOUNT|MS_BIND|MS_RDONLY -",
        "mount - / - MS_PRIVATE|MS_REC -",
        "umount2 /w/in -",
        "umount2 /vol MNT_DETACH",
    ]
    words = [program, *" , ".join(calls).split()]
    assert protected.run(kind, words, user=1000).split() == ["EPERM"] * len(calls)
    dropped = [program, "setuid", "1000", ",", *words[1:]]
    assert protected.run(kind, dropped).split() == ["0", *["EPERM"] * len(calls)]


def test_copies_of_masked_file_systems_can_be_removed(protected: Protected) -> None:
    """With the whole copy its masks go, and nothing is uncovered: chroots are left this way."""
    calls = []
    for target in ("/proc", "/sys"):
        calls += [f"mount {target} /mnt - MS_BIND|MS_REC -", "umount2 /mnt -"]
        calls += ["umount2 /mnt MNT_DETACH", "umount2 /mnt -"]
    words = ["mnt", *" , ".join(calls).split()]
    assert protected.run(SYS_ADMIN, words).split() == ["0", "EBUSY", "0", "EINVAL"] * 2


WORKER = Path(__file__).parents[2] / "eci_supervisor/bin/eci-worker"
IN_OWN_NAMESPACE = """\
unshare {flag} sh -c 'mount -t {fstype} x /mnt && umount /mnt && readlink /proc/self/ns/{kind}'
"""


@pytest.mark.parametrize(
    ("flag", "fstype", "kind"), [("-n", "sysfs", "net"), ("-i", "mqueue", "ipc")]
)
def test_caller_namespaces_end_with_their_last_process(
    protected: Protected, flag: str, fstype: str, kind: str
) -> None:
    """The worker is in them for as long as it takes to make what shows them."""
    script = IN_OWN_NAMESPACE.format(flag=flag, fstype=fstype, kind=kind)
    gone = protected.run(SYS_ADMIN, ["sh", "-c", script])
    assert gone.startswith(f"{kind}:[")
    held = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "exe") == str(WORKER):
                held |= {os.readlink(path) for path in process.glob(f"task/*/ns/{kind}")}
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    assert held
    assert gone not in held


def test_interrupted_fsmount_answers_with_its_descriptor(protected: Protected) -> None:
    """Under runc 1.1 signals interrupt a caller, whose call then comes again by itself."""
    assert protected.run(SYS_ADMIN, ["mnt", "interrupted", "8000"]).split() == ["8000", "0"]


def test_file_systems_made_inside_belong_to_the_container(protected: Protected) -> None:
    script = "mnt mount none /mnt tmpfs - - >&2; touch /mnt/x; stat -c %u:%g /mnt /mnt/x"
    assert protected.run(PRIVILEGED, ["sh", "-c", script]).split() == ["0:0", "0:0"]


@pytest.mark.parametrize("runtime", ["eci", "eci-crun"])
def test_read_only_root_cannot_be_opened(dockerd: Dockerd, runtime: str) -> None:
    calls = [
        (rebind("/"), "EPERM"),
        ("mount - / - MS_REMOUNT -", "EPERM"),
        ("mount / /mnt - MS_BIND -", "0"),
        (rebind("/mnt"), "EPERM"),
        ("write /mnt/lifted", "EROFS"),
        ("umount2 /mnt -", "0"),
        ("mount /bin /mnt - MS_BIND -", "0"),
        (rebind("/mnt"), "EPERM"),
        ("write /mnt/lifted", "EROFS"),
        ("write /lifted", "EROFS"),
    ]
    words = ["mnt", *" , ".join(call for call, _ in calls).split()]
    run = ["run", "--rm", f"--runtime={runtime}", "--privileged", "--read-only", IMAGE]
    seen = dockerd.out(*run, *words).splitlines()
    assert list(zip((call for call, _ in calls), seen, strict=True)) == calls


def test_read_only_root_is_opened_without_protection(bundles: Bundles, own_root: Path) -> None:
    name = bundles.name()
    words = ["mnt", *rebind("/").split(), ",", "write", "/lifted"]
    spec = make_spec(
        words, cgroup=bundles.cgroup(name), privileged=True, readonly=True, identity_userns=True
    )
    runc = bundles.runtime("runc")
    bundles.expect(runc, name)
    done = runc.call("run", "--bundle", str(bundles.write(spec, own_root)), name)
    assert done.stdout.split() == ["0", "0"]


def test_mount_calls_stay_denied_where_the_container_cannot_mount(
    dockerd: Dockerd, place: Place
) -> None:
    """Such a container keeps its profile, and no process of ours lives for it."""
    before = len(place.left_processes())
    with dockerd.container("--runtime=eci") as container:
        words = "mnt mount none /mnt tmpfs - - , umount2 /proc - , unshare CLONE_NEWNS".split()
        assert dockerd.out("exec", container, *words).split() == ["EPERM"] * 3
        ours = [line for line in place.left_processes() if "eci-worker" in line]
        assert len(ours) <= before
        assert not any("eci-worker" in line and container in line for line in ours)
