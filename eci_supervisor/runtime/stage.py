"""The stage: root file system, volumes and devices, made ready before the runtime starts.

Everything is mounted in a mount namespace that the wrapper shares with nobody and the runtime
inherits, so nothing is left on the host when they are gone.  A mount that exists, with its
flags, before the runtime clones the container's user namespace is copied into it locked: the
kernel itself then refuses to clear ro, nosuid, nodev or noexec (mount_namespaces(7)).

On disk every file keeps its owner.  Mounts are ID-mapped: host id 0 on disk is shown as the
first id of the container's range, which its user namespace calls 0 again.

A path is used once, to get a descriptor.  Mounts of one container lie at

    STATE/rootfs     the root file system
    STATE/m          a tmpfs of the stage's own, with N for entry N of mounts[]

and in one another: what hides something lies in the tree that it lies on (nesting.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import mountinfo, syscalls
from eci_supervisor.kernel.syscalls import lib
from eci_supervisor.runtime import overlay, points
from eci_supervisor.runtime.attributes import attributes, propagation
from eci_supervisor.runtime.errors import StageError
from eci_supervisor.runtime.rewrite import Staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eci_supervisor.kernel.mountinfo import Mount
    from eci_supervisor.runtime.overlay import Layers
    from eci_supervisor.runtime.points import Point
    from eci_supervisor.runtime.spec import Device

UNIFIED = "/sys/fs/cgroup/unified"
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630

WORKS = "works"
"""NUL-terminated paths of work directories, in the state directory: csrc/cleanup.c."""

# statfs(2) f_flags, whose values differ from MOUNT_ATTR_* and are the same as MS_* for these.
_SHOWN = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8}


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Own `fd` for the length of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _fs_ids(owner: int) -> Iterator[None]:
    """Make files for `owner`, with all our capabilities."""
    syscalls.setfsids(owner, owner)
    try:
        yield
    finally:
        syscalls.setfsids(0, 0)


def _path_of(fd: int) -> bytes:
    """Return where the kernel says that `fd` lies."""
    return os.readlink(b"/proc/self/fd/%d" % fd)


def _overlay_of(fd: int) -> tuple[Mount, bytes] | None:
    """Return the overlay that `fd` lies in, and the path in it; None where it is no overlay.

    None for the host's own root, too, to which others write at the same time.
    """
    if syscalls.fstatfs_type(fd) != OVERLAYFS_SUPER_MAGIC:
        return None
    mount = mountinfo.find(syscalls.statx_mnt_id(fd, b"", lib.AT_EMPTY_PATH))
    real = _path_of(fd)
    if mount is None or mount.target == b"/" or not real.startswith(mount.target):
        return None
    beneath = real[len(mount.target) :].strip(b"/")
    return mount, os.path.join(mount.root, beneath) if beneath else mount.root


def root_mount(path: bytes) -> Mount | None:
    """Return the overlay mount whose root is the directory `path`, or None if it is no such."""
    with closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        return root_mount_of(fd)


def root_mount_of(fd: int) -> Mount | None:
    """Return the same for an open directory."""
    found = mountinfo.find(syscalls.statx_mnt_id(fd, b"", lib.AT_EMPTY_PATH))
    # mountinfo gives the path from our root; a bind of a part of an overlay has another root.
    real = _path_of(fd)
    if found is None or found.fstype != b"overlay" or found.target != real:
        return None
    return found


def leave_host() -> None:
    """Go to a mount namespace that only receives from the one that we were in."""
    syscalls.unshare(lib.CLONE_NEWNS)
    syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_SLAVE)


def hide_unified() -> None:
    """Detach the v2 hierarchy of a hybrid layout, where crun 1.8 refuses to work.

    In this process's mount namespace, which should be its own.
    """
    if has_unified():
        syscalls.umount2(UNIFIED, lib.MNT_DETACH | lib.UMOUNT_NOFOLLOW)


def has_unified() -> bool:
    """Say whether there is a v2 hierarchy in the place that a hybrid layout has for it."""
    try:
        with closing(os.open(UNIFIED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            return syscalls.fstatfs_type(fd) == CGROUP2_SUPER_MAGIC
    except FileNotFoundError:
        return False


class Clone(msgspec.Struct, frozen=True):
    """A copy of a bind's source, ready to be mounted."""

    tree: int
    """Descriptor of the detached mount, owned by who has asked for it."""
    directory: bool
    flags: tuple[str, ...]
    """As `Staged.flags`."""
    beneath: int = 0
    """MOUNT_ATTR_* that its inner mounts get once it is mounted."""
    source: bytes | None = None
    """Where its inner mounts come from, one by one; None where it has them."""
    userns: int | None = None
    """Their ID mapping; not owned."""
    again: tuple[Mount, bytes] | None = None
    """The overlay that it is a part of, and which: `mount_again`."""


