"""``eci-view``: the engine's view of a container's root file system, with the container's own ids.

Each test runs on a plain directory and on an overlay mount, both with shifted owners.  `tree` is
the container's side, `view` the engine's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tarfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import eci_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.place import Place

pytestmark = pytest.mark.root

PROGRAM = Path(eci_supervisor.__file__).parent / "bin" / "eci-view"
BASE = 200_000
SIZE = 65_536
OVERFLOW_ID = 65_534
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
CLONE_NEWUSER = 0x10000000

LIBC = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    """Rename with flags."""
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass
class View:
    """A running ``eci-view`` and both sides of it."""

    tree: Path
    view: Path
    process: subprocess.Popen[bytes]

    @property
    def server(self) -> int:
        """Pid of the process that serves requests."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def fds(self) -> int:
        """How many descriptors the server holds."""
        return len(os.listdir(f"/proc/{self.server}/fd"))

    def mounts(self) -> int:
        """How many mounts of ``eci-view`` stand at the mount point."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return sum(
            line.split()[4] == str(self.view) and " fuse.eci-view " in line for line in lines
        )


@contextmanager
def started(tree: Path, view: Path, *words: str, fds: tuple[int, ...] = ()) -> Iterator[View]:
    """Run ``eci-view`` of `tree` on `view`; unmounts by SIGTERM unless the program has ended."""
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [
                str(PROGRAM),
                *("--base", str(BASE), "--size", str(SIZE)),
                *("--root-fd", str(root), "--ready-fd", str(writing)),
                *words,
                str(view),
            ],
            pass_fds=(root, writing, *fds),
            stderr=subprocess.PIPE,
        )
        os.close(writing)
        assert os.read(reading, 1) == b"\0", process.communicate(timeout=5)[1].decode()
    finally:
        os.close(root)
        os.close(reading)
    assert process.stderr is not None
    try:
        both = View(tree, view, process)
        yield both
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=20)
        words_said = process.stderr.read().decode()
        process.stderr.close()
    assert (code, words_said) == (0, "")
    assert both.mounts() == 0


def shift(top: Path) -> None:
    """Give `top` and all below it to the ids of the range."""
    for path in [top, *top.rglob("*")]:
        st = path.lstat()
        os.lchown(path, BASE + st.st_uid, BASE + st.st_gid)
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(st.st_mode))  # chown cleared the set-user-ID bit


def fill(top: Path) -> None:
    """A small root file system, unshifted."""
    (top / "etc").mkdir()
    (top / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (top / "etc/mine").write_text("mine\n")
    os.chown(top / "etc/mine", 1000, 1001)
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    (top / "link").symlink_to("/etc/shadow")
    (top / "proc").mkdir()
    (top / "su").write_text("#!\n")
    (top / "su").chmod(0o4755)


@pytest.fixture(params=["plain", "overlay"])
def sides(request: pytest.FixtureRequest, place: Place) -> Iterator[tuple[Path, Path]]:
    """The container's tree and an empty directory for the view."""
    top = place.directory("view")
    view = top / "merged"
    view.mkdir()
    if request.param == "plain":
        tree = top / "tree"
        tree.mkdir()
        tree.chmod(0o755)
        fill(tree)
        shift(tree)
        yield tree, view
        shutil.rmtree(top)
        return
    for name in ("lower1", "lower2", "upper", "work", "tree"):
        (top / name).mkdir()
        (top / name).chmod(0o755)
    fill(top / "lower1")
    (top / "lower2" / "twin1").write_text("twins\n")
    for name in ("lower1", "lower2", "upper"):
        shift(top / name)
    (top / "lower2" / "twin2").hardlink_to(top / "lower2" / "twin1")
    options = f"lowerdir={top}/lower2:{top}/lower1,upperdir={top}/upper,workdir={top}/work"
    subprocess.run(
        ["mount", "-t", "overlay", "-o", f"{options},index=off", "overlay", top / "tree"],
        check=True,
    )
    try:
        yield top / "tree", view
    finally:
        subprocess.run(["umount", top / "tree"], check=True)
    shutil.rmtree(top)


@pytest.fixture
def both(sides: tuple[Path, Path]) -> Iterator[View]:
    """A running view."""
    with started(*sides) as view:
        yield view


def owner(path: Path) -> tuple[int, int]:
    """Numeric owner and group, of a symlink itself."""
    st = path.lstat()
    return st.st_uid, st.st_gid


