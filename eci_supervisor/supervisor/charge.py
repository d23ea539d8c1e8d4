"""What the wrapper hands to the keeper of one container."""

from __future__ import annotations

import msgspec

from eci_supervisor.kernel.table import InodeRule  # noqa: TC001 - msgspec asks for it
from eci_supervisor.policy.paths import HostPaths


class Charge(msgspec.Struct, frozen=True):
    """One container, as the keeper has to know it.

    Paths are paths of the host's mount namespace; ids are host ids.
    """

    container_id: str
    """The id that the engine chose; `state.id` of every listener message must equal it."""
    key: str
    """Name of the state directory: unique over all runtime roots."""
    nonce: str
    """Tells this container from the next one of the same key."""
    state_dir: str
    runtime_root: str
    """The runtime's `--root`: `<runtime_root>/<container_id>` exists while the container does."""
    runtime: str
    """`runc` or `crun`."""
    base: int
    """First host id of the container's range."""
    size: int
    """Number of ids in the range."""
    supervised: bool
    """False where the seccomp profile lets no mount call through: no listener, no worker."""
    waits_killable: bool = False
    """Whether nothing but a fatal signal interrupts a supervised call (see killable.py)."""
    tells_of_parting: bool = False
    """Whether every setns(2) and unshare(2) is trapped (see csrc/caller.c)."""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    host_paths: HostPaths = HostPaths()
    """Host-protected paths: no call may touch what lies in or above them."""
    protected: tuple[InodeRule, ...] = ()
    """What these were when the container was made; empty for one without a supervisor."""
    hooks_meddle: bool = False
    """A hook of the engine's may have moved or mounted something before the worker's turn."""
    trace: str | None = None
    """None, `stderr` (the wrapper's), or the file that gets the trace lines."""
    cgroups_path: str | None = None
    """`linux.cgroupsPath` of the spec, where it is a path."""
    engine_rootfs: str | None = None
    """The engine's own overlay mount whose layers the container uses, if any."""
    readonly_root: bool = False
    """The container's root file system is to be read-only, and so is the engine's view of it."""
    image: str = ""
    """The image's name, where the engine says it in the bundle."""
    engine_record: str | None = None
    """The engine's directory of this container, which knows it otherwise: engine.py."""
    mount_memory: int = 0
    """Bytes that the kernel may charge for its mounts; 0: no bound."""
    clearing: tuple[str, str] = ("", "")
    """What csrc/cleanup.c has to be told: `cleanup.words_of`."""
