"""No spelling of a protected path gets through: on a real kernel, with binds, links and renames.

Each test works in a child of its own, whose mount namespace dies with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eci_supervisor
from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.policy.paths import Access, shared, split
from eci_supervisor.policy.settings import Vm
from eci_supervisor.runtime import programs, restricted, roots
from eci_supervisor.runtime.errors import EciError, RefusedError, StageError
from eci_supervisor.runtime.owned import Owned
from eci_supervisor.runtime.sources import HostMounts, identity_of, open_sources
from eci_supervisor.runtime.stage import Stage
from tests.support.children import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.runtime.sources import Sources

pytestmark = pytest.mark.root


ID = "0123456789abcdef" * 4
PROTECTED, SHARED = Access.PROTECTED, Access.SHARED
VM = Vm()
DEFAULTS = [*map(split, VM.protected_paths), *shared(VM.shared_paths)]


def private() -> None:
    """Go to a mount namespace whose mounts nobody else sees."""
    syscalls.unshare(lib.CLONE_NEWNS)
    syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_PRIVATE)


def spec_of(source: str | Path, *options: str) -> dict[str, object]:
    words = ["rbind", *options]
    return {"mounts": [{"destination": "/x", "source": str(source), "options": words}]}


@contextlib.contextmanager
def taken(names: list[tuple[str, Access]], source: str | Path, *options: str) -> Iterator[int]:
    """Judge a bind; give a clone of what was judged.  RefusedError where it may not be."""
    spec = spec_of(source, *options)
    with open_sources(spec, "/") as sources:
        table = restricted.table(sources.mounts, restricted.find(sources.mounts, names))
        restricted.refuse(sources, spec, table, Owned(), passed=())
        flags = lib.OPEN_TREE_CLONE | lib.AT_EMPTY_PATH | lib.AT_RECURSIVE
        clone = syscalls.open_tree(sources.all[0].fd, b"", flags)
    try:
        yield clone
    finally:
        os.close(clone)


def is_refused(names: list[tuple[str, Access]], source: str | Path, *options: str) -> bool:
    """Say whether a container may not have it."""
    try:
        with taken(names, source, *options):
            return False
    except RefusedError:
        return True


def shows(clone: int, wanted: tuple[int, int]) -> bool:
    """Say whether an inode is to be found in a detached tree, whatever is mounted in it."""
    st_top = os.fstat(clone)
    if (st_top.st_dev, st_top.st_ino) == wanted:
        return True
    top = f"/proc/self/fd/{clone}"
    if not os.path.isdir(top):
        return False
    for where, directories, files in os.walk(top):
        for name in (*directories, *files):
            info = os.lstat(os.path.join(where, name))
            if (info.st_dev, info.st_ino) == wanted:
                return True
    return False


# -- one by one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "/etc/passwd",
        "/etc/../etc/./passwd",
        "//etc//passwd",
        "/etc",
        "/etc/",
        "/",
        "/proc",
        "/proc/self/root/etc/passwd",
        "/proc/thread-self/cwd",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/shm",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/shm/..",
        "/var/run",
        "/root",
        "/var/lib",
        "/var/lib/dpkg",
        "/var",
    ],
)
def test_what_the_defaults_protect(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/etc")
    assert is_refused(DEFAULTS, spelling)
    assert is_refused(DEFAULTS, spelling, "ro")


def test_what_the_defaults_leave(tmp_path: Path) -> None:
    for path in (str(tmp_path), "/home", "/srv", "/dev/null", "/dev/zero"):
        assert not is_refused(DEFAULTS, path)
    for path in ("/usr", "/usr/share", "/lib", "/bin/sh", "/etc/ssl/certs", "/var/log"):
        assert is_refused(DEFAULTS, path)
        assert not is_refused(DEFAULTS, path, "ro")


def test_a_bind_on_the_host_is_what_it_shows(tmp_path: Path) -> None:
    for name in ("secret/sub", "copy", "deep", "above", "holder/in", "free"):
        (tmp_path / name).mkdir(parents=True)
    names = [("/", SHARED), (f"{tmp_path}/secret", PROTECTED)]

    def work() -> None:
        private()
        for source, target in (
            ("secret", "copy"),
            ("secret/sub", "deep"),
            (".", "above"),
            ("secret/sub", "holder/in"),
        ):
            syscalls.mount(f"{tmp_path}/{source}", f"{tmp_path}/{target}", None, lib.MS_BIND)
        for name in ("copy", "copy/sub", "deep", "above", "above/secret", "holder", "holder/in"):
            assert is_refused(names, tmp_path / name), name
        assert not is_refused(names, tmp_path / "free")
        assert not is_refused(names, tmp_path / "above/free")

    in_child(work)


def test_a_kernel_file_system_is_known_wherever_it_is(tmp_path: Path) -> None:
    for name in ("proc", "chroot/sys", "chroot/home"):
        (tmp_path / name).mkdir(parents=True)

    def work() -> None:
        private()
        syscalls.mount("proc", f"{tmp_path}/proc", "proc", 0)
        syscalls.mount("sys", f"{tmp_path}/chroot/sys", "sysfs", 0)
        names = [("/", SHARED)]
        assert is_refused(names, tmp_path / "proc")
        assert is_refused(names, tmp_path / "proc/self/fd", "ro")
        assert not is_refused(names, tmp_path / "chroot/home")
        with pytest.raises(RefusedError, match=f"can't mount {tmp_path}/chroot/sys because"):
            taken(names, tmp_path / "chroot").__enter__()
        assert not is_refused([("/", SHARED), (f"{tmp_path}/proc", SHARED)], tmp_path / "proc/tty")

    in_child(work)


def test_a_list_of_shared_paths_is_exclusive(tmp_path: Path) -> None:
    (tmp_path / "shared/in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("shared")
    (tmp_path / "shared/away").symlink_to("..")
    names = [(f"{tmp_path}/shared", SHARED)]
    assert not is_refused(names, tmp_path / "shared/in")
    assert not is_refused(names, tmp_path / "link/in")
    assert is_refused(names, tmp_path / "shared/away")
    assert is_refused(names, tmp_path)
    assert is_refused(names, "/home")


def test_a_device_node_is_no_source(tmp_path: Path) -> None:
    os.mknod(tmp_path / "disk", 0o600 | 0o060000, os.makedev(7, 0))
    os.mknod(tmp_path / "fuse", 0o600 | 0o020000, os.makedev(10, 229))
    names = [("/", SHARED)]
    for name in ("disk", "fuse"):
        assert is_refused(names, tmp_path / name)
        assert not is_refused([*names, (f"{tmp_path}/{name}", SHARED)], tmp_path / name)


def refuse_root(root: Path, names: list[tuple[str, Access]], bundle: str = "/") -> None:
    with open_sources({}, "/") as sources:
        table = restricted.table(sources.mounts, restricted.find(sources.mounts, names))
        roots.open_root(sources, os.fsencode(root))
        roots.refuse(sources, table, ID, bundle)


def test_a_root_file_system_is_no_way_around(tmp_path: Path) -> None:
    (tmp_path / "secret/in").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    names = [("/", SHARED), (f"{tmp_path}/secret", PROTECTED)]
    for path in (tmp_path / "secret/in", tmp_path / "secret", tmp_path, Path("/")):
        with pytest.raises(RefusedError, match=f"can't mount {path} because"):
            refuse_root(path, names)
    refuse_root(tmp_path / "shared", names)


def test_what_is_mounted_in_a_root_file_system_counts(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "root/in").mkdir(parents=True)
    names = [("/", SHARED), (f"{tmp_path}/secret", PROTECTED)]

    def work() -> None:
        private()
        refuse_root(tmp_path / "root", names)
        syscalls.mount(f"{tmp_path}/secret", f"{tmp_path}/root/in", None, lib.MS_BIND)
        with pytest.raises(RefusedError, match=f"can't mount {tmp_path}/root/in because"):
            refuse_root(tmp_path / "root", names)

    in_child(work)


def test_the_layers_of_a_root_file_system_count(tmp_path: Path) -> None:
    """But those of an engine that keeps this container, where it mounts them for it."""
    store = tmp_path / "secret/data"
    for path in ("secret/low", "up/u", "up/w", "root", "secret/u", "secret/w", "low"):
        (tmp_path / path).mkdir(parents=True)
    (store / "overlay/x/merged").mkdir(parents=True)
    names = [("/", SHARED), (f"{tmp_path}/secret", PROTECTED)]

    def mounted(path: Path, low: str, up: str) -> Path:
        text = f"lowerdir={tmp_path}/{low},upperdir={tmp_path}/{up}/u,workdir={tmp_path}/{up}/w"
        syscalls.mount("overlay", str(path), "overlay", 0, text)
        return path

    def work() -> None:
        private()
        with pytest.raises(RefusedError, match=f"can't mount {tmp_path}/secret/low because"):
            refuse_root(mounted(tmp_path / "root", "secret/low", "up"), names)
        with pytest.raises(RefusedError, match=f"can't mount {tmp_path}/secret because"):
            refuse_root(mounted(tmp_path / "root", "low", "secret"), names)
        refuse_root(mounted(tmp_path / "root", "low", "up"), names)
        engine = mounted(store / "overlay/x/merged", "secret/low", "secret")
        with pytest.raises(RefusedError):
            refuse_root(engine, names)
        (store / f"overlay-containers/{ID}").mkdir(parents=True)
        refuse_root(engine, names)

    in_child(work)


def test_the_root_file_system_that_was_judged_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "up/low").mkdir(parents=True)
    low = os.fsencode(tmp_path / "up/low")
    with open_sources({}, "/") as sources:
        judged = roots.open_root(sources, low).identity
        (tmp_path / "up").rename(tmp_path / "gone")
        (tmp_path / "up").mkdir()
        (tmp_path / "up/low").symlink_to(tmp_path / "secret")
        stage = Stage(str(tmp_path), None, 0)
        trees = [stage.clone_root(judged_fd(sources))]
        stage.clone_layers({low: judged_fd(sources)})
        trees.append(stage.layer(low))
    for tree in trees:
        assert identity_of(os.fstat(tree)) == judged
        os.close(tree)


def judged_fd(sources: Sources) -> int:
    assert sources.root is not None
    return sources.root.fd


def test_a_protected_path_that_was_mounted_meanwhile_is_protected(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    names = [("/", SHARED), (f"{tmp_path}/secret", PROTECTED), (f"{tmp_path}/none", PROTECTED)]

    def work() -> None:
        private()
        mounts = HostMounts.read()
        syscalls.mount("tmpfs", f"{tmp_path}/secret", "tmpfs", 0, "")
        table = restricted.table(mounts, restricted.find(mounts, names))
        assert table.access[identity_of((tmp_path / "secret").stat())] is PROTECTED

    in_child(work)


def test_a_protected_path_that_cannot_be_looked_at_refuses(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StageError, match=r"protected or shared path .*/loop: cannot be looked at"):
        restricted.find(HostMounts.read(), [(f"{tmp_path}/loop", PROTECTED)])


def test_our_own_programs_are_never_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("set", "set/other", "log", "library", "state"):
        (tmp_path / name).mkdir()
    file = tmp_path / "set/settings.json"
    file.write_text("{}")
    monkeypatch.setenv("ECI_SETTINGS", str(file))
    for name in ("log_dir", "library", "state_dir"):
        monkeypatch.setenv(f"ECI_{name.upper()}", f"{tmp_path}/{name.removesuffix('_dir')}")
    package = Path(*eci_supervisor.__path__)

    def may(path: Path, names: list[tuple[str, Access]], *options: str) -> bool:
        spec = spec_of(path, *options)
        with open_sources(spec, "/") as sources:
            table = restricted.table(
                sources.mounts, restricted.find(sources.mounts, names), programs.paths(None)
            )
            try:
                restricted.refuse(sources, spec, table, Owned(), passed=())
            except RefusedError:
                return False
        return True

    names = [("/", SHARED)]
    below = [tmp_path / name for name in ("log", "library", "state", "set")]
    for path in (package, package / "bin", package.parent, file, Path(sys.prefix), *below):
        assert not may(path, names), path
        assert may(path, names, "ro"), path
    assert may(tmp_path / "set/other", names)
    # Nor does it open what is protected, or in no shared path.
    assert not may(file, [*names, (f"{tmp_path}/set", PROTECTED)], "ro")
    assert not may(file, [(f"{tmp_path}/log", SHARED)], "ro")


# -- all spellings ----------------------------------------------------------------------------

NAMES = ("a", "b", "c")
STEPS = st.one_of(
    st.lists(st.sampled_from([*NAMES, "..", "."]), max_size=6).map("/".join),
    st.sampled_from(["b", "b/a"]),
)
DIRECTORIES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
FOREST = st.lists(
    st.one_of(
        st.tuples(st.just("directory"), DIRECTORIES, st.just("")),
        st.tuples(st.just("link"), DIRECTORIES, STEPS),
        st.tuples(st.just("absolute link"), DIRECTORIES, STEPS),
        st.tuples(st.just("bind"), DIRECTORIES, STEPS),
        st.tuples(st.just("tree"), DIRECTORIES, STEPS),
        st.tuples(st.just("tmpfs"), DIRECTORIES, st.just("")),
    ),
    max_size=12,
)


def plant(top: str, forest: list[tuple[str, str, str]]) -> None:
    """Make directories, links and mounts, as far as they can be made."""
    for kind, where, what in forest:
        path, target = f"{top}/{where}", f"{top}/{what}"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if kind == "link":
                os.symlink(what or ".", path)
            elif kind == "absolute link":
                os.symlink(target, path)
            else:
                os.makedirs(path, exist_ok=True)
            if kind in ("bind", "tree"):
                flags = lib.MS_BIND | (lib.MS_REC if kind == "tree" else 0)
                syscalls.mount(target, path, None, flags)
            elif kind == "tmpfs":
                syscalls.mount("own", path, "tmpfs", 0)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(forest=FOREST, after=FOREST, spellings=st.lists(STEPS, min_size=1, max_size=8))
def test_no_spelling_shows_the_secret(
    forest: list[tuple[str, str, str]], after: list[tuple[str, str, str]], spellings: list[str]
) -> None:
    """A secret lies in b, which is protected, in a forest of links and binds."""
    base = tempfile.mkdtemp(prefix="eci-forest-")

    def work() -> None:
        private()
        syscalls.mount("own", base, "tmpfs", 0)
        for name in ("proc", "forest"):
            os.mkdir(f"{base}/{name}")
        syscalls.mount("/proc", f"{base}/proc", None, lib.MS_BIND)
        HostMounts.read().beneath(b"/")  # imports what it needs, while there is something to import
        # No link leads out of it, nor does a mount cover anything else.
        os.chroot(base)
        os.chdir("/")
        top, secret = "/forest", "/forest/b"
        plant(top, forest)
        with contextlib.suppress(OSError):
            os.makedirs(f"{secret}/a", exist_ok=True)
        plant(top, after)
        wanted = set()
        for mark in (f"{secret}/mark", f"{secret}/a/mark"):
            with contextlib.suppress(OSError):
                Path(mark).touch()
                info = os.stat(mark)
                wanted.add((info.st_dev, info.st_ino))
        # What lies in it by a link or a mount alone is what it is elsewhere.
        if not os.path.isdir(f"{secret}/a"):
            return
        linked = os.path.realpath(f"{secret}/a") != os.path.realpath(secret) + "/a"
        ids = {syscalls.statx_mnt_id(lib.AT_FDCWD, f"{secret}{name}", 0) for name in ("", "/a")}
        if linked or len(ids) != 1:
            return
        names = [("/", SHARED), (secret, PROTECTED)]
        for spelling in ("", *spellings, *(where for _, where, _ in (*forest, *after))):
            with contextlib.suppress(EciError), taken(names, f"{top}/{spelling}") as clone:
                assert not any(shows(clone, one) for one in wanted), (forest, after, spelling)

    try:
        in_child(work)
    finally:
        os.rmdir(base)


# -- while it is looked at --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["link", "rename", "exchange"])
def test_what_changes_while_it_is_looked_at_shows_nothing(tmp_path: Path, how: str) -> None:
    """Somebody who may write beside the source makes it another one, as fast as he can."""
    for name in ("secret/in", "mine/a/in", "mine/b/in", "mine/c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret/in/mark").touch()
    info = os.stat(tmp_path / "secret/in/mark")
    wanted = info.st_dev, info.st_ino
    mine = tmp_path / "mine"
    (mine / "to-secret").symlink_to(tmp_path / "secret")
    (mine / "to-a").symlink_to("a")
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            if how == "link":
                for target in ("to-secret", "to-a"):
                    os.symlink(os.readlink(mine / target), mine / "new")
                    os.rename(mine / "new", mine / "x")
            elif how == "rename":
                with contextlib.suppress(OSError):
                    os.rename(mine / "a", mine / "c/a")
                    os.symlink(tmp_path / "secret", mine / "a")
                    os.unlink(mine / "a")
                    os.rename(mine / "c/a", mine / "a")
            else:
                with contextlib.suppress(OSError):
                    os.rename(mine / "a", mine / "old")
                    os.rename(mine / "to-secret", mine / "a")
                    os.rename(mine / "a", mine / "to-secret")
                    os.rename(mine / "old", mine / "a")

    source = mine / ("x/in" if how == "link" else "a/in")
    names = [("/", SHARED), (f"{tmp_path}/secret", PROTECTED)]
    outcomes: set[str] = set()
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(500):
            try:
                with taken(names, source) as clone:
                    assert not shows(clone, wanted)
                    outcomes.add("mine")
            except RefusedError:
                outcomes.add("refused")
            except EciError:
                outcomes.add("gone")
    finally:
        stop.set()
        thread.join()
    assert outcomes <= {"mine", "refused", "gone"}
    assert {"mine", "refused"} <= outcomes or how != "link"