def as_user(uid: int, gid: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command without capabilities as `uid` and `gid`."""
    return subprocess.run(
        words, user=uid, group=gid, extra_groups=[], check=False, text=True, capture_output=True
    )


def failing(call: Callable[[], object]) -> int:
    """The errno that `call` fails with; 0 if it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def eventually(check: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether `check` comes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# ---- ownership ----


def test_ids_read_unshifted(both: View) -> None:
    assert owner(both.view) == (0, 0)
    assert owner(both.view / "etc/passwd") == (0, 0)
    assert owner(both.view / "etc/mine") == (1000, 1001)
    assert owner(both.view / "link") == (0, 0)
    assert owner(both.tree / "etc/mine") == (BASE + 1000, BASE + 1001)


def test_chown_shifts_and_keeps_to_the_range(both: View) -> None:
    path = both.view / "etc/passwd"
    os.chown(path, 33, 44)
    assert owner(both.tree / "etc/passwd") == (BASE + 33, BASE + 44)
    os.chown(path, -1, SIZE - 1)
    assert owner(both.tree / "etc/passwd") == (BASE + 33, BASE + SIZE - 1)
    for number in (SIZE, BASE, BASE + SIZE, 2**32 - 2):
        assert failing(lambda number=number: os.chown(path, number, -1)) == errno.EINVAL  # type: ignore[misc]
        assert failing(lambda number=number: os.chown(path, -1, number)) == errno.EINVAL  # type: ignore[misc]
    os.lchown(both.view / "link", 5, 6)
    assert owner(both.tree / "link") == (BASE + 5, BASE + 6)
    assert owner(both.tree / "etc/passwd") == (BASE + 33, BASE + SIZE - 1)


@pytest.mark.parametrize("number", [0, BASE - 1, BASE + SIZE])
def test_id_outside_the_range_reads_as_overflow(both: View, number: int) -> None:
    os.chown(both.tree / "etc/mine", number, number)
    assert owner(both.view / "etc/mine") == (OVERFLOW_ID, OVERFLOW_ID)


def test_files_of_the_host_in_the_tree_are_not_touched(both: View) -> None:
    """The server has no capability over what does not belong to the range."""
    secret = both.tree / "etc/secret"
    secret.write_text("host\n")
    secret.chmod(0o600)
    path = both.view / "etc/secret"
    assert failing(path.read_text) == errno.EACCES
    assert failing(lambda: os.chown(path, 0, 0)) == errno.EPERM
    assert failing(lambda: path.chmod(0o666)) == errno.EPERM


def test_new_files_belong_to_the_shifted_caller(both: View) -> None:
    work = both.view / "tmp"
    script = "echo x >f; mkdir d; ln -s f s; mkfifo p"
    done = as_user(1000, 1001, "sh", "-c", f"cd {work} && {script}")
    assert (done.returncode, done.stderr) == (0, "")
    for name in "fdsp":
        assert owner(both.tree / "tmp" / name) == (BASE + 1000, BASE + 1001)
        assert owner(work / name) == (1000, 1001)
    (work / "root").touch()
    assert owner(both.tree / "tmp/root") == (BASE, BASE)


def test_caller_outside_the_range_makes_nothing(both: View) -> None:
    for word in ("touch", "mkdir", "mkfifo"):
        done = as_user(SIZE, 0, word, str(both.view / "tmp/no"))
        assert "Value too large" in done.stderr, done
    assert not (both.tree / "tmp/no").exists()


def test_permissions_are_the_caller_s(both: View) -> None:
    """default_permissions: who is not root meets the modes."""
    assert as_user(1000, 1000, "touch", str(both.view / "etc/no")).returncode != 0
    (both.view / "etc/mine").chmod(0o600)
    assert as_user(1000, 1, "cat", str(both.view / "etc/mine")).stdout == "mine\n"
    assert as_user(1001, 1, "cat", str(both.view / "etc/mine")).returncode != 0


def test_modes_and_set_user_id(both: View) -> None:
    path = both.view / "su"
    assert stat.S_IMODE(path.stat().st_mode) == 0o4755
    os.chown(path, 7, 7)
    assert stat.S_IMODE((both.tree / "su").stat().st_mode) == 0o755
    path.chmod(0o6755)
    assert stat.S_IMODE((both.tree / "su").stat().st_mode) == 0o6755


def test_mount_gives_the_host_nothing_to_run(both: View) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    options = next(line.split()[5] for line in lines if line.split()[4] == str(both.view))
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))


