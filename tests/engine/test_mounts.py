"""What root in a container may mount, and what it cannot undo.

Each attack is a list of raw system calls (`tests/support/mnt.c`), each with the answer it gets in
a bare user namespace, under plain runc, and the answer it must get under eci-runtime.  Both runs
are tests: an attack that does not succeed without protection would prove nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec
from tests.support.docker import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.engine.conftest import Bundles
    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

PRIVILEGED = "privileged"
SYS_ADMIN = "sys_admin"
KINDS = {PRIVILEGED: ["--privileged"], SYS_ADMIN: ["--cap-add=SYS_ADMIN"]}

REBIND = "MS_REMOUNT|MS_BIND"


@dataclass(frozen=True, slots=True)
class Attack:
    """Calls, each with a pattern for its answer without protection and one with it."""

    name: str
    steps: tuple[tuple[str, str, str], ...]
    kinds: tuple[str, ...] = (PRIVILEGED, SYS_ADMIN)

    def words(self, program: str) -> list[str]:
        """Return the command line that makes the calls."""
        return [program, *" , ".join(call for call, _, _ in self.steps).split()]

    def check(self, output: str, *, protected: bool) -> None:
        """Compare the answers with the expected ones."""
        answers = output.splitlines()
        assert len(answers) == len(self.steps), output
        wrong = [
            f"{call}: {answer}, expected {expected}"
            for answer, (call, *both) in zip(answers, self.steps, strict=True)
            if not re.fullmatch(expected := both[protected], answer)
        ]
        assert not wrong, "\n".join(wrong)


def attack(name: str, *steps: tuple[str, str, str], kinds: tuple[str, ...] = ()) -> Attack:
    """Return an attack, on both kinds of container unless told."""
    return Attack(name, steps, kinds or (PRIVILEGED, SYS_ADMIN))


def rebind(target: str, more: str = "", source: str = "-", fstype: str = "-") -> str:
    """Return the remount that would make the mount at `target` read-write."""
    return f"mount {source} {target} {fstype} {REBIND}{more} -"


OPENS = ("write /vol/x", "0", "EROFS")
OPENS_COPY = ("write /mnt/x", "0", "EROFS")
SAME = ("0", "0")
DENIED = ("0", "EPERM")
NEW_API = ("0", "ENOSYS")

# /vol is a read-only volume, /mnt an empty directory of the root file system.
READ_ONLY_VOLUME = [
    attack("remount_bind", (rebind("/vol"), *DENIED), OPENS),
    *(
        attack(f"remount_bind_{name.lower()}", (rebind("/vol", f"|MS_{name}"), *DENIED), OPENS)
        for name in ("MOVE", "PRIVATE", "SHARED", "SLAVE", "UNBINDABLE", "REC", "MGC_VAL", "SILENT")
    ),
    attack(
        "remount_bind_everything",
        (rebind("/vol", "|MS_MOVE|MS_PRIVATE|MS_REC"), *DENIED),
        OPENS,
    ),
    *(
        attack(
            f"remount_bind_as_{fstype}",
            (rebind("/vol", source=fstype, fstype=fstype), *DENIED),
            OPENS,
        )
        for fstype in ("proc", "sysfs", "tmpfs", "overlay", "nonsense")
    ),
    attack(
        "remount_of_a_bind",
        ("mount /vol /mnt - MS_BIND -", *SAME),
        (rebind("/mnt"), *DENIED),
        OPENS_COPY,
    ),
    attack(
        "remount_of_a_bound_subdirectory",
        ("mount /vol/sub /mnt - MS_BIND -", *SAME),
        (rebind("/mnt"), *DENIED),
        OPENS_COPY,
    ),
    attack(
        "remount_of_a_bound_file",
        ("mount /vol/file /tmp/file - MS_BIND -", *SAME),
        (rebind("/tmp/file"), *DENIED),
        ("write /tmp/file", "0", "EROFS"),
        ("umount2 /tmp/file -", *SAME),
    ),
    attack(
        "remount_in_a_recursive_copy_of_the_tree",
        ("mount / /mnt - MS_BIND|MS_REC -", *SAME),
        (rebind("/mnt/vol"), *DENIED),
        ("write /mnt/vol/x", "0", "EROFS"),
    ),
    attack(
        "remount_of_a_bind_of_a_bind_moved",
        ("mount none /mnt tmpfs - -", *SAME),
        ("mount - /mnt - MS_PRIVATE -", *SAME),
        ("mkdir /mnt/a", *SAME),
        ("mkdir /mnt/b", *SAME),
        ("mount /vol /mnt/a - MS_BIND -", *SAME),
        ("mount /mnt/a /mnt/b - MS_MOVE -", *SAME),
        (rebind("/mnt/b"), *DENIED),
        ("write /mnt/b/x", "0", "EROFS"),
    ),
    attack(
        "remount_through_a_symlink",
        ("mount none /mnt tmpfs - -", *SAME),
        ("symlink ../vol/. /mnt/link", *SAME),
        (rebind("/mnt/link"), *DENIED),
        OPENS,
    ),
    attack("remount_of_the_working_directory", ("chdir /vol", *SAME), (rebind("."), *DENIED), OPENS),
    attack("remount_through_dots", (rebind("/tmp/../vol/sub/.."), *DENIED), OPENS),
    attack("remount_through_proc_self", (rebind("/proc/self/root/vol"), *DENIED), OPENS),
    attack("remount_through_proc_1", (rebind("/proc/1/root/vol"), *DENIED), OPENS),
    attack(
        "remount_after_unshare",
        ("unshare CLONE_NEWNS", *SAME),
        (rebind("/vol"), *DENIED),
        OPENS,
    ),
    attack(
        "remount_of_a_bind_after_unshare_twice",
        ("unshare CLONE_NEWNS", *SAME),
        ("unshare CLONE_NEWNS", *SAME),
        ("mount /vol/sub /mnt - MS_BIND -", *SAME),
        (rebind("/mnt"), *DENIED),
        OPENS_COPY,
    ),
    attack(
        "remount_in_a_chroot",
        ("mount none /mnt tmpfs - -", *SAME),
        ("mkdir /mnt/v", *SAME),
        ("mount /vol /mnt/v - MS_BIND -", *SAME),
        ("chroot /mnt", *SAME),
        ("chdir /", *SAME),
        (rebind("/v"), *DENIED),
        ("write /v/x", "0", "EROFS"),
    ),
    attack(
        "remount_in_a_chroot_into_the_volume",
        ("chroot /vol", *SAME),
        ("chdir /", *SAME),
        (rebind("/"), *DENIED),
        ("write /x", "0", "EROFS"),
    ),
    attack(
        "move_and_remount",
        # Whether it may be moved at all is rule 2's business; writable it is in neither place.
        ("mount /vol /mnt - MS_MOVE -", "0", "0|EPERM"),
        (rebind("/mnt"), "0", "EPERM|EINVAL"),
        ("write /mnt/x", "0", "EROFS|0"),
        ("write /vol/file", "0", "EROFS|0"),
        ("mount /mnt /vol - MS_MOVE -", "0", "0|EINVAL"),
        ("write /vol/file", "0", "EROFS"),
    ),
    attack("mount_setattr", ("mount_setattr /vol - - MOUNT_ATTR_RDONLY -", *NEW_API), OPENS),
    attack(
        "mount_setattr_recursive",
        ("mount_setattr / AT_RECURSIVE - MOUNT_ATTR_RDONLY -", *NEW_API),
        OPENS,
    ),
    attack(
        "open_tree_and_mount_setattr",
        ("clone /vol /mnt -", *NEW_API),
        ("mount_setattr /mnt - - MOUNT_ATTR_RDONLY -", *NEW_API),
        # Without its copy the path is the directory itself, which is the container's own.
        ("write /mnt/file", "0", "0"),
        ("write /vol/file", "EROFS", "EROFS"),
    ),
    attack(
        "open_tree_attr",
        ("tree_attr /vol /mnt MOUNT_ATTR_RDONLY", "0|ENOSYS", "ENOSYS"),
        ("write /vol/file", "EROFS", "EROFS"),
    ),
    # Here the kernel refuses without us, or the call does not exist: nothing to show unprotected.
    attack("remount", ("mount - /vol - MS_REMOUNT -", "EPERM", "EPERM"), ("write /vol/x", "EROFS", "EROFS")),
    attack(
        "remount_in_a_nested_user_namespace",
        ("unshare CLONE_NEWUSER|CLONE_NEWNS", *SAME),
        ("map 0", *SAME),
        (rebind("/vol"), "EPERM", "EPERM"),
        ("write /vol/x", "EROFS", "EROFS"),
    ),
    attack(
        "x32",
        (f"x32 - /vol - {REBIND}", "0|ENOSYS", "SIGSYS|ENOSYS|EPERM"),
        ("write /vol/x", "0|EROFS", "EROFS"),
    ),
]

LOWER = ("write /w/in/x", "0", "EROFS")

# /w is a writable volume, /w/in a read-only one in it, over a directory of /w.
READ_ONLY_OVER_WRITABLE = [
    attack("umount", ("umount2 /w/in -", *DENIED), LOWER),
    attack("umount_detach", ("umount2 /w/in MNT_DETACH", *DENIED), LOWER),
    attack("umount_nofollow", ("umount2 /w/in UMOUNT_NOFOLLOW", *DENIED), LOWER),
    attack("move", ("mount /w/in /mnt - MS_MOVE -", *DENIED), LOWER),
    attack("umount_after_unshare", ("unshare CLONE_NEWNS", *SAME), ("umount2 /w/in -", *DENIED), LOWER),
    attack(
        "umount_in_a_recursive_copy",
        ("mount /w /mnt - MS_BIND|MS_REC -", *SAME),
        ("umount2 /mnt/in -", *DENIED),
        ("write /mnt/in/x", "0", "EROFS"),
    ),
    attack(
        "bind_around",
        ("mount /w /mnt - MS_BIND -", "0", "EPERM|EINVAL"),
        ("write /mnt/in/x", "0", "ENOENT|EROFS"),
    ),
    attack(
        "remount_after_moving_the_parent",
        ("mount /w /mnt - MS_MOVE -", *SAME),
        (rebind("/mnt/in"), *DENIED),
        ("umount2 /mnt/in -", *DENIED),
        ("write /mnt/in/x", "0", "EROFS"),
        ("mount /mnt /w - MS_MOVE -", *SAME),
    ),
    attack(
        "umount_from_a_chroot",
        ("chroot /w", *SAME),
        ("chdir /", *SAME),
        ("umount2 /in -", *DENIED),
        ("write /in/x", "0", "EROFS"),
    ),
]

MASKED_FILE = ("kind /proc/timer_list", "reg", "chr 1:3")
MASKED_DIRECTORY = ("count /sys/firmware", r"[1-9]\d*", "0")

MASKS = [
    *(
        attack(f"umount_file{name}", (f"umount2 /proc/timer_list {flag}", *DENIED), MASKED_FILE)
        for name, flag in (("", "-"), ("_detach", "MNT_DETACH"), ("_nofollow", "UMOUNT_NOFOLLOW"))
    ),
    attack("move_file", ("write /tmp/file", *SAME),
           ("mount /proc/timer_list /tmp/file - MS_MOVE -", *DENIED), MASKED_FILE),
    attack("umount_file_after_unshare", ("unshare CLONE_NEWNS", *SAME),
           ("umount2 /proc/timer_list -", *DENIED), MASKED_FILE),
    attack("umount_directory", ("umount2 /sys/firmware -", *DENIED), MASKED_DIRECTORY),
    attack("umount_directory_detach", ("umount2 /sys/firmware MNT_DETACH", *DENIED), MASKED_DIRECTORY),
    attack("move_directory", ("mount /sys/firmware /mnt - MS_MOVE -", *DENIED), MASKED_DIRECTORY),
    attack("bind_around_in_proc", ("mount /proc /mnt - MS_BIND -", "0", "0|EPERM|EINVAL"),
           ("kind /mnt/timer_list", "reg", "chr 1:3|ENOENT")),
    attack("bind_around_in_sys", ("mount /sys /mnt - MS_BIND -", "0", "0|EPERM|EINVAL"),
           ("count /mnt/firmware", r"[1-9]\d*", "0|ENOENT")),
    attack("umount_in_a_recursive_copy_of_proc", ("mount /proc /mnt - MS_BIND|MS_REC -", *SAME),
           ("umount2 /mnt/timer_list -", *DENIED), ("kind /mnt/timer_list", "reg", "chr 1:3")),
    attack("a_new_proc", ("mount proc /mnt proc - -", "0", "0|EPERM"),
           ("kind /mnt/timer_list", "reg", "chr 1:3|ENOENT")),
    attack("a_new_sys", ("mount sysfs /mnt sysfs MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC -", "0", "0|EPERM"),
           ("count /mnt/firmware", r"[1-9]\d*", "0|ENOENT")),
    attack("a_new_proc_by_fsmount", ("fsmount proc /mnt", *NEW_API),
           ("kind /mnt/timer_list", "reg", "ENOENT")),
    attack("open_tree_around_in_proc", ("clone /proc /mnt -", *NEW_API),
           ("kind /mnt/timer_list", "reg", "ENOENT")),
    attack("detach_proc", ("unshare CLONE_NEWNS", *SAME), ("umount2 /proc MNT_DETACH", "0", "EBUSY")),
    attack("detach_sys", ("unshare CLONE_NEWNS", *SAME), ("umount2 /sys MNT_DETACH", "0", "EBUSY")),
    attack("move_proc", ("mount /proc /mnt - MS_MOVE -", "0", "EBUSY")),
    # The read-only paths, /proc/sys among them, are masks on writing.
    attack("remount_read_only_path", (rebind("/proc/sys"), *DENIED),
           ("open /proc/sys/kernel/domainname w", "0", "EROFS")),
    attack("umount_read_only_path", ("umount2 /proc/sys -", *DENIED),
           ("open /proc/sys/kernel/domainname w", "0", "EROFS")),
    attack("move_read_only_path", ("mount /proc/sys /mnt - MS_MOVE -", *DENIED),
           ("open /proc/sys/kernel/domainname w", "0", "EROFS")),
    attack("remount_sys", (rebind("/sys"), *DENIED)),
]  # fmt: skip
MASKS = [attack(one.name, *one.steps, kinds=(SYS_ADMIN,)) for one in MASKS]

LOOSER_FLAGS = [
    attack("proc_flags", (rebind("/proc"), *DENIED),
           ("flags /proc", "rw", "rw,nosuid,nodev,noexec")),
    attack("pts_flags", (rebind("/dev/pts"), *DENIED),
           ("flags /dev/pts", "rw", "rw,nosuid,noexec")),
    attack("dev_flags", (rebind("/dev"), *DENIED), ("flags /dev", "rw", "rw,nosuid")),
    attack("one_flag_of_three", (rebind("/proc", "|MS_NOSUID|MS_NODEV"), *DENIED),
           ("flags /proc", "rw,nosuid,nodev", "rw,nosuid,nodev,noexec")),
]  # fmt: skip

ATTACKS = {
    f"{group}-{one.name}": one
    for group, attacks in (
        ("volume", READ_ONLY_VOLUME),
        ("over", READ_ONLY_OVER_WRITABLE),
        ("mask", MASKS),
        ("flags", LOOSER_FLAGS),
    )
    for one in attacks
}
CASES = [
    pytest.param(one, kind, program, id=f"{name}-{kind}-{program}")
    for name, one in ATTACKS.items()
    for kind in one.kinds
    for program in ("mnt", "mnt32")
    # The 32-bit spellings once each: where the mask is, or else in the more powerful container.
    if program == "mnt" or kind == one.kinds[0]
]


# -- the two sides ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Volumes:
    """The directories on the host that the containers of one test module see."""

    read_only: Path
    writable: Path
    inner: Path

    @classmethod
    def make(cls, place: Place) -> Volumes:
        """Make them new."""
        read_only, writable, inner = (place.directory("v") for _ in range(3))
        (read_only / "sub").mkdir()
        (read_only / "file").touch()
        (writable / "in").mkdir()
        return cls(read_only, writable, inner)

    def written(self) -> list[str]:
        """Return what has been written where nothing may be."""
        sealed = (self.read_only, self.read_only / "sub", self.writable / "in", self.inner)
        found = [str(path) for top in sealed for path in top.glob("x")]
        return found + (["file"] if (self.read_only / "file").stat().st_size else [])


@pytest.fixture(scope="module")
def volumes(place: Place) -> Volumes:
    """The volumes of the protected containers."""
    return Volumes.make(place)


@dataclass(slots=True)
class Protected:
    """The containers under eci-runtime, by kind; each attack is an exec in one of them."""

    dockerd: Dockerd
    containers: dict[str, str]

    def run(self, kind: str, *words: str) -> str:
        """Run the words in the container of that kind and return what they print."""
        return self.dockerd.out("exec", self.containers[kind], *words)


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def protected(
    request: pytest.FixtureRequest, dockerd: Dockerd, volumes: Volumes
) -> Iterator[Protected]:
    """A privileged container and one with CAP_SYS_ADMIN and masks, on each runtime."""
    shared = ["-v", f"{volumes.read_only}:/vol:ro", "-v", f"{volumes.writable}:/w"]
    shared += ["-v", f"{volumes.inner}:/w/in:ro", f"--runtime={request.param}"]
    with (
        dockerd.container(*shared, *KINDS[PRIVILEGED]) as privileged,
        dockerd.container(*shared, *KINDS[SYS_ADMIN]) as sys_admin,
    ):
        side = Protected(dockerd, {PRIVILEGED: privileged, SYS_ADMIN: sys_admin})
        for kind in KINDS:
            side.run(kind, "touch", "/tmp/file")
        yield side


@pytest.fixture
def _clean(protected: Protected) -> Iterator[None]:
    """Take away what a test has left on /mnt in the containers."""
    yield
    for kind in KINDS:
        protected.run(kind, "sh", "-c", "while mnt umount2 /mnt MNT_DETACH | grep -qx 0; do :; done")
        protected.run(kind, "sh", "-c", "rm -f /mnt/*")


@pytest.fixture
def bare(
    bundles: Bundles, place: Place, own_root: Path
) -> Callable[[str, list[str]], str]:
    """Run words under plain runc in a user namespace, in a container like the protected ones."""

    def run(kind: str, words: list[str]) -> str:
        mine = Volumes.make(place)
        name = bundles.name()
        spec = make_spec(
            words,
            cgroup=bundles.cgroup(name),
            privileged=kind == PRIVILEGED,
            cap_add=["CAP_SYS_ADMIN"],
            mounts=[
                bind(mine.read_only, "/vol", "ro"),
                bind(mine.writable, "/w"),
                bind(mine.inner, "/w/in", "ro"),
            ],
            identity_userns=True,
        )
        bundle = bundles.write(spec, own_root)
        runc = bundles.runtime("runc")
        bundles.expect(runc, name)
        return runc.call("run", "--bundle", str(bundle), name).stdout

    return run


@pytest.fixture(scope="module")
def own_root(place: Place, programs: dict[str, Path]) -> Path:
    """A root file system that the containers without protection may spoil."""
    from tests.support.rootfs import build_root

    root = build_root(place.directory("b") / "root", programs.values())
    (root / "tmp/file").touch()
    return root


@pytest.mark.parametrize(("one", "kind", "program"), CASES)
def test_attack_succeeds_without_protection(
    bare: Callable[[str, list[str]], str], one: Attack, kind: str, program: str
) -> None:
    one.check(bare(kind, one.words(program)), protected=False)


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(("one", "kind", "program"), CASES)
def test_attack_fails(
    protected: Protected, volumes: Volumes, one: Attack, kind: str, program: str
) -> None:
    one.check(protected.run(kind, *one.words(program)), protected=True)
    assert volumes.written() == []
