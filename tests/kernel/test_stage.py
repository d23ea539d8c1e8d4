"""The stage on a real kernel: ID mapping, what the kernel holds, and that nothing is lost.

Each test that mounts runs in a child of its own, whose mount namespace dies with it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from eci_supervisor.kernel import mountinfo, syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime import cleanup, overlay, points, state
from eci_supervisor.runtime.attributes import attributes
from eci_supervisor.runtime.errors import StageError
from eci_supervisor.runtime.points import Point
from eci_supervisor.runtime.spec import Device
from eci_supervisor.runtime.stage import Stage, root_mount
from tests.support.children import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.runtime.rewrite import Staged

pytestmark = pytest.mark.root

BASE = 300000
MAP = f"0 {BASE} 65536\n"
MS_MOVE = 0x2000
LIBC = ctypes.CDLL(None, use_errno=True)


def errno_of(call: Callable[[], object]) -> int | None:
    """The errno that `call` fails with; None where it works."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state directory of the store's layout."""
    found = tmp_path / "state" / "containers" / "c-1"
    found.mkdir(parents=True)
    for path in (found, *found.parents[: len(found.parts) - 2]):
        # A mapped root has to pass through pytest's own directories, which are 0700.
        if path.stat().st_uid == 0 and len(path.parts) > 2:
            path.chmod(path.stat().st_mode | 0o711)
    return found


def entered(state_dir: Path) -> Stage:
    """A stage in a mount namespace of this process's own."""
    stage = Stage(str(state_dir), syscalls.userns_create(MAP, MAP), BASE)
    stage.enter()
    return stage


def opened(source: str | Path) -> int:
    """A descriptor of a bind's source, for the rest of a child's life."""
    return os.open(source, os.O_PATH)


def bound(stage: Stage, index: int, source: str, options: list[str], userns: int | None) -> Staged:
    """Prepare a bind for the runtime, as entry `index`."""
    clone = stage.clone(index, opened(source), options, userns)
    clone = stage.mount_again(index, clone, options)
    try:
        return stage.put(index, clone)
    finally:
        os.close(clone.tree)