# ---- names ----


def test_symlinks_are_shown_not_followed(both: View) -> None:
    assert (both.view / "link").readlink() == Path("/etc/shadow")
    (both.view / "new").symlink_to("x" * 4000)
    assert os.readlink(both.tree / "new") == "x" * 4000


def test_hard_links(both: View) -> None:
    (both.view / "etc/again").hardlink_to(both.view / "etc/mine")
    first, second = (both.view / "etc/mine").stat(), (both.view / "etc/again").stat()
    assert (first.st_nlink, first.st_ino) == (2, second.st_ino)
    (both.view / "etc/again").write_text("both\n")
    assert (both.tree / "etc/mine").read_text() == "both\n"
    os.link(both.view / "link", both.view / "link2", follow_symlinks=False)
    assert (both.tree / "link2").readlink() == Path("/etc/shadow")


def test_write_to_one_twin_of_a_lower_layer_leaves_the_other(both: View) -> None:
    """Without `index` an overlay breaks such links on write; their inode numbers are equal."""
    if not (both.tree / "twin1").exists():
        for number in (1, 2):
            (both.tree / f"twin{number}").write_text("twins\n")
            os.chown(both.tree / f"twin{number}", BASE, BASE)
    assert (both.view / "twin1").read_text() == (both.view / "twin2").read_text() == "twins\n"
    with (both.view / "twin1").open() as first:
        (both.view / "twin2").stat()
        os.fchmod(first.fileno(), 0o600)
    assert stat.S_IMODE((both.tree / "twin1").stat().st_mode) == 0o600
    assert stat.S_IMODE((both.tree / "twin2").stat().st_mode) == 0o644
    (both.view / "twin2").write_text("changed\n")
    assert (both.tree / "twin2").read_text() == "changed\n"
    assert (both.tree / "twin1").read_text() == "twins\n"


def test_rename(both: View) -> None:
    view, tree = both.view, both.tree
    (view / "a").write_text("a")
    (view / "b").write_text("b")
    with pytest.raises(FileExistsError):
        renameat2(view / "a", view / "b", RENAME_NOREPLACE)
    renameat2(view / "a", view / "b", RENAME_EXCHANGE)
    assert ((tree / "a").read_text(), (tree / "b").read_text()) == ("b", "a")
    (view / "a").rename(view / "etc/c")
    assert (tree / "etc/c").read_text() == (view / "etc/c").read_text() == "b"
    (view / "b").rename(view / "etc/c")
    assert (view / "etc/c").read_text() == "a"
    (view / "d1").mkdir()
    (view / "d1/f").write_text("f")
    (view / "d1").rename(view / "etc/d2")
    assert (view / "etc/d2/f").read_text() == "f"


def test_remove(both: View) -> None:
    (both.view / "d").mkdir()
    (both.view / "d/f").touch()
    assert failing((both.view / "d").rmdir) == errno.ENOTEMPTY
    (both.view / "d/f").unlink()
    (both.view / "d").rmdir()
    assert not (both.tree / "d").exists()
    with (both.view / "etc/mine").open("r+") as file:
        (both.view / "etc/mine").unlink()
        file.write("still open")
        file.flush()
        file.seek(0)
        assert file.read() == "still open"


def test_big_directory(both: View) -> None:
    names = {f"{number:05d}-{'n' * (number % 200)}" for number in range(5000)}
    (both.tree / "many").mkdir()
    os.chown(both.tree / "many", BASE, BASE)
    for name in names:
        (both.tree / "many" / name).touch()
    # The whole directory at once, and in pieces while entries go away.
    listed = os.listdir(both.view / "many")
    assert len(listed) == 5000
    assert set(listed) == names
    with os.scandir(both.view / "many") as entries:
        for entry in entries:
            assert entry.is_file(follow_symlinks=False)
            (both.view / "many" / entry.name).unlink()
    assert os.listdir(both.tree / "many") == []