class Stage:
    """What is prepared for one container: `clone`, then `enter`, then the rest in any order."""

    def __init__(self, state_dir: str, userns: int | None, owner: int) -> None:
        """Take note; nothing is done yet.

        `userns`: descriptor of a user namespace with the container's maps, or None where the
        engine has shifted the files already; `owner`: the host id of the container's root.
        """
        self.state_dir = state_dir
        self.userns = userns
        self.owner = owner
        self.tmpfs = -1
        self._layers: dict[bytes, int] = {}

    def enter(self) -> None:
        """Leave the host's mount namespace for one that only receives from it."""
        for name in ("rootfs", "m"):
            os.mkdir(f"{self.state_dir}/{name}", 0o711)
        leave_host()
        # Without nodev, for the nodes of named devices.
        self.tmpfs = syscalls.detached("tmpfs", {"mode": "0711"})
        self._attach(self.tmpfs, lib.AT_FDCWD, f"{self.state_dir}/m")

    @staticmethod
    def _attach(tree: int, dfd: int, path: str) -> None:
        syscalls.move_mount(tree, "", dfd, path, lib.MOVE_MOUNT_F_EMPTY_PATH)

    def path(self, name: str) -> str:
        """Return the path of `name` in the stage's tmpfs."""
        return f"{self.state_dir}/m/{name}"

    def _mount_point(self, name: str, *, directory: bool) -> None:
        """Make an empty directory or file in the tmpfs."""
        if directory:
            os.mkdir(name, 0o711, dir_fd=self.tmpfs)
        else:
            os.close(
                os.open(
                    name,
                    os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC,
                    0o600,
                    dir_fd=self.tmpfs,
                )
            )

    # -- ID mapping -------------------------------------------------------------------------

    def _map(self, tree: int, userns: int, flags: int = 0) -> bool:
        """ID-map a detached mount; False where its file system cannot be mapped.

        EINVAL: proc, sysfs, cgroup, overlay, devtmpfs, nsfs.  EPERM: it is mapped already, or
        was mounted in another user namespace.  Its files then belong to nobody in the
        container, which gives it less, never more.
        """
        try:
            syscalls.mount_setattr(
                tree,
                b"",
                flags | lib.AT_EMPTY_PATH,
                attr_set=lib.MOUNT_ATTR_IDMAP,
                userns_fd=userns,
            )
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                return False
            raise
        return True

    def _clone(self, index: int, source: int, flags: int) -> int:
        """Return a detached copy of the mount that `source` is open on; StageError without it."""
        try:
            return syscalls.open_tree(source, b"", lib.OPEN_TREE_CLONE | lib.AT_EMPTY_PATH | flags)
        except OSError as error:
            raise StageError(
                f"mounts[{index}]: bind source {os.fsdecode(_path_of(source))}: "
                f"{os.strerror(error.errno or 0)}"
            ) from error

    def _attach_beneath(self, source: bytes, tree: int, userns: int) -> None:
        """Attach a mapped copy of each mount beneath `source` at its place in the mounted `tree`.

        Only the root of a detached tree can be mapped by itself, so they come one by one.
        """
        prefix = source.rstrip(b"/") + b"/"
        for mount in mountinfo.read():
            if not mount.target.startswith(prefix) or mount.target == source:
                continue
            with contextlib.ExitStack() as stack:
                try:
                    copy = syscalls.open_tree(lib.AT_FDCWD, mount.target, lib.OPEN_TREE_CLONE)
                    stack.callback(os.close, copy)
                    seen = stack.enter_context(
                        closing(os.open(mount.target, os.O_PATH | os.O_CLOEXEC))
                    )
                except OSError as error:
                    # Hidden by another mount, gone meanwhile, or not to be bound (EINVAL).
                    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
                        continue
                    raise
                if syscalls.statx_mnt_id(seen, b"", lib.AT_EMPTY_PATH) != mount.mount_id:
                    continue  # another one lies on top, and comes later
                self._map(copy, userns)
                syscalls.move_mount(
                    copy, b"", tree, mount.target[len(prefix) :], lib.MOVE_MOUNT_F_EMPTY_PATH
                )

    def _required(self, tree: int, what: str) -> int:
        """ID-map what has to be; StageError where it cannot be.  Returns `tree`."""
        if self.userns is not None and not self._map(tree, self.userns):
            os.close(tree)
            raise StageError(
                f"{what} lies on a file system that cannot be ID-mapped: "
                "move it to ext4, xfs, btrfs or tmpfs"
            )
        return tree

    # -- binds ------------------------------------------------------------------------------

    def clone(
        self,
        index: int,
        source: int,
        options: list[str],
        userns: int | None,
        *,
        private: bool = False,
    ) -> Clone:
        """Clone the source of entry `index` of mounts[], with the flags of its options.

        `source`: a descriptor of it, opened in this process's mount namespace; so `enter` comes
        afterwards.  `userns`: the ID mapping, or None for none.  `private`: nothing that the host
        mounts there later is to be seen.  StageError if it cannot be bound.
        The clone lies nowhere yet: `put` or `nest` is to follow.
        """
        recursive = lib.AT_RECURSIVE if "rbind" in options else 0
        one_by_one = False
        again = None
        tree = self._clone(index, source, recursive)
        if userns is not None and not self._map(tree, userns, recursive):
            again = _overlay_of(source) if userns == self.userns else None
            if recursive:
                os.close(tree)
                one_by_one = True
                tree = self._clone(index, source, 0)
                self._map(tree, userns)
        return Clone(
            tree=tree,
            directory=stat.S_ISDIR(os.fstat(tree).st_mode),
            flags=self._set_attributes(tree, options, lib.MS_PRIVATE if private else lib.MS_SLAVE),
            beneath=attributes(options)[2],
            source=_path_of(source) if one_by_one else None,
            userns=userns,
            again=again,
        )

    @staticmethod
    def _set_attributes(
        tree: int, options: list[str], change: int = lib.MS_SLAVE
    ) -> tuple[str, ...]:
        """Give a clone what its options say; returns its flags.  Where that fails, it is closed."""
        to_set, to_clear, _ = attributes(options)
        try:
            syscalls.mount_setattr(tree, b"", lib.AT_EMPTY_PATH, attr_set=to_set, attr_clr=to_clear)
            # What is mounted in the container, in it or beneath, is no business of the host's.
            syscalls.mount_setattr(
                tree, b"", lib.AT_EMPTY_PATH | lib.AT_RECURSIVE, propagation=change
            )
            shown = syscalls.fstatfs_flags(tree)
        except BaseException:
            os.close(tree)
            raise
        return tuple(flag for flag, bit in _SHOWN.items() if shown & bit)

    def mount_again(self, index: int, clone: Clone, options: list[str]) -> Clone:
        """Return a clone that is ID-mapped, of one that is part of an overlay; else the same.

        After `enter`.  An overlay cannot be ID-mapped itself, but its layers can: builders bind
        such into their steps, as caches and as files of other stages.  It stays as it is where the
        layers cannot be found or mapped.
        """
        if clone.again is None:
            return clone
        mount, part = clone.again
        try:
            layers = overlay.layers(mount)
            if "ro" in options:
                layers = layers.readonly()
            work = None
            if layers.work is not None:
                # Of several containers with one cache each has its own.
                key = os.fsencode(os.path.basename(self.state_dir))
                work = layers.work + b"-%s-%d" % (key, index)
                self._note_work(work)
            tree = self._mapped_overlay(layers, work, part, f"layers-{index}")
        except StageError:
            return clone
        flags = self._set_attributes(tree, options)
        os.close(clone.tree)
        return msgspec.structs.replace(clone, tree=tree, flags=flags, again=None)

    def put(self, index: int, clone: Clone) -> Staged:
        """Mount a clone where the runtime finds it as the source of entry `index`."""
        name = str(index)
        self._mount_point(name, directory=clone.directory)
        self._attach(clone.tree, self.tmpfs, name)
        self._finish(clone)
        return Staged(self.path(name), clone.flags)

    def nest(self, clone: Clone, point: int, options: list[str]) -> None:
        """Mount a clone on `point`, a place in a tree of the stage: nothing is left to do of it."""
        change, recursive = propagation(options)
        if change:
            flags = lib.AT_EMPTY_PATH | (lib.AT_RECURSIVE if recursive else 0)
            syscalls.mount_setattr(clone.tree, b"", flags, propagation=change)
        flags = lib.MOVE_MOUNT_F_EMPTY_PATH | lib.MOVE_MOUNT_T_EMPTY_PATH
        syscalls.move_mount(clone.tree, "", point, "", flags)
        self._finish(clone)

    def _finish(self, clone: Clone) -> None:
        """Do what can only be done to a tree that is mounted."""
        if clone.source is not None and clone.userns is not None:
            self._attach_beneath(clone.source, clone.tree, clone.userns)
        if clone.beneath:
            flags = lib.AT_EMPTY_PATH | lib.AT_RECURSIVE
            syscalls.mount_setattr(clone.tree, b"", flags, attr_set=clone.beneath)

    def sysfs(self, index: int, network: int, options: list[str]) -> Staged:
        """Prepare a read-only sysfs of the network namespace open as `network` for entry `index`.

        A new one, not a bind of /sys: that would show the interfaces of the host, and beneath
        it the host's cgroup tree.
        """
        with closing(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
            syscalls.setns(network, lib.CLONE_NEWNET)
            try:
                tree = syscalls.detached("sysfs", {})
            finally:
                syscalls.setns(home, lib.CLONE_NEWNET)
        flags = ("ro", "nosuid", "nodev", "noexec")
        with closing(tree):
            to_set, to_clear, _ = attributes([*options, *flags])
            syscalls.mount_setattr(tree, b"", lib.AT_EMPTY_PATH, attr_set=to_set, attr_clr=to_clear)
            self._mount_point(str(index), directory=True)
            self._attach(tree, self.tmpfs, str(index))
        return Staged(self.path(str(index)), flags)

    # -- devices ----------------------------------------------------------------------------

    def device(self, number: int, device: Device, owner: int, group: int) -> str:
        """Make the node of a named device, for host ids `owner` and `group`; returns its path."""
        kinds = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
        name = f"device-{number}"
        syscalls.mknodat(
            self.tmpfs, name, kinds[device.kind] | 0o600, os.makedev(device.major, device.minor)
        )
        syscalls.fchownat(self.tmpfs, name, owner, group, 0)
        syscalls.fchmodat(self.tmpfs, name, device.mode)
        return self.path(name)

    def pin_namespace(self, kind: str, fd: int) -> str:
        """Bind a namespace into the stage: then it has a path that nobody else can change.

        Neither by a link on the way nor by the reuse of a pid.
        """
        name = f"{kind}-namespace"
        self._mount_point(name, directory=False)
        path = self.path(name)
        syscalls.mount(f"/proc/self/fd/{fd}", path, None, lib.MS_BIND)
        return path

    # -- the root file system ---------------------------------------------------------------

    def clone_root(self, root: int) -> int:
        """Return a clone of the directory `root`, with what is mounted in it; the caller's.

        `root`: a descriptor of it, opened in this process's mount namespace; so `enter` comes
        afterwards.
        """
        flags = lib.OPEN_TREE_CLONE | lib.AT_RECURSIVE | lib.AT_EMPTY_PATH
        tree = syscalls.open_tree(root, b"", flags)
        shown = _path_of(root).decode("utf-8", "backslashreplace")
        self._required(tree, f"the root file system {shown}")
        # As `enter` does with all that is cloned after it.
        flags = lib.AT_EMPTY_PATH | lib.AT_RECURSIVE
        syscalls.mount_setattr(tree, b"", flags, propagation=lib.MS_SLAVE)
        return tree

    def clone_layers(self, layers: dict[bytes, int]) -> None:
        """Have `root_overlay` take these descriptors for the paths of its layers.  As above."""
        for path, layer in layers.items():
            flags = lib.OPEN_TREE_CLONE | lib.AT_EMPTY_PATH
            tree = self._layers[path] = syscalls.open_tree(layer, b"", flags)
            syscalls.mount_setattr(tree, b"", lib.AT_EMPTY_PATH, propagation=lib.MS_PRIVATE)

    def root_directory(self, tree: int) -> None:
        """Mount an ordinary directory, which `clone_root` has cloned, as the root file system."""
        with closing(tree):
            syscalls.mount_setattr(tree, b"", lib.AT_EMPTY_PATH, propagation=lib.MS_PRIVATE)
            self._attach(tree, lib.AT_FDCWD, f"{self.state_dir}/rootfs")

    def root_overlay(self, layers: Layers, part: bytes) -> None:
        """Mount the same layers once more, ID-mapped; `part` is the root's path inside them.

        Nothing else may write to the work directory `layers.work`; it is made here.
        """
        with closing(self._mapped_overlay(layers, layers.work, part, "layers")) as tree:
            self._attach(tree, lib.AT_FDCWD, f"{self.state_dir}/rootfs")

    def _mapped_overlay(self, layers: Layers, work: bytes | None, part: bytes, name: str) -> int:
        """Return a detached mount of `part` of these layers, mounted once more and ID-mapped.

        `work`: the work directory, which is made here, beside the upper layer.  `name`: of a new
        directory in the tmpfs.
        """
        if work is not None:
            import shutil  # noqa: PLC0415 - it brings every compressor along

            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(work)
            os.mkdir(work, 0o700)
        os.mkdir(name, 0o711, dir_fd=self.tmpfs)
        # overlayfs takes private clones, so the layers need no place once it is mounted.
        with closing(syscalls.detached("tmpfs", {"mode": "0700"})) as place:
            self._attach(place, self.tmpfs, name)
            try:
                tree = self._overlay(layers, work, place, name)
                if part == b"/":
                    return tree
                with closing(tree):
                    return syscalls.open_tree(tree, part.lstrip(b"/"), lib.OPEN_TREE_CLONE)
            finally:
                syscalls.umount2(self.path(name), lib.MNT_DETACH | lib.UMOUNT_NOFOLLOW)

    def _note_work(self, path: bytes) -> None:
        """Have csrc/cleanup.c remove a work directory, whoever is killed from here on."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with closing(os.open(f"{self.state_dir}/{WORKS}", flags, 0o600)) as fd:
            os.write(fd, path + b"\0")

    def layer(self, source: bytes) -> int:
        """Return a clone of a layer's directory, the caller's: what `clone_layers` got for it."""
        tree = self._layers.pop(source, -1)
        return tree if tree >= 0 else syscalls.open_tree(lib.AT_FDCWD, source, lib.OPEN_TREE_CLONE)

    def _layer(self, source: bytes, place: int, name: str, where: str) -> str:
        """Attach an ID-mapped clone of a layer's directory; returns its path.

        `place`: the directory `where` of the tmpfs.
        """
        try:
            tree = self.layer(source)
        except OSError as error:
            raise StageError(
                f"layer {os.fsdecode(source)!r}: {os.strerror(error.errno or 0)}"
            ) from error
        with closing(self._required(tree, f"the layer {os.fsdecode(source)!r}")):
            os.mkdir(name, 0o711, dir_fd=place)
            self._attach(tree, place, name)
        return self.path(f"{where}/{name}")

    def _overlay(self, layers: Layers, work: bytes | None, place: int, where: str) -> int:
        """Return a descriptor of the detached second overlay; `place`, `where` as of `_layer`."""
        lower = [
            self._layer(source, place, f"l{index}", where)
            for index, source in enumerate(layers.lower)
        ]
        data = [
            self._layer(source, place, f"d{index}", where)
            for index, source in enumerate(layers.data_only)
        ]
        with closing(self._as_mounter(syscalls.fsopen, "overlay")) as context:
            syscalls.fsconfig(context, lib.FSCONFIG_SET_STRING, "source", "overlay")
            for path in lower:
                syscalls.fsconfig(context, lib.FSCONFIG_SET_STRING, "lowerdir+", path)
            for path in data:
                syscalls.fsconfig(context, lib.FSCONFIG_SET_STRING, "datadir+", path)
            if layers.upper is not None and work is not None:
                # Upper and work directory have to lie on one and the same mount.
                parent, name = os.path.split(layers.upper)
                top = os.fsencode(self._layer(parent, place, "upper", where))
                syscalls.fsconfig(context, lib.FSCONFIG_SET_STRING, "upperdir", top + b"/" + name)
                beside = top + b"/" + os.path.basename(work)
                syscalls.fsconfig(context, lib.FSCONFIG_SET_STRING, "workdir", beside)
            for key, value in (*layers.options, (b"index", b"off")):
                syscalls.fsconfig(context, lib.FSCONFIG_SET_STRING, key.decode("ascii"), value)
            if layers.volatile:
                syscalls.fsconfig(context, lib.FSCONFIG_SET_FLAG, "volatile")
            self._as_mounter(syscalls.fsconfig, context, lib.FSCONFIG_CMD_CREATE)
            return syscalls.fsmount(context)

    def _as_mounter(self, call: object, *args: object) -> int:
        """Call with the container's root as fsuid and fsgid, where files are ID-mapped.

        overlayfs works on its layers with the credentials of who mounts it.  Host id 0 is not
        mapped in the layers, and could make nothing there (EOVERFLOW).
        """
        with _fs_ids(self.owner if self.userns is not None else 0):
            return call(*args)  # type: ignore[operator, no-any-return]

    def mount_point(
        self,
        root: int,
        path: str,
        resolve: int,
        *,
        directory: bool,
        mode: int = points.DEFAULT_MODE,
    ) -> int:
        """As `points.make`; what is made belongs to the container's root, as the runtime's does."""
        with _fs_ids(self.owner):
            return points.make(root, path, resolve, directory=directory, mode=mode)

    def root(self) -> contextlib.AbstractContextManager[int]:
        """Open the root file system's directory, for the length of a block."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        return closing(os.open(f"{self.state_dir}/rootfs", flags))

    def lock_root(self, wanted: list[Point]) -> None:
        """Make the root file system read-only itself, so that the kernel holds it.

        First the mount points are made that the runtime would make.
        """
        with self.root() as root:
            for point in wanted:
                os.close(
                    self.mount_point(
                        root,
                        point.path,
                        points.IN_ROOT,
                        directory=point.directory,
                        mode=point.mode,
                    )
                )
            syscalls.mount_setattr(root, b"", lib.AT_EMPTY_PATH, attr_set=lib.MOUNT_ATTR_RDONLY)
