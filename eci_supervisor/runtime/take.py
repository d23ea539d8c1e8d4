"""Taking: the state directory and the ID range of a container, under the lock of all state."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

import eci_supervisor
from eci_supervisor.runtime import (
    cleanup,
    state,
)
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.errors import EciError

if TYPE_CHECKING:
    from eci_supervisor.runtime.ranges import RangeStore
    from eci_supervisor.runtime.request import Request
    from eci_supervisor.runtime.spec import Mapping


class Taken(msgspec.Struct, frozen=True):
    """The state directory and the ID range of a container that is being made."""

    record: state.Record
    state_dir: str
    uid_mappings: tuple[Mapping, ...]
    gid_mappings: tuple[Mapping, ...]
    shift: bool
    """Whether files are to be ID-mapped."""
    busy: int
    """The held BUSY lock; closes when the runtime has begun."""


def _refuse_existing(exists: str, container_id: str) -> None:
    """Say what the runtime says where it has such a container already."""
    if os.path.lexists(exists):
        raise EciError(f"container with given ID already exists: {container_id}")


def _claim(state_dir: str, exists: str, container_id: str) -> int:
    """Make the state directory, clearing up after a dead namesake; returns the held BUSY lock.

    The caller holds the lock of the whole state.
    """
    _refuse_existing(exists, container_id)
    if os.path.isdir(state_dir):
        if not cleanup.is_gone(state_dir):
            raise EciError(
                f"container with given ID is still being made or removed: {container_id}"
            )
        cleanup.clean_locked(state_dir)
    os.mkdir(state_dir, 0o711)
    os.chmod(state_dir, 0o711)
    busy = os.open(f"{state_dir}/{state.BUSY}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(busy, fcntl.LOCK_EX)
    return busy


def _foreign_slots(
    store: RangeStore, state_root: str, maps: tuple[Mapping, ...]
) -> tuple[int, ...]:
    """Return the slots that an engine's own ranges touch; RangeError if one is in other hands."""
    slots = sorted({slot for entry in maps for slot in store.slots_over(entry.outside, entry.size)})
    for slot in slots:
        for holder in store.holders(slot):
            record = state.read_record(f"{state_root}/containers/{holder}")
            if record is not None and not record.own_maps:
                raise EciError(
                    "the user namespace of the container overlaps the ID range of container "
                    f"{record.id} (from {record.base}): give the engine another subordinate range"
                )
    return tuple(slots)


def take(request: Request, *, supervised: bool) -> Taken:
    """Take the state directory and an ID range; nothing is left of them if this fails."""
    call = request.call
    container_id = call.container_id
    state_root = state.root()
    store = state.open_store(state_root)
    key = state.key_of(container_id, call.root)
    state_dir = f"{state_root}/containers/{key}"
    exists = f"{call.root}/{container_id}"
    _refuse_existing(exists, container_id)
    cleanup.wait_until_free(state_dir)
    with store.locked():
        busy = _claim(state_dir, exists, container_id)
        try:
            user = request.joins.user
            maps = request.own_maps
            shift = maps is None
            slots: tuple[int, ...]
            if user is not None:
                maps = user.uid_mappings, user.gid_mappings
                slot = _slot_of(store, maps)
                shift = slot is not None
                slots = _foreign_slots(store, state_root, maps[0]) if slot is None else (slot,)
                for slot in slots:
                    store.join(slot, key)
            elif maps is not None:
                slots = _foreign_slots(store, state_root, maps[0])
                for slot in slots:
                    store.join(slot, key)
            else:
                chosen = store.allocate(key, lambda: cleanup.collect(store, state_root))
                slots = (chosen.slot,)
                maps = ((oci.Mapping(0, chosen.base, chosen.size),),) * 2
            first = min(maps[0], key=lambda entry: entry.inside)
            record = state.Record(
                id=container_id,
                key=key,
                nonce=os.urandom(8).hex(),
                runtime=call.runtime,
                runtime_root=call.root,
                base=first.outside,
                size=first.size,
                slots=slots,
                own_maps=not shift,
                work=None
                if request.layers is None or request.layers.work is None
                else os.fsdecode(request.layers.work),
                engine_rootfs=request.engine_rootfs,
                mount_namespace=os.stat("/proc/self/ns/mnt").st_ino,
                supervised=supervised,
                version=eci_supervisor.__version__,
                format=state.FORMAT,
            )
            state.write_record(state_dir, record)
        except BaseException:
            os.close(busy)
            cleanup.clean_locked(state_dir)
            raise
    return Taken(record, state_dir, maps[0], maps[1], shift, busy)


def _slot_of(
    store: RangeStore, maps: tuple[tuple[Mapping, ...], tuple[Mapping, ...]]
) -> int | None:
    """Return the slot that these maps are, or None for maps that are not ours."""
    uids, gids = maps
    if len(uids) != 1 or uids != gids or uids[0].inside != 0:
        return None
    return store.slot_of(uids[0].outside, uids[0].size)