def test_what_the_container_does_is_seen_at_once(both: View) -> None:
    view, tree = both.view, both.tree
    assert not (view / "late").exists()
    (tree / "late").write_text("1")
    assert (view / "late").read_text() == "1"
    with (view / "late").open() as reading:
        assert reading.read() == "1"
        (tree / "late").write_text("22")
        os.utime(tree / "late", (1, 1))
        reading.seek(0)
        assert reading.read() == "22"
        assert os.fstat(reading.fileno()).st_size == 2
        assert os.fstat(reading.fileno()).st_mtime == 1
    (tree / "late").unlink()
    (tree / "late").mkdir()
    assert (view / "late").is_dir()
    (tree / "late").rmdir()
    assert not (view / "late").exists()


# ---- contents ----


def test_open_flags(both: View) -> None:
    path = both.view / "f"
    path.write_text("123456")
    with path.open("a") as appending:
        (both.tree / "f").write_text("1")
        appending.write("2")
    assert path.read_text() == "12"
    with pytest.raises(FileExistsError):
        path.open("x")
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert (both.tree / "f").stat().st_size == 0
    os.truncate(path, 5)
    assert (both.tree / "f").read_bytes() == b"\0" * 5
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 3)
    os.fsync(fd)
    os.close(fd)
    assert path.stat().st_size == 3
    os.utime(path, ns=(1_500_000_001, 2_500_000_002))
    st = (both.tree / "f").stat()
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_500_000_001, 2_500_000_002)
    os.utime(path)
    assert abs((both.tree / "f").stat().st_mtime - time.time()) < 10


def test_large_and_sparse_file(both: View) -> None:
    data = os.urandom(1 << 20) * 20
    (both.view / "large").write_bytes(data)
    assert (both.tree / "large").read_bytes() == data
    assert (both.view / "large").read_bytes() == data
    with (both.view / "sparse").open("w+b") as file:
        file.seek(8 << 30)
        file.write(b"end")
        file.flush()
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 8 << 30
        assert os.pread(file.fileno(), 10, 8 << 30) == b"end"
        os.posix_fallocate(file.fileno(), 0, 4096)
    assert (both.tree / "sparse").stat().st_size == (8 << 30) + 3
    assert (both.tree / "sparse").stat().st_blocks < 100
    assert os.statvfs(both.view).f_blocks == os.statvfs(both.tree).f_blocks


def test_xattr(both: View) -> None:
    path = both.view / "etc/mine"
    os.setxattr(path, "user.x", b"v" * 1000)
    assert os.getxattr(both.tree / "etc/mine", "user.x") == b"v" * 1000
    assert "user.x" in os.listxattr(path)
    assert failing(lambda: os.setxattr(path, "user.x", b"", os.XATTR_CREATE)) == errno.EEXIST
    os.removexattr(path, "user.x")
    assert failing(lambda: os.getxattr(path, "user.x")) == errno.ENODATA
    # The engine copies without asking for these; the container's root could not set them either.
    assert failing(lambda: os.setxattr(path, "trusted.x", b"1")) == errno.EPERM
    assert os.listxattr(both.view / "link", follow_symlinks=False) == []


def test_file_capability_belongs_to_the_container(both: View) -> None:
    """Version 2 on the engine's side is version 3 with the range's root on the container's."""
    version2 = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    path = both.view / "su"
    os.setxattr(path, "security.capability", version2)
    assert os.getxattr(path, "security.capability") == version2
    stored = os.getxattr(both.tree / "su", "security.capability")
    assert stored == struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, BASE)
    with path.open("a") as file:
        file.write("changed")
    assert failing(lambda: os.getxattr(path, "security.capability")) == errno.ENODATA


def test_acl_ids_are_shifted(both: View) -> None:
    def acl(uid: int) -> bytes:
        entries = [(1, 6, 2**32 - 1), (2, 4, uid), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1)]
        packed = [struct.pack("<HHI", *entry) for entry in [*entries, (32, 0, 2**32 - 1)]]
        return struct.pack("<I", 2) + b"".join(packed)

    os.setxattr(both.view / "su", "system.posix_acl_access", acl(1000))
    assert os.getxattr(both.tree / "su", "system.posix_acl_access") == acl(BASE + 1000)
    assert os.getxattr(both.view / "su", "system.posix_acl_access") == acl(1000)


# ---- what must not block or leave the tree ----


