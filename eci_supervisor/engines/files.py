"""Configuration files as bytes: found once, read whole, replaced in one step.

A file is replaced by a temporary beside it and rename(2), so that a reader sees the old or the
new one, also after a crash: both are synced first.  The new one gets owner, mode and extended
attributes (ACLs and labels are among them) of the old one.  A symbolic link stays, and what it
names is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1 << 20
"""Bytes; a longer configuration is none."""
_LINKS = 40  # as many as the kernel follows
_NEW = ".eci-new"
_MODE = 0o644


class Tree(msgspec.Struct, frozen=True):
    """The tree in which the files lie: `/`, or a directory that stands for it.

    Paths are absolute and named as from inside, and links in it are followed inside, as after a
    chroot(2).
    """

    root: str = "/"

    def real(self, path: str) -> str:
        """Return where `path` is on this machine, links followed; its last part may be missing.

        EngineError for a loop.
        """
        todo = [part for part in path.split("/") if part]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop(0)
            if part in (".", ".."):
                if part == "..":
                    del done[-1:]
                continue
            here = self._join([*done, part])
            try:
                link = os.readlink(here)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    raise EngineError(f"{here}: {error.strerror}") from error
                done.append(part)
                continue
            links += 1
            if links > _LINKS:
                raise EngineError(f"{path}: too many symbolic links")
            if link.startswith("/"):
                done = []
            todo[:0] = [piece for piece in link.split("/") if piece]
        return self._join(done)

    def _join(self, parts: list[str]) -> str:
        return os.path.join(self.root, *parts)

    # -- files ------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """Return the file's content, or None where there is none.

        EngineError where it cannot be read, or could not be replaced and leave all as it was.
        """
        real = self.real(path)
        try:
            fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineError(f"{path}: cannot be read: {error.strerror}") from error
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise EngineError(f"{path}: is no regular file")
            if status.st_nlink > 1:
                raise EngineError(
                    f"{path}: has {status.st_nlink} hard links, which replacing it would take "
                    "apart: give it a copy of its own"
                )
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise EngineError(f"{path}: longer than {LIMIT} bytes")
        return data

    def write(self, path: str, data: bytes | None, *, mode: int = _MODE) -> None:
        """Replace the file by one with this content, or remove it (None).

        `mode`: of a file that was not there.  EngineError where that cannot be done; then
        nothing has changed.
        """
        real = self.real(path)
        try:
            if data is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(real)
            else:
                _replace(real, data, mode)
            _sync_directory(os.path.dirname(real))
        except OSError as error:
            raise EngineError(
                f"{path}: cannot be written: {error.strerror or error}; is it mounted by itself, "
                "read-only or immutable?"
            ) from error

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory; none where there is no directory."""
        try:
            return sorted(os.listdir(self.real(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: str) -> bool:
        """Say whether there is something of this name, links followed."""
        return os.path.lexists(self.real(path))

    # -- directories ------------------------------------------------------------------------

    def missing(self, directory: str) -> list[str]:
        """Return which directories are to be made for `directory` to be there, the upper first."""
        found: list[str] = []
        while directory != "/" and not self.exists(directory):
            found.insert(0, directory)
            directory = os.path.dirname(directory)
        return found

    def make(self, directory: str, mode: int = 0o755) -> None:
        """Make a directory, if it is not there, whose parent is there."""
        real = self.real(directory)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(real, mode)
                os.chmod(real, mode)
                _sync_directory(os.path.dirname(real))
        except OSError as error:
            raise EngineError(f"{directory}: cannot be made: {error.strerror}") from error

    def unmake(self, directory: str) -> bool:
        """Remove a directory if it is empty; returns whether it is gone."""
        try:
            os.rmdir(self.real(directory))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def link(self, path: str, target: str) -> None:
        """Let the symbolic link `path` name `target`, whatever it named before."""
        directory, name = os.path.split(path)
        real = os.path.join(self.real(directory), name)
        with contextlib.suppress(OSError):
            if os.readlink(real) == target:
                return
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(real + _NEW)
            os.symlink(target, real + _NEW)
            os.rename(real + _NEW, real)
            _sync_directory(os.path.dirname(real))
        except OSError as error:
            raise EngineError(f"{path}: cannot be made: {error.strerror}") from error

    def unlink(self, path: str) -> None:
        """Remove a symbolic link of ours, if it is there."""
        directory, name = os.path.split(path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(os.path.join(self.real(directory), name))


def _replace(real: str, data: bytes, mode: int) -> None:
    """Write beside `real` and rename; what a crash left there is overwritten."""
    directory, name = os.path.split(real)
    temporary = os.path.join(directory, f".{name}{_NEW}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            with _like(real) as old:
                if old is None:
                    os.fchmod(fd, mode)
                else:
                    _copy_attributes(old, fd)
            os.fsync(fd)
        os.rename(temporary, real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _like(real: str) -> Iterator[int | None]:
    """Open the file that is to be replaced, or give None where there is none."""
    try:
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_attributes(old: int, new: int) -> None:
    """Give one open file owner, mode and extended attributes of another.  OSError if it cannot."""
    status = os.fstat(old)
    os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode))
    try:
        names = os.listxattr(old)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    for name in names:
        os.setxattr(new, name, os.getxattr(old, name))


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