def become_container() -> None:
    """Enter a new user and mount namespace as its root, as a runtime does."""
    userns = syscalls.userns_create(MAP, MAP)
    syscalls.setns(userns, lib.CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.unshare(lib.CLONE_NEWNS)


def layers(tmp_path: Path) -> tuple[Path, Path]:
    """An engine's overlay of two layers; returns its directory and where it is mounted."""
    top = tmp_path / "o"
    for name in ("l1", "l2", "x/diff", "x/work", "x/merged"):
        (top / name).mkdir(parents=True)
    (top / "l1" / "one").write_text("one")
    (top / "l2" / "two").write_text("two")
    os.chown(top / "l2" / "two", 5, 6)
    options = f"lowerdir={top}/l2:{top}/l1,upperdir={top}/x/diff,workdir={top}/x/work"
    syscalls.mount("overlay", str(top / "x/merged"), "overlay", 0, options)
    return top, top / "x" / "merged"


# -- system calls -----------------------------------------------------------------------------


def test_a_user_namespace_leaves_no_child_and_no_other_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    children = psutil.Process().children()
    fd = syscalls.userns_create(MAP, MAP)
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:[")
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert os.listdir("/proc/self/fd") == before
    # Other tests of the session may have children; this call has left none, no zombie either.
    assert psutil.Process().children() == children


def test_a_map_that_the_kernel_refuses_leaves_nothing_either() -> None:
    before = os.listdir("/proc/self/fd")
    children = psutil.Process().children()
    assert errno_of(lambda: syscalls.userns_create("0 1 0\n", MAP)) == errno.EINVAL
    assert os.listdir("/proc/self/fd") == before
    # Other tests of the session may have children; this call has left none, no zombie either.
    assert psutil.Process().children() == children


def test_errors_read_as_strace_has_them() -> None:
    with pytest.raises(OSError, match=r'open_tree\(-100, "/none", .*\) = -1 ENOENT \(No such'):
        syscalls.open_tree(lib.AT_FDCWD, "/none", 0)
    with pytest.raises(ValueError, match="embedded NUL"):
        syscalls.open_tree(lib.AT_FDCWD, "/etc\0/none", 0)


def test_fs_ids_change_and_capabilities_stay() -> None:
    def work() -> None:
        before = syscalls.capget("effective")
        syscalls.setfsids(BASE, BASE)
        assert syscalls.capget("effective") == before
        ids = [
            line for line in Path("/proc/self/status").read_text().splitlines() if "id:\t" in line
        ]
        assert {line.split("\t")[4] for line in ids if line[:4] in ("Uid:", "Gid:")} == {str(BASE)}
        syscalls.setfsids(0, 0)
        assert syscalls.capget("effective") == before

    in_child(work)


def test_the_guard_withholds_what_libseccomp_cannot_name() -> None:
    def work() -> None:
        def call(number: int) -> int:
            ctypes.set_errno(0)
            # An errno that only the kernel's own code gives: EFAULT or EBADF, never ENOSYS.
            LIBC.syscall(ctypes.c_long(number), -1, 0, 0, 0, 0)
            return ctypes.get_errno()

        open_tree_attr, file_getattr, x32_getpid = 467, 468, 0x40000000 | 39
        syscalls.install_guard()
        assert call(open_tree_attr) == errno.ENOSYS
        assert call(file_getattr + 2) == errno.ENOSYS
        assert call(x32_getpid) == errno.ENOSYS
        assert call(441) != errno.ENOSYS  # epoll_pwait2, known to all
        os.getpid()

    in_child(work)


NS_MNT_GET_NEXT, NS_MNT_GET_PREV = 0x8010B70B, 0x8010B70C
NS_MNT_GET_INFO = 0x8010B70A


def test_the_guard_withholds_what_finds_other_mount_namespaces() -> None:
    """As root of the machine, whom the kernel lets do it."""

    def work() -> None:
        with open("/proc/self/ns/mnt", "rb") as namespace:

            def ask(request: int) -> int:
                """Return the errno; the struct has 16 bytes and its size at the beginning."""
                info = bytearray(16)
                info[0] = 16
                try:
                    found = fcntl.ioctl(namespace, request, info)
                except OSError as error:
                    return error.errno or -1
                if found > 2:
                    os.close(found)
                return 0

            def by_handle() -> int:
                """Return the errno for a handle that cannot be read."""
                ctypes.set_errno(0)
                LIBC.syscall(ctypes.c_long(304), namespace.fileno(), None, 0)
                return ctypes.get_errno()

            assert {ask(NS_MNT_GET_NEXT), ask(NS_MNT_GET_PREV)} <= {0, errno.ENOENT}
            assert by_handle() == errno.EFAULT
            syscalls.install_guard()
            assert [ask(NS_MNT_GET_NEXT), ask(NS_MNT_GET_PREV)] == [errno.EPERM] * 2
            # The size in the number is the caller's to choose.
            assert ask(NS_MNT_GET_NEXT + 0x100000) == errno.EPERM
            assert by_handle() == errno.EPERM
            assert ask(NS_MNT_GET_INFO) == 0
            os.getpid()

    in_child(work)


def test_flags_of_options_are_a_table() -> None:
    table = {
        "ro": lib.MOUNT_ATTR_RDONLY,
        "nosuid": lib.MOUNT_ATTR_NOSUID,
        "nodev": lib.MOUNT_ATTR_NODEV,
        "noexec": lib.MOUNT_ATTR_NOEXEC,
        "nodiratime": lib.MOUNT_ATTR_NODIRATIME,
        "nosymfollow": lib.MOUNT_ATTR_NOSYMFOLLOW,
    }
    for option, bit in table.items():
        assert attributes([option]) == (bit, 0, 0)
        assert attributes([f"r{option}"]) == (bit, 0, bit)
    assert attributes(["ro", "rw", "rbind", "size=1"]) == (0, 0, 0)
    assert attributes(["rw", "ro"]) == (lib.MOUNT_ATTR_RDONLY, 0, 0)
    assert attributes(["noatime"]) == (lib.MOUNT_ATTR_NOATIME, lib.MOUNT_ATTR__ATIME, 0)
    assert attributes(["relatime"]) == (0, lib.MOUNT_ATTR__ATIME, 0)


# -- binds ------------------------------------------------------------------------------------


def test_a_volume_keeps_its_owners_on_disk(state_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "volume"
    source.mkdir()
    (source / "old").touch()
    os.chown(source / "old", 7, 8)

    def work() -> None:
        stage = entered(state_dir)
        staged = bound(stage, 0, str(source), ["rbind"], stage.userns)
        assert staged.flags == ()
        become_container()
        info = os.stat(f"{staged.path}/old")
        assert (info.st_uid, info.st_gid) == (7, 8)
        Path(staged.path, "new").touch()

    in_child(work)
    info = (source / "new").stat()
    assert (info.st_uid, info.st_gid) == (0, 0)


def test_the_kernel_holds_what_was_staged(state_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "volume"
    (source / "sub").mkdir(parents=True)

    def work() -> None:
        stage = entered(state_dir)
        options = ["rbind", "ro", "nosuid", "nodev", "noexec"]
        staged = bound(stage, 0, str(source), options, stage.userns)
        assert staged.flags == ("ro", "nosuid", "nodev", "noexec")
        become_container()
        assert errno_of(lambda: Path(staged.path, "new").touch()) == errno.EROFS
        remount = lib.MS_REMOUNT | lib.MS_BIND
        kept = lib.MS_RDONLY | lib.MS_NOSUID | lib.MS_NODEV | lib.MS_NOEXEC
        syscalls.mount(None, staged.path, None, remount | kept)
        for bit in (lib.MS_RDONLY, lib.MS_NOSUID, lib.MS_NODEV, lib.MS_NOEXEC):
            flags = remount | (kept & ~bit)
            assert errno_of(lambda: syscalls.mount(None, staged.path, None, flags)) == errno.EPERM  # noqa: B023 - called at once
        copy = stage.path("0") + "/sub"
        syscalls.mount(copy, copy, None, lib.MS_BIND)
        assert errno_of(lambda: syscalls.mount(None, copy, None, remount)) == errno.EPERM

    in_child(work)


def test_what_cannot_be_mapped_is_staged_all_the_same(state_dir: Path) -> None:
    def work() -> None:
        stage = entered(state_dir)
        staged = bound(stage, 3, "/proc", ["bind", "ro"], stage.userns)
        assert staged.flags[0] == "ro"
        assert Path(staged.path, "version").is_file()

    in_child(work)


def test_a_tree_is_mapped_mount_by_mount(state_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "with space"
    for name in ("proc", "own"):
        (source / name).mkdir(parents=True)

    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        syscalls.mount("proc", str(source / "proc"), "proc", 0)
        syscalls.mount("own", str(source / "own"), "tmpfs", 0)
        stage = entered(state_dir)
        staged = bound(stage, 0, str(source), ["rbind"], stage.userns)
        assert os.stat(f"{staged.path}/own").st_uid == BASE
        assert os.stat(staged.path).st_uid == BASE
        assert os.stat(f"{staged.path}/proc").st_uid == 0

    in_child(work)


def own_mounts() -> None:
    """Go into a mount namespace of this process's own."""
    syscalls.unshare(lib.CLONE_NEWNS)
    syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)


@pytest.mark.parametrize("kind", ["bind", "rbind"])
def test_an_overlay_is_mapped_as_a_volume(state_dir: Path, tmp_path: Path, kind: str) -> None:
    def work() -> None:
        own_mounts()
        _, merged = layers(tmp_path)
        (merged / "dir").mkdir()
        (merged / "dir/x").write_text("x")
        stage = entered(state_dir)
        whole = bound(stage, 4, str(merged), [kind], stage.userns)
        part = bound(stage, 5, str(merged / "dir"), [kind], stage.userns)
        file = bound(stage, 6, str(merged / "two"), [kind], stage.userns)
        become_container()
        info = os.stat(f"{whole.path}/two")
        assert (info.st_uid, info.st_gid) == (5, 6)
        assert os.listdir(part.path) == ["x"]
        assert (os.stat(f"{part.path}/x").st_uid, os.stat(file.path).st_uid) == (0, 5)
        Path(whole.path, "new").write_text("new")
        os.chown(f"{whole.path}/new", 7, 8)

    in_child(work)
    info = (tmp_path / "o/x/diff/new").stat()
    assert (info.st_uid, info.st_gid) == (7, 8)
    # Each has a work directory that nobody else uses, and they are removed with the container.
    works = sorted(path.name for path in (tmp_path / "o/x").glob("eci-work*"))
    assert works == ["eci-work-c-1-4", "eci-work-c-1-5", "eci-work-c-1-6"]
    cleanup.clean(str(state_dir))
    assert sorted(path.name for path in (tmp_path / "o/x").iterdir()) == ["diff", "merged", "work"]
    assert not state_dir.exists()


def test_a_read_only_overlay_is_mapped_without_writing_anything(
    state_dir: Path, tmp_path: Path
) -> None:
    def work() -> None:
        own_mounts()
        _, merged = layers(tmp_path)
        (merged / "one").unlink()
        (merged / "mine").write_text("mine")
        stage = entered(state_dir)
        staged = bound(stage, 0, str(merged), ["rbind", "ro"], stage.userns)
        become_container()
        assert sorted(os.listdir(staged.path)) == ["mine", "two"]
        assert os.stat(f"{staged.path}/two").st_uid == 5
        assert errno_of(lambda: Path(staged.path, "x").touch()) == errno.EROFS
        loosen = lib.MS_REMOUNT | lib.MS_BIND
        again = functools.partial(syscalls.mount, None, staged.path, None, loosen)
        assert errno_of(again) == errno.EPERM

    in_child(work)
    assert list((tmp_path / "o/x").glob("eci-work*")) == []


def test_an_overlay_that_is_our_own_root_is_left_alone(state_dir: Path, tmp_path: Path) -> None:
    def work() -> None:
        own_mounts()
        _, merged = layers(tmp_path)
        (merged / "proc").mkdir()
        syscalls.mount("/proc", str(merged / "proc"), None, lib.MS_BIND | lib.MS_REC)
        stage = entered(state_dir)
        os.chroot(merged)
        assert stage.clone(0, opened("/two"), ["bind", "ro"], stage.userns).again is None

    in_child(work)


def test_a_file_is_bound_on_a_file(state_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("text")

    def work() -> None:
        stage = entered(state_dir)
        staged = bound(stage, 0, str(source), ["bind", "ro"], stage.userns)
        assert Path(staged.path).read_text() == "text"

    in_child(work)


def test_what_is_mounted_later_on_a_volume_is_not_seen(state_dir: Path, tmp_path: Path) -> None:
    """The engine mounts on its volumes what some other container asks for."""
    data = tmp_path / "data"
    data.mkdir()

    def work() -> None:
        own_mounts()
        syscalls.mount("own", str(data), "tmpfs", 0)
        syscalls.mount(None, str(data), None, lib.MS_SHARED)
        (data / "volume").mkdir()
        stage = Stage(str(state_dir), None, 0)
        seen = []
        for private in (False, True):
            options = ["rbind", "rslave"]
            fd = opened(data / "volume")
            seen.append(stage.clone(0, fd, options, None, private=private).tree)
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        stage.enter()
        for name, tree in zip("ab", seen, strict=True):
            stage._mount_point(name, directory=True)
            stage._attach(tree, stage.tmpfs, name)
        away = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        syscalls.setns(home, lib.CLONE_NEWNS)
        syscalls.mount("later", str(data / "volume"), "tmpfs", 0)
        (data / "volume/secret").touch()
        syscalls.setns(away, lib.CLONE_NEWNS)
        assert [os.listdir(stage.path(name)) for name in "ab"] == [["secret"], []]

    in_child(work)


def test_a_source_of_another_mount_namespace_cannot_be_bound(state_dir: Path) -> None:
    def work() -> None:
        away = opened("/usr")
        stage = entered(state_dir)
        with pytest.raises(StageError, match=r"mounts\[4\]: bind source /usr: Invalid argument"):
            stage.clone(4, away, ["bind"], None)

    in_child(work)


def test_a_device_belongs_to_its_user_and_can_be_opened(state_dir: Path) -> None:
    def work() -> None:
        stage = entered(state_dir)
        path = stage.device(0, Device("/dev/zero", "c", 1, 5, 0o600), BASE, BASE)
        info = os.stat(path)
        assert (info.st_uid, info.st_mode) == (BASE, stat.S_IFCHR | 0o600)
        become_container()
        with open(path, "rb") as file:
            assert file.read(1) == b"\0"

    in_child(work)


def test_what_is_nested_is_locked_in_its_place(state_dir: Path, tmp_path: Path) -> None:
    """As a runtime takes it over: in a user namespace, by a recursive bind of the root."""
    root, outer, inner = (tmp_path / name for name in ("root", "outer", "inner"))
    for directory in (root, outer, inner):
        directory.mkdir()

    def nest(stage: Stage, tree: int, path: str, source: Path, *options: str) -> int:
        clone = stage.clone(0, opened(source), ["rbind", *options], stage.userns)
        point = stage.mount_point(tree, path, points.NO_LINKS, directory=True)
        stage.nest(clone, point, ["rprivate"])
        return clone.tree

    def work() -> None:
        stage = entered(state_dir)
        stage.root_directory(stage.clone_root(opened(root)))
        with stage.root() as tree:
            volume = nest(stage, tree, "w", outer)
        nest(stage, volume, "d/in", inner, "ro")
        become_container()
        top = f"{state_dir}/rootfs"
        syscalls.mount(top, top, None, lib.MS_BIND | lib.MS_REC)
        sealed, copy = f"{top}/w/d/in", f"{top}/mnt"
        os.mkdir(copy)

        def refused(source: str | None, target: str, flags: int, data: str = "") -> int | None:
            fstype = "overlay" if data else None
            return errno_of(lambda: syscalls.mount(source, target, fstype, flags, data or None))

        for flags in (0, lib.MNT_DETACH):
            assert errno_of(lambda: syscalls.umount2(sealed, flags)) == errno.EINVAL  # noqa: B023 - called at once
        assert refused(sealed, copy, MS_MOVE) == errno.EINVAL
        for above in (f"{top}/w/d", f"{top}/w", top):
            assert refused(above, copy, lib.MS_BIND) == errno.EINVAL
            layers = f"lowerdir={above}:{top}"
            assert refused("overlay", copy, 0, layers) == errno.EINVAL
        # A detached copy stays in one piece.
        syscalls.mount(f"{top}/w", copy, None, lib.MS_BIND | lib.MS_REC)
        held = os.open(copy, os.O_PATH | os.O_DIRECTORY)
        syscalls.umount2(copy, lib.MNT_DETACH)
        made = os.O_CREAT | os.O_WRONLY
        assert errno_of(lambda: os.open("d/in/x", made, dir_fd=held)) == errno.EROFS
        # So does one of a mount namespace that has ended.
        held = os.open(f"{top}/w", os.O_PATH | os.O_DIRECTORY)
        syscalls.unshare(lib.CLONE_NEWNS)
        assert errno_of(lambda: os.open("d/in/x", made, dir_fd=held)) == errno.EROFS
        syscalls.mount(None, sealed, None, lib.MS_UNBINDABLE)
        assert refused(f"{top}/w", copy, lib.MS_BIND | lib.MS_REC) == errno.EPERM

    in_child(work)
    assert [path.stat().st_uid for path in (root / "w", outer / "d", outer / "d/in")] == [0] * 3
    assert list((outer / "d/in").iterdir()) == list(inner.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["private"], [b"", b"master"]),
        (["rprivate"], [b"", b""]),
        (["rslave"], [b"master"] * 2),
        ([], [b"master"] * 2),
    ],
)
def test_propagation_of_what_is_nested(
    state_dir: Path, tmp_path: Path, options: list[str], fields: list[bytes]
) -> None:
    """What the runtime would set, since it does not see these any more."""
    root, source = tmp_path / "root", tmp_path / "source"
    for directory in (root / "v", source):
        directory.mkdir(parents=True)

    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        for target in (source, source / "sub"):
            target.mkdir(exist_ok=True)
            syscalls.mount("own", str(target), "tmpfs", 0)
            syscalls.mount(None, str(target), None, lib.MS_SHARED)
        os.open("/proc/self/ns/mnt", os.O_RDONLY)  # as the host's lives on
        stage = entered(state_dir)
        stage.root_directory(stage.clone_root(opened(root)))
        clone = stage.clone(0, opened(source), ["rbind", *options], stage.userns)
        with stage.root() as tree:
            point = stage.mount_point(tree, "v", points.NO_LINKS, directory=True)
        stage.nest(clone, point, options)
        top = os.fsencode(f"{state_dir}/rootfs/v")
        found = {m.target: m.propagation for m in mountinfo.read() if m.target.startswith(top)}
        assert [
            b"".join(words).partition(b":")[0] for words in (found[top], found[top + b"/sub"])
        ] == fields

    in_child(work)


def test_a_link_in_the_way_of_a_mount_point_is_an_error(state_dir: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to("..")
    (volume / "gone").symlink_to("/none")

    def work() -> None:
        stage = entered(state_dir)
        clone = stage.clone(0, opened(volume), ["rbind"], stage.userns)
        for path in ("link", "link/x", "gone", "gone/x"):
            call = functools.partial(stage.mount_point, clone.tree, path, points.NO_LINKS)
            assert errno_of(lambda: call(directory=True)) == errno.ELOOP  # noqa: B023 - called at once
        assert errno_of(
            lambda: stage.mount_point(clone.tree, "../x", points.NO_LINKS, directory=True)
        ) == (errno.EXDEV)
        assert points.read_link(clone.tree, "link") == ".."
        assert points.read_link(clone.tree, "none") is None
        assert points.read_link(clone.tree, ".") is None

    in_child(work)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "volume"]


# -- the root file system ---------------------------------------------------------------------


def test_the_second_overlay_shows_and_writes_the_same_layers(
    state_dir: Path, tmp_path: Path
) -> None:
    def work() -> None:
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)
        top, merged = layers(tmp_path)
        mount = root_mount(os.fsencode(merged))
        assert mount is not None
        found = overlay.layers(mount)
        assert found.lower == (os.fsencode(top / "l2"), os.fsencode(top / "l1"))
        stage = entered(state_dir)
        stage.root_overlay(found, b"/")
        rootfs = state_dir / "rootfs"
        # All that is left of the making is the overlay itself.
        beneath = os.fsencode(state_dir / "m")
        assert [m.target for m in mountinfo.read() if m.target.startswith(beneath)] == [beneath]
        become_container()
        info = (rootfs / "two").stat()
        assert (info.st_uid, info.st_gid) == (5, 6)
        (rootfs / "two").write_text("changed")
        (rootfs / "new").mkdir()
        (rootfs / "one").unlink()

    in_child(work)
    diff = tmp_path / "o" / "x" / "diff"
    assert (diff / "two").read_text() == "changed"
    assert ((diff / "two").stat().st_uid, (diff / "new").stat().st_uid) == (5, 0)
    assert stat.S_ISCHR((diff / "one").stat().st_mode)  # a whiteout
    assert (tmp_path / "o" / "l2" / "two").read_text() == "two"


def test_a_directory_that_is_no_overlay_is_none(tmp_path: Path) -> None:
    assert root_mount(os.fsencode(tmp_path)) is None


def test_a_locked_root_has_its_mount_points_and_stays_read_only(
    state_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "link").symlink_to("/real")
    (root / "out").symlink_to("../../../../..")

    def work() -> None:
        stage = entered(state_dir)
        stage.root_directory(stage.clone_root(opened(root)))
        wanted = [
            Point("/a/b"),
            Point("/link/c", mode=0o1777),
            Point("/etc/hosts", directory=False),
            Point("/out/d"),
            Point("/real", mode=0o1777),
        ]
        stage.lock_root(wanted)
        become_container()
        rootfs = str(state_dir / "rootfs")
        assert errno_of(lambda: os.mkdir(f"{rootfs}/x")) == errno.EROFS
        remount = lib.MS_REMOUNT | lib.MS_BIND
        assert errno_of(lambda: syscalls.mount(None, rootfs, None, remount)) == errno.EPERM

    in_child(work)
    for name in ("a/b", "real/c", "d"):
        assert (root / name).is_dir()
        assert (root / name).stat().st_uid == 0
    assert (root / "etc/hosts").is_file()
    modes = {name: (root / name).stat().st_mode & 0o7777 for name in ("a/b", "real/c", "real")}
    assert modes == {"a/b": 0o755, "real/c": 0o1777, "real": 0o755}


# -- clearing up ------------------------------------------------------------------------------


def test_clearing_up_never_descends_into_what_is_mounted(state_dir: Path, tmp_path: Path) -> None:
    """The hook of `runc run` starts in the stage's own mount namespace."""
    root, volume = tmp_path / "root", tmp_path / "volume"
    for directory in (root, volume):
        directory.mkdir()
        (directory / "precious").write_text("kept")

    def work() -> None:
        stage = entered(state_dir)
        stage.root_directory(stage.clone_root(opened(root)))
        bound(stage, 0, str(volume), ["rbind"], stage.userns)
        cleanup.clean(str(state_dir))
        assert not state_dir.exists()

    in_child(work)
    assert not state_dir.exists()
    for directory in (root, volume):
        assert (directory / "precious").read_text() == "kept"
    cleanup.clean(str(state_dir))


def test_clearing_up_spares_the_next_container_of_the_same_id(state_dir: Path) -> None:
    record = state.Record("c", "c-1", "second", "runc", "/none", BASE, 65536)
    state.write_record(str(state_dir), record)
    cleanup.clean(str(state_dir), nonce="first")
    assert state.read_record(str(state_dir)) == record
    cleanup.clean(str(state_dir), nonce="second")
    assert not state_dir.exists()


def test_a_container_behind_a_private_mount_of_its_engine_is_not_gone(
    state_dir: Path, tmp_path: Path
) -> None:
    """Behind a link, too, as /var/run is one."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    script = 'mount -t tmpfs t "$1" && mkdir "$1/c" && echo && exec sleep 1000'
    words = ["unshare", "-m", "sh", "-c", script, "sh", str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        try:
            namespace = os.stat(f"/proc/{engine.pid}/ns/mnt").st_ino
            place = str(tmp_path / "link")
            for name, gone in (("c", False), ("d", True)):
                record = state.Record(
                    name, name, "n", "runc", place, BASE, 65536, mount_namespace=namespace
                )
                state.write_record(str(state_dir), record)
                assert cleanup.is_gone(str(state_dir)) == gone
        finally:
            engine.kill()
    state.write_record(str(state_dir), msgspec.structs.replace(record, id="c"))
    assert cleanup.is_gone(str(state_dir))


def test_last_hook_spares_the_next_container_of_the_same_id(state_dir: Path) -> None:
    record = state.Record("c", "c-1", "second", "runc", '/none"nonce":"first"', BASE, 65536)
    state.write_record(str(state_dir), record)
    (state_dir / "met").touch()
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    here = str(os.stat("/proc/self/ns/mnt").st_ino)
    words = [state.bin_path("eci-cleanup"), str(state_dir), "", "", here]
    # Nor does it wait for that one's keeper.
    subprocess.run([*words, "first"], stdin=subprocess.DEVNULL, timeout=8, check=True)
    assert state.read_record(str(state_dir)) == record
    os.close(lock)
    subprocess.run([*words, "second"], stdin=subprocess.DEVNULL, timeout=8, check=True)
    assert not state_dir.exists()


def test_last_hook_does_not_wait_for_a_keeper_that_has_met_nobody(state_dir: Path) -> None:
    """A runtime that fails before its first hook waits for the last, and the keeper for it."""
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    here = str(os.stat("/proc/self/ns/mnt").st_ino)
    words = [state.bin_path("eci-cleanup"), str(state_dir), "", "", here]
    # Else it waits for ten seconds.
    subprocess.run(words, stdin=subprocess.DEVNULL, timeout=8, check=True)
    assert not state_dir.exists()
    os.close(lock)


def test_only_our_work_directory_is_removed(state_dir: Path, tmp_path: Path) -> None:
    ours, other = tmp_path / "eci-work", tmp_path / "work"
    for directory in (ours, other):
        (directory / "work").mkdir(parents=True)
    for work in (ours, other):
        state_dir.mkdir(exist_ok=True)
        record = state.Record("c", "c-1", "n", "runc", "/none", BASE, 65536, work=str(work))
        state.write_record(str(state_dir), record)
        cleanup.clean(str(state_dir))
    assert not ours.exists()
    assert other.exists()