def test_fifo_socket_and_device_do_not_hang(both: View) -> None:
    os.mkfifo(both.tree / "tmp/fifo")
    os.chown(both.tree / "tmp/fifo", BASE, BASE)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(both.tree / "tmp/sock"))
    os.mknod(both.tree / "tmp/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert stat.S_ISFIFO((both.view / "tmp/fifo").stat().st_mode)
    assert (both.view / "tmp/null").stat().st_rdev == os.makedev(1, 3)
    assert failing((both.view / "tmp/null").read_bytes) == errno.EACCES  # nodev
    # A fifo is the kernel's own: both ends meet here, the server opens nothing.
    before = both.fds()
    reading = os.open(both.view / "tmp/fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(both.view / "tmp/fifo", os.O_WRONLY)
    os.write(writing, b"through")
    assert os.read(reading, 10) == b"through"
    assert both.fds() <= before + 2
    os.close(reading)
    os.close(writing)
    os.truncate(both.view / "etc/mine", 0)  # still served


def test_device_nodes_cannot_be_made(both: View) -> None:
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        path = both.view / "tmp/device"
        assert failing(lambda p=path, k=kind: os.mknod(p, 0o600 | k, 0x0103)) == errno.EPERM  # type: ignore[misc]
    os.mknod(both.view / "tmp/fifo", 0o600 | stat.S_IFIFO)
    os.mknod(both.view / "tmp/sock", 0o600 | stat.S_IFSOCK)
    os.mknod(both.view / "tmp/file", 0o600 | stat.S_IFREG)
    assert owner(both.tree / "tmp/sock") == (BASE, BASE)


def test_lease_of_the_container_does_not_block(both: View) -> None:
    import fcntl  # noqa: PLC0415 - only here

    path = both.tree / "etc/mine"
    with path.open("r+") as holder:
        try:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            # An overlay has no leases in some kernels; then nothing can block either.
            assert error.errno in {errno.EINVAL, errno.EAGAIN}  # noqa: PT017
            return
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        begin = time.monotonic()
        assert failing((both.view / "etc/mine").read_text) in {0, errno.EAGAIN}
        assert time.monotonic() - begin < 5
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def test_submounts_are_neither_shown_nor_crossed(sides: tuple[Path, Path]) -> None:
    """With the container's mount namespace the view shows what lies beneath its mounts."""
    tree, view = sides
    (tree / "proc/beneath").touch()
    subprocess.run(["mount", "-t", "tmpfs", "eci-test", tree / "proc"], check=True)
    try:
        (tree / "proc/above").touch()
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        try:
            with started(tree, view, "--mntns-fd", str(namespace), fds=(namespace,)):
                assert os.listdir(view / "proc") == ["beneath"]
                assert (view / "proc").stat().st_dev == view.stat().st_dev
        finally:
            os.close(namespace)
        with started(tree, view):
            assert failing((view / "proc").stat) == errno.EXDEV
            assert failing((view / "proc/new").touch) == errno.EXDEV
    finally:
        subprocess.run(["umount", tree / "proc"], check=True)


def test_locked_submounts_are_refused_aloud(sides: tuple[Path, Path]) -> None:
    """In a less privileged namespace the kernel will not take apart what it was given."""
    tree, view = sides
    script = (
        f"mount --bind {tree} {tree} && mount -t tmpfs eci-test {tree}/proc && "
        "exec unshare -U -r -m sh -c 'echo up; exec cat'"
    )
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as locked:
        assert locked.stdout is not None
        assert locked.stdout.readline() == b"up\n"
        inside = os.open(f"/proc/{locked.pid}/root{tree}", os.O_PATH | os.O_DIRECTORY)
        namespace = os.open(f"/proc/{locked.pid}/ns/mnt", os.O_RDONLY)
        done = subprocess.run(
            [
                PROGRAM,
                *("--base", str(BASE), "--size", str(SIZE)),
                *("--root-fd", str(inside), "--mntns-fd", str(namespace)),
                view,
            ],
            pass_fds=(inside, namespace),
            capture_output=True,
            text=True,
            check=False,
        )
        os.close(inside)
        os.close(namespace)
        locked.stdin.close()  # type: ignore[union-attr]
    assert done.returncode == 1
    assert "locked submounts" in done.stderr
    assert not os.path.ismount(view)


def test_swapping_attacker_never_leads_outside(both: View, place: Place) -> None:
    """A directory becomes a symlink to a place outside and back, while the view is used."""
    outside = place.directory("outside")
    (outside / "f").write_text("outside")
    tree, view = both.tree, both.view
    (tree / "real").mkdir()
    (tree / "real/f").write_text("inside")
    # Followed by the server the link would lead outside.  The caller's own kernel would follow it
    # too, so it says O_NOFOLLOW; an engine confines itself with chroot().
    # Relative, because an absolute one would end in the server's empty root directory.
    (tree / "swap").symlink_to(os.path.relpath(outside, tree))
    for path in (tree / "real", tree / "real/f"):
        os.chown(path, BASE, BASE)
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            renameat2(tree / "real", tree / "swap", RENAME_EXCHANGE)

    attacker = threading.Thread(target=attack)
    attacker.start()
    seen: dict[str | int, int] = {}
    try:
        for number in range(3000):
            try:
                directory = os.open(view / "real", os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                seen[error.errno or 0] = seen.get(error.errno or 0, 0) + 1
                continue
            try:
                file = os.open("f", os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
                text = os.read(file, 20).decode()
                os.close(file)
                seen[text] = seen.get(text, 0) + 1
                os.close(os.open(f"n{number}", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
                os.unlink(f"n{number}", dir_fd=directory)
                os.chown("f", 1, 1, dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                seen[error.errno or 0] = seen.get(error.errno or 0, 0) + 1
            finally:
                os.close(directory)
    finally:
        stop.set()
        attacker.join()
    assert set(seen) <= {"inside", errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENOENT}, seen
    assert seen.get("inside", 0) > 10, seen
    assert os.listdir(outside) == ["f"]
    assert (outside / "f").read_text() == "outside"
    assert owner(outside / "f") == (0, 0)
    assert both.process.poll() is None
    shutil.rmtree(outside)


# ---- tar, as the engine uses it ----


def test_tar_in_and_out(both: View, place: Place) -> None:
    source = place.directory("source")
    fill(source)
    (source / "fifo").touch()
    (source / "fifo").unlink()
    os.mkfifo(source / "fifo")
    (source / "hard").hardlink_to(source / "etc/mine")
    for number in range(200):
        path = source / "etc" / f"f{number}"
        path.write_bytes(os.urandom(number * 97))
        os.chown(path, number, 2 * number)
    (both.view / "in").mkdir()
    pack = subprocess.Popen(
        ["tar", "-c", "--numeric-owner", "--xattrs", "-C", source, "."], stdout=subprocess.PIPE
    )
    subprocess.run(
        ["tar", "-x", "-p", "--numeric-owner", "--xattrs", "-C", both.view / "in"],
        stdin=pack.stdout,
        check=True,
    )
    assert pack.stdout is not None
    pack.stdout.close()
    assert pack.wait() == 0

    out = place.directory("out")
    archives = {}
    for name, directory in (("source", source), ("view", both.view / "in")):
        subprocess.run(
            ["tar", "-c", "--numeric-owner", "--sort=name", "-f", out / name, "-C", directory, "."],
            check=True,
        )
        with tarfile.open(out / name) as archive:
            archives[name] = [
                (m.name, m.uid, m.gid, m.mode, m.size, int(m.mtime), m.type, m.linkname)
                for m in archive.getmembers()
            ]
    assert archives["view"] == archives["source"]
    for path in (both.tree / "in/etc").iterdir():
        original = source / "etc" / path.name
        assert owner(path) == tuple(BASE + number for number in owner(original))
        assert path.read_bytes() == original.read_bytes()
    shutil.rmtree(source)
    shutil.rmtree(out)


# ---- life ----


def test_nodes_are_forgotten_when_idle(both: View) -> None:
    """A node pins what the container may have removed; so none stays for long."""
    for number in range(300):
        (both.tree / f"etc/n{number}").touch()
    before = both.fds()
    for path in (both.view / "etc").iterdir():
        path.lstat()
    assert both.fds() > before + 250
    assert eventually(lambda: both.fds() <= before)


def test_nodes_stay_bounded_during_a_walk(both: View) -> None:
    for number in range(12_000):
        os.close(os.open(both.tree / f"tmp/n{number}", os.O_CREAT))
    most = 0
    for number in range(12_000):
        (both.view / f"tmp/n{number}").lstat()
        if number % 500 == 0:
            most = max(most, both.fds())
    assert 1000 < most < 9000, most
    held = (both.view / "tmp/n1").open()
    assert eventually(lambda: both.fds() < 30)
    assert held.read() == ""
    held.close()
    assert eventually(lambda: both.fds() <= 12)


def test_server_has_given_up_the_machine(both: View) -> None:
    status = Path(f"/proc/{both.server}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["65534", "65534", "65534", str(BASE)]
    assert fields["Gid"].split() == ["65534", "65534", "65534", str(BASE)]
    assert int(fields["CapEff"], 16) & (1 << 21) == 0  # CAP_SYS_ADMIN
    assert fields["NoNewPrivs"].split() == ["1"]
    ours = os.readlink("/proc/self/ns/user")
    assert os.readlink(f"/proc/{both.server}/ns/user") != ours
    assert os.readlink(f"/proc/{both.server}/root").endswith("/fdinfo")
    # The server's own files, the tree and nothing inherited.
    assert both.fds() < 12


@pytest.mark.parametrize("words", [["umount"], ["umount", "-l"]])
def test_unmount_ends_the_program(sides: tuple[Path, Path], words: list[str]) -> None:
    with started(*sides) as both:
        (both.view / "etc/passwd").read_text()
        server = both.server
        subprocess.run([*words, both.view], check=True)
        assert both.process.wait(timeout=10) == 0
        assert not Path(f"/proc/{server}").exists()


def test_termination_unmounts_even_while_in_use(sides: tuple[Path, Path]) -> None:
    with started(*sides) as both:
        held = os.open(both.view / "etc/passwd", os.O_RDONLY)
        both.process.send_signal(signal.SIGTERM)
        assert both.process.wait(timeout=10) == 0
        assert both.mounts() == 0
        gone = {errno.ENOTCONN, errno.ECONNABORTED}
        assert failing(lambda: os.read(held, 1)) in gone
        assert failing(lambda: os.close(held)) in {0, *gone}


def test_a_view_that_nobody_waits_for_goes(sides: tuple[Path, Path]) -> None:
    """Who began it was killed, and whoever clears up may have looked for it already."""
    tree, view = sides
    root = os.open(tree, os.O_PATH)
    reading, writing = os.pipe()
    os.close(reading)
    words = ["--base", str(BASE), "--size", str(SIZE), "--root-fd", str(root)]
    words += ["--ready-fd", str(writing), str(view)]
    with subprocess.Popen(
        [PROGRAM, *words], pass_fds=(root, writing), stderr=subprocess.PIPE
    ) as process:
        os.close(root)
        os.close(writing)
        assert process.wait(timeout=10) == 1
        assert process.stderr is not None
        assert b"nobody waits for the view: Broken pipe" in process.stderr.read()
    assert not os.path.ismount(view)


def test_death_of_the_server_leaves_no_dead_mount(sides: tuple[Path, Path]) -> None:
    tree, view = sides
    root = os.open(tree, os.O_PATH)
    words = ["--base", str(BASE), "--size", str(SIZE), "--root-fd", str(root), str(view)]
    with subprocess.Popen([PROGRAM, *words], pass_fds=(root,), stderr=subprocess.PIPE) as process:
        os.close(root)
        assert eventually(lambda: os.path.ismount(view))
        both = View(tree, view, process)
        os.kill(both.server, signal.SIGKILL)
        assert process.wait(timeout=10) == 1
        assert process.stderr is not None
        assert b"the server failed" in process.stderr.read()
    assert not os.path.ismount(view)
    assert os.listdir(view) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--base", "1", "--size", "0", "--root-fd", "0", "/x"],
        ["--base", "-1", "--size", "1", "--root-fd", "0", "/x"],
        ["--base", "1", "--size", "4294967295", "--root-fd", "0", "/x"],
        ["--base", "1x", "--size", "1", "--root-fd", "0", "/x"],
        ["--base", "1", "--size", "1", "--root-fd", "0", "relative"],
        ["--base", "1", "--size", "1", "/x"],
        ["--base", "1", "--size", "1", "--root-fd", "0", "/x", "/y"],
        ["--nonsense", "1", "--base", "1", "--size", "1", "--root-fd", "0", "/x"],
    ],
)
def test_bad_words_are_refused(words: list[str]) -> None:
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: eci-view" in done.stderr


def test_missing_mount_point_is_an_error(place: Place) -> None:
    root = os.open(place.root, os.O_PATH)
    done = subprocess.run(
        [PROGRAM, "--base", "1", "--size", "1", "--root-fd", str(root), "/no/such/place"],
        pass_fds=(root,),
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(root)
    assert done.returncode == 1
    assert "cannot open the mount point: No such file" in done.stderr
