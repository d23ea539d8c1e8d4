"""What `eci enable` changed, written down before it is done.

    /var/lib/eci/engines/record.json     mode 0600 in a directory of root's alone

A record names every file with its content before and after.  So a run that was cut short is
completed by running it again, and undone by `eci disable`: a file is either still what it was or
already what it is to be.  Two runs at once exclude each other by a lock on /var/lib/eci itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.engines.edits import Change, Undone, undo
from eci_supervisor.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eci_supervisor.engines.files import Tree

LIBRARY = "/var/lib/eci"


class Link(msgspec.Struct, frozen=True):
    """A symbolic link of ours below the library."""

    path: str
    target: str


class Switched(msgspec.Struct, frozen=True):
    """One engine that was, or is being, switched over."""

    changes: tuple[Change, ...] = ()
    links: tuple[Link, ...] = ()
    directories: tuple[str, ...] = ()
    """Those that we made, the upper first."""
    complete: bool = False
    options: dict[str, str] = {}
    """What it was switched over with, for `status`."""


class Record(msgspec.Struct):
    """record.json."""

    version: int = 1
    engines: dict[str, Switched] = {}
    directories: tuple[str, ...] = ()
    """Those that are still to be removed, when they are empty."""


class Journal:
    """The record of one tree, under its lock."""

    def __init__(self, tree: Tree, library: str = LIBRARY) -> None:
        """Take `library` of that tree as the place; nothing is read or made yet."""
        self.tree = tree
        self.library = library
        self.directory = f"{library}/engines"
        self.path = f"{self.directory}/record.json"

    def load(self) -> Record:
        """Return the record; an empty one where there is none.  EngineError if it is damaged."""
        data = self.tree.read(self.path)
        if data is None:
            return Record()
        try:
            record = msgspec.json.decode(data, type=Record)
        except msgspec.DecodeError as error:
            raise EngineError(f"{self.path}: damaged: {error}") from error
        if record.version != 1:
            raise EngineError(
                f"{self.path}: was written by a newer version of eci: use that one to disable"
            )
        return record

    def save(self, record: Record) -> None:
        """Write the record."""
        self.tree.write(self.path, msgspec.json.encode(record), mode=0o600)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Record]:
        """Hold the lock, with the directories made; give the record.

        EngineError if another holds it.  What is empty at the end is removed again.
        """
        fd = self._lock()
        try:
            record = self.load()
            try:
                yield record
            finally:
                if not record.engines:
                    self._remove(record.directories)
        finally:
            os.close(fd)

    def _lock(self) -> int:
        """Return a descriptor, the caller's, of the library, with the lock held."""
        while True:
            for directory in self.tree.missing(self.library):
                self.tree.make(directory)
            real = self.tree.real(self.library)
            try:
                fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have removed the directory.
                held = os.fstat(fd)
                self._refuse_loose(held)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(held, os.stat(real)):
                        self.tree.make(self.directory, 0o700)
                        return fd
            except BlockingIOError:
                os.close(fd)
                raise EngineError("another eci enable or disable is running: wait for it") from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _refuse_loose(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise EngineError(
                f"{self.library}: others than root can write to it, and engines would run what "
                "they put there: chown root, chmod go-w"
            )

    def _remove(self, directories: tuple[str, ...]) -> None:
        self.tree.write(self.path, None)
        # The longest first: what lies in another goes before it.
        ours = {*directories, self.directory, self.library}
        for directory in sorted(ours, key=len, reverse=True):
            self.tree.unmake(directory)

    # -- doing ------------------------------------------------------------------------------

    def base(self, record: Record, notes: list[str]) -> Callable[[str], bytes | None]:
        """Return a reader of files as they are without what we did to them.

        `notes` gets what could not be taken out exactly.
        """
        known = {
            change.path: change for engine in record.engines.values() for change in engine.changes
        }

        def read(path: str) -> bytes | None:
            data = self.tree.read(path)
            if path not in known:
                return data
            undone = undo(known[path], data)
            if undone.note:
                notes.append(undone.note)
            return undone.data

        return read

    def apply(
        self, record: Record, engine: str, wanted: Switched, check: Callable[[], None]
    ) -> list[str]:
        """Bring the files to what `wanted` says; returns the paths that changed.

        `check` looks at the result, and raises EngineError: then, as with every other error, all
        is as it was before.
        """
        known = engine in record.engines
        old = record.engines.get(engine, Switched())
        targets: dict[str, bytes | None] = {change.path: change.after for change in wanted.changes}
        shared = self._shared(record, engine)
        for change in old.changes:
            if change.path not in targets and change.path not in shared:
                targets[change.path] = undo(change, self.tree.read(change.path)).data
        before = {path: self.tree.read(path) for path in targets}
        missing = dict.fromkeys(
            directory
            for path in (*targets, *(link.path for link in wanted.links))
            for directory in self.tree.missing(os.path.dirname(path))
        )
        made = tuple(dict.fromkeys((*old.directories, *sorted(missing, key=len))))
        begun = msgspec.structs.replace(wanted, directories=made)
        changed = [path for path, data in targets.items() if before[path] != data]
        self._note(record, engine, begun)
        try:
            self._make(begun)
            for path in changed:
                self.tree.write(path, targets[path])
            check()
        except BaseException:
            for path, data in before.items():
                self.tree.write(path, data)
            self._clear(record, engine)
            self._note(record, engine, old if known else None)
            self._make(old)
            raise
        kept = {link.path for other in record.engines.values() for link in other.links}
        for path in {link.path for link in old.links} - kept:
            self.tree.unlink(path)
        for directory in reversed(made):
            self.tree.unmake(directory)
        self._note(record, engine, msgspec.structs.replace(begun, complete=True))
        return changed

    def revert(self, record: Record, engine: str) -> tuple[list[str], list[str]]:
        """Take back what was done for `engine`; returns the paths that changed, and notes."""
        switched = record.engines[engine]
        notes: list[str] = []
        changed: list[str] = []
        # All is read before anything is written: what cannot be understood stops it here.
        shared = self._shared(record, engine)
        found: dict[str, Undone] = {
            change.path: undo(change, self.tree.read(change.path))
            for change in switched.changes
            if change.path not in shared
        }
        for path, undone in reversed(found.items()):
            if undone.note:
                notes.append(undone.note)
            if self.tree.read(path) != undone.data:
                self.tree.write(path, undone.data)
                changed.append(path)
        self._clear(record, engine)
        self._note(record, engine, None)
        return changed, notes

    def _make(self, switched: Switched) -> None:
        for directory in switched.directories:
            self.tree.make(directory)
        for link in switched.links:
            self.tree.link(link.path, link.target)

    def _shared(self, record: Record, engine: str) -> set[str]:
        """Return the files that another engine, too, needs as they are: a drop-in, say."""
        return {
            change.path
            for name, other in record.engines.items()
            for change in other.changes
            if name != engine
        }

    def _clear(self, record: Record, engine: str) -> None:
        """Remove links and directories of `engine`, as far as nobody else has a use for them."""
        switched = record.engines[engine]
        kept = {
            link.path
            for name, other in record.engines.items()
            for link in other.links
            if name != engine
        }
        for link in switched.links:
            if link.path not in kept:
                self.tree.unlink(link.path)
        left = [path for path in reversed(switched.directories) if not self.tree.unmake(path)]
        record.directories = (*record.directories, *left)

    def _note(self, record: Record, engine: str, switched: Switched | None) -> None:
        if switched is None:
            record.engines.pop(engine, None)
        else:
            record.engines[engine] = switched
        self.save(record)
