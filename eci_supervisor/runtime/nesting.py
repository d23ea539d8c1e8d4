"""Which binds are mounted by the stage inside the tree that they lie on.  Pure.

A mount that lies in another one's tree when the runtime clones the user namespace is locked
there by the kernel (mount_namespaces(7)): nothing that the container does takes it off its
place.  Mounts that the runtime makes itself, inside of the user namespace, are not.  So what
hides something is nested, wherever its place can be known before the runtime runs, and with it
the volume that it lies in: of the trees that the runtime gets, it is only the root file system
that both runtimes take over with all that is in it, and from inside of the user namespace.
(crun 1.8 clones the sources of binds outside, and without the mounts beneath.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

Steps: TypeAlias = tuple[str, ...]
"""A path from the container's root, without links."""

MAX_LINKS = 40
"""As many as the kernel follows: path_resolution(7)."""

# What goes out from such a mount is for the runtime to arrange: the kernel turns shared mounts
# into slaves when it clones the user namespace, and a recursive bind leaves unbindable ones out.
_LEFT_TO_RUNTIME = {"shared", "rshared", "unbindable", "runbindable"}


class Entry(msgspec.Struct, frozen=True):
    """One entry of mounts[]."""

    destination: str
    options: Collection[str] = ()
    staged: bool = False
    """It is a bind whose source the stage has cloned; the runtime mounts all others."""
    whole: bool = True
    """The clone has all its mounts already, so that paths in it lead where they will lead."""
    readonly: bool = False


def over(path: Steps, places: Sequence[Steps]) -> int | None:
    """Return the mount that `path` lies on: the last one above it.  None: the root file system."""
    for index in reversed(range(len(places))):
        if path[: len(places[index])] == places[index]:
            return index
    return None


def resolve(
    destination: str, places: Sequence[Steps], link: Callable[[str], str | None]
) -> Steps | None:
    """Return where `destination` is once the mounts at `places` are there; None: links in a loop.

    `link` reads a link of the root file system, None where there is none.  Links inside of the
    mounts are not looked for: `plan` has it checked that there are none.
    """
    todo = destination.split("/")[::-1]
    done: Steps = ()
    links = 0
    while todo:
        step = todo.pop()
        if step in ("", "."):
            continue
        if step == "..":
            done = done[:-1]
            continue
        here = (*done, step)
        target = link("/".join(here)) if over(here, places) is None else None
        if target is None:
            done = here
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        if target.startswith("/"):
            done = ()
        todo += target.split("/")[::-1]
    return done


class _Plan:
    """The entries, where they are, and what each of them is about."""

    def __init__(self, entries: Sequence[Entry], places: Sequence[Steps]) -> None:
        self.entries = entries
        self.places = places
        self.parents = [over(place, places[:index]) for index, place in enumerate(places)]
        self.buried = [self._buried(index) for index in range(len(places))]

    def _buried(self, index: int) -> list[int]:
        """Return the earlier mounts that this one covers, and that were to be seen before."""
        place, parent = self.places[index], self.parents[index]
        first = 0 if parent is None else parent
        return [other for other in range(first, index) if self.places[other][: len(place)] == place]

    def wanted(self, *, root_readonly: bool) -> set[int]:
        """Return what hides something, with the binds that it buries and those that it lies in."""
        found = set()
        for index, entry in enumerate(self.entries):
            parent = self.parents[index]
            over_readonly = root_readonly if parent is None else self.entries[parent].readonly
            both = {index, *self.buried[index]}
            if len(both) > 1 and all(self.entries[one].staged for one in both):
                found |= both
            elif entry.readonly and not over_readonly:
                found.add(index)
        for index in reversed(range(len(self.places))):
            parent = self.parents[index]
            if index in found and parent is not None:
                found.add(parent)
        return found

    def is_possible(self, index: int, nested: Collection[int]) -> bool:
        """Say whether entry `index` can be put into the tree that it lies on, by its options."""
        entry, parent = self.entries[index], self.parents[index]
        if not entry.staged or _LEFT_TO_RUNTIME & set(entry.options):
            return False
        if parent is not None and not (parent in nested and self.entries[parent].whole):
            return False
        # What the runtime mounts is mounted after what is nested: on top of it, not beneath.
        return all(other in nested for other in self.buried[index])


def plan(
    entries: Sequence[Entry],
    *,
    root_readonly: bool,
    link: Callable[[str], str | None],
    reach: Callable[[int, int | None, str], bool],
) -> list[int]:
    """Return which entries are nested.

    `link` is that of `resolve`.  `reach(index, parent, path)` opens the place of entry `index`,
    `path` beneath the root of `parent`, without following a link, and says whether it could.
    Where it could not, the runtime decides, as it does about all that is not nested.
    """
    places: list[Steps] = []
    for entry in entries:
        place = resolve(entry.destination, places, link)
        if place is None:
            break  # where it will be, and what comes after it, is the runtime's to find out
        places.append(place)
    facts = _Plan(entries[: len(places)], places)
    wanted = facts.wanted(root_readonly=root_readonly)
    nested: list[int] = []
    for index, place in enumerate(places):
        parent = facts.parents[index]
        if index not in wanted or not place or not facts.is_possible(index, nested):
            continue
        beneath = place[0 if parent is None else len(places[parent]) :]
        if reach(index, parent, "/".join(beneath) or "."):
            nested.append(index)
    return nested
