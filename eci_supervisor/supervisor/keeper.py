"""The keeper of one container: forked by the wrapper, it outlives the runtime's invocation.

It answers the createRuntime hook, runs the worker of a supervised container, and clears up
when a create comes to nothing, whoever was killed.  One thread, one event loop; nothing of it
is in the path of a container's call.  With nothing to do it rests, without an interpreter: `rest`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.kernel import holding, mountinfo, watch
from eci_supervisor.kernel.protected import protected_rules
from eci_supervisor.kernel.reasons import refuses
from eci_supervisor.kernel.ring import Ring
from eci_supervisor.observe.limit import Limit
from eci_supervisor.runtime import engine
from eci_supervisor.runtime.state import COVER
from eci_supervisor.supervisor import cgroups, memory, rest, view
from eci_supervisor.supervisor.compiler import compile_policy
from eci_supervisor.supervisor.intake import (
    MAX_BYTES,
    Connection,
    IntakeError,
    ProcessState,
    check_peer,
    hook_state,
)
from eci_supervisor.supervisor.memory import Room
from eci_supervisor.supervisor.orphan import set_name
from eci_supervisor.supervisor.trace_file import TraceFile
from eci_supervisor.supervisor.worker import HELD, Worker, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eci_supervisor.kernel.ring import Event
    from eci_supervisor.kernel.table import InodeRule
    from eci_supervisor.observe.audit import Record
    from eci_supervisor.supervisor.charge import Charge

HOOK_SOCKET = "hook.sock"
NOTIFY_SOCKET = "notify.sock"
LOG = "keeper.log"
LOCK = "lock"
MET = "met"
"""A file that says that the keeper knows of a process of the container's: csrc/cleanup.c."""
LOG_CHARACTERS = 1 << 20
"""What one container may bring into its keeper.log."""
PAUSE_SECONDS = 0.05
"""Between two looks at the ring, unless every call is traced."""
HOOK_SECONDS = 5.0
"""How long the hook may take to say what it has to say."""
HOOK_PATIENCE = 0.5
"""How long after a runtime's directory has gone its poststop hook may be still to come."""
RECORDS = ("state.json", "status")
"""What runc and crun write into their directory of a container once it is made."""
LINGER_SECONDS = 2.0
"""How long after its create a container may take to show that it was killed half way."""
REST_SECONDS = 1.0
"""With nothing to do for so long, the keeper of a container that runs gives its memory back."""
LAST_CALLS_SECONDS = 5.0
"""How long a worker may take to see that its container is gone."""
LISTENER_FDS = 8
"""Descriptors that a listener takes on its way in, at most, and with it the first one's policy."""


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(64)
    listener.settimeout(0)
    return listener


def _accept(listener: socket.socket | None) -> socket.socket | None:
    """Take one connection; None when it is gone again."""
    try:
        return listener.accept()[0] if listener is not None else None
    except OSError:
        return None


class Held(msgspec.Struct, frozen=True):
    """What the wrapper opened for the keeper, which owns it after the fork."""

    hook: socket.socket
    notify: socket.socket | None
    runtime_pidfd: int
    """Of the wrapper, which becomes the runtime."""
    lock: int
    """The flock on the state directory: held while the keeper lives."""
    trace: TraceFile | None

    def close(self) -> None:
        """Close it all, in the process that keeps nothing."""
        for file in (self.hook, self.notify, self.trace):
            if file is not None:
                file.close()
        os.close(self.runtime_pidfd)
        os.close(self.lock)


class Keeper:
    """The event loop of one container.  Owns its sockets, pidfds, ring and worker."""

    def __init__(self, charge: Charge, held: Held, clean: Callable[[str], None]) -> None:
        """Take over what the wrapper has opened."""
        self.charge = charge
        self.held = held
        self.trace = held.trace
        self.clean = clean
        self.selector = selectors.DefaultSelector()
        self.init_pid = 0
        self.init_pidfd = -1
        self.worker: Worker | None = None
        self.waiting: Worker | None = None
        """Started, and its container is still to come."""
        self.decides = False
        self.cover: tuple[bytes, ...] = ()
        self.protected: list[InodeRule] = []
        self.ring: Ring | None = None
        self.done = False
        self.room = LOG_CHARACTERS
        self.drained = 0.0
        self.limit = Limit()
        self.dropped = 0
        self.linger: float | None = None
        self.cgroups: list[str] = []
        self.view = -1
        """What tells that the view stands, while the hook waits for it; else -1."""
        self.recorded = False
        """The runtime had the container on record when its first process ended, or before."""
        self.programs = rest.pin()
        """None: it does not rest."""
        if self.trace is not None:
            # It will not rest either, and is not to import them from another version later.
            from eci_supervisor.observe import audit, calls  # noqa: F401, PLC0415 - heavy
            from eci_supervisor.supervisor import trace  # noqa: F401, PLC0415 - likewise
        self.second = -1
        """A pidfd of the process that goes on where this one is killed: csrc/second.c."""
        self._register(held.hook, self._accept_hook)
        if held.notify is not None:
            self._register(held.notify, self._accept_listener)
        self._register(held.runtime_pidfd, self._runtime_ended)

    @classmethod
    def resumed(cls, known: rest.Knowledge, clean: Callable[[str], None]) -> Keeper:
        """Return the keeper that has rested; its descriptors are open and its again."""
        held = Held(
            hook=rest.listening(known.hook),
            notify=None if known.notify is None else rest.listening(known.notify),
            runtime_pidfd=known.runtime_pidfd,
            lock=known.lock,
            trace=None if known.trace is None else TraceFile.of(known.charge.trace, known.trace),
        )
        keeper = cls(known.charge, held, clean)
        if not known.runtime_runs:
            keeper.selector.unregister(known.runtime_pidfd)
        keeper.init_pid, keeper.init_pidfd = known.init_pid, known.init_pidfd
        keeper.room = known.room
        keeper.cover, keeper.protected = known.cover, list(known.protected)
        keeper.cgroups = list(known.cgroups)
        keeper.limit, keeper.dropped = known.limit, known.dropped
        keeper.recorded, keeper.second = known.recorded, known.second
        keeper.ring = Ring(kept=(known.ring, known.ring_event))
        control = socket.socket(fileno=known.worker_control)
        keeper.worker = Worker(known.worker_pid, known.worker_pidfd, control)
        # A second is started before there is a policy.
        keeper.decides = known.decides or keeper.worker.has_policy()
        keeper._register(known.init_pidfd, keeper._init_ended)
        keeper._register(known.ring_event, keeper._drain)
        keeper._register(known.worker_control, keeper._hear_worker)
        if keeper.second >= 0:
            keeper._register(keeper.second, keeper._second_ended)
        return keeper

    def _register(self, what: int | socket.socket, call: Callable[[], None]) -> None:
        self.selector.register(what, selectors.EVENT_READ, call)

    def log(self, text: str) -> None:
        """One line into the container's keeper.log, while there is room; nothing fails here."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n"
        path = Path(self.charge.state_dir, LOG)
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(line)
        self.room -= len(line)

    def _open_log(self) -> int:
        path = os.path.join(self.charge.state_dir, LOG)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def run(self) -> None:
        """Serve until there is nothing left to keep."""
        while not self.done:
            # What came meanwhile will not wake us: after it the ring has to be asked again, and
            # whoever else waits has a turn in between.
            pending = self.ring is not None and not self.ring.sleep()
            if pending:
                self._drain()
            known = self._at_rest()
            patience = self.linger if known is None else REST_SECONDS
            ready = self.selector.select(0 if pending else patience)
            if not ready:
                if not pending and known is not None:
                    self._rest(known)
                elif not pending and self.linger is not None:
                    self._lingered()
                continue
            # One at a time: what it does can make the others void.
            key, _ = ready[0]
            key.data()

    def _at_rest(self) -> rest.Knowledge | None:
        """Return what is to be known while only that can come which needs no interpreter to wait.

        None while a create is under way or over only just, or a listener on its way in, or where
        every call is traced.
        """
        if self.programs is None or self.trace is not None or self.linger is not None:
            return None
        known = self._known()
        # To make a policy takes an interpreter.
        if known is None or not known.decides:
            return None
        return known if set(self.selector.get_map()) == set(known.waits_for()) else None

    def _known(self) -> rest.Knowledge | None:
        """Return what another process has to know that is to go on; None without a worker."""
        held = self.held
        if self.worker is None or self.ring is None:
            return None
        return rest.Knowledge(
            charge=self.charge,
            hook=held.hook.fileno(),
            notify=None if held.notify is None else held.notify.fileno(),
            runtime_pidfd=held.runtime_pidfd,
            runtime_runs=held.runtime_pidfd in self.selector.get_map(),
            lock=held.lock,
            init_pid=self.init_pid,
            init_pidfd=self.init_pidfd,
            worker_pid=self.worker.pid,
            worker_pidfd=self.worker.pidfd,
            worker_control=self.worker.control,
            ring=self.ring.fd,
            ring_event=self.ring.event_fd,
            decides=self.decides,
            cover=self.cover,
            protected=tuple(self.protected),
            room=self.room,
            cgroups=tuple(self.cgroups),
            limit=self.limit,
            dropped=self.dropped,
            recorded=self.recorded,
            trace=None if self.trace is None else self.trace.fileno(),
            second=self.second,
        )

    def have_second(self) -> None:
        """Start the second, if there is none; without one the container is kept all the same."""
        if self.second >= 0:
            return
        known = self._known()
        if known is None or self.programs is None:
            return
        try:
            log = os.path.join(self.charge.state_dir, LOG)
            self.second = rest.second(known, log, self.programs)
        except OSError as error:
            self.log(f"the keeper has no second: {rest.PROGRAM}: {error.strerror}")
            return
        self._register(self.second, self._second_ended)

    def _second_ended(self) -> None:
        self.dismiss_second()
        self.have_second()

    def dismiss_second(self) -> None:
        """End it, or see it off where it has ended: nothing is to be kept any more."""
        if self.second < 0:
            return
        self.selector.unregister(self.second)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.second, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.second, os.WEXITED)
        os.close(self.second)
        self.second = -1

    def _rest(self, known: rest.Knowledge) -> None:
        """Become the waiting program; returns only where that cannot be."""
        if self.programs is None:
            return
        # The end of the container need not bring us back.
        self._tell_left_out()
        try:
            rest.become(known, os.path.join(self.charge.state_dir, LOG), self.programs)
        except OSError as error:
            self.log(f"the keeper does not rest: {rest.PROGRAM}: {error.strerror}")
            self.programs = None

    # -- the hook ---------------------------------------------------------------------------

    def _accept_hook(self) -> None:
        connection = _accept(self.held.hook)
        if connection is None:
            return
        with connection:
            connection.settimeout(HOOK_SECONDS)
            try:
                check_peer(connection)
                self._hook(connection)
                answer = "ok\n"
            except (OSError, ValueError, IntakeError, WorkerError) as error:
                answer = f"the supervisor refuses the container: {error}\n"
                self.log(answer.rstrip())
            try:
                connection.sendall(answer.encode())
            except OSError as error:
                self.log(f"the hook did not wait for the answer: {error}")

    def _hook(self, connection: socket.socket) -> None:
        data = bytearray()
        while chunk := connection.recv(65536):
            data += chunk
            if len(data) > MAX_BYTES:
                raise IntakeError(f"the hook says more than {MAX_BYTES} bytes")
        state = hook_state(bytes(data))
        if state.id != self.charge.container_id:
            raise IntakeError(f"the hook speaks of container {state.id!r}")
        if not self._container_exists():
            # Whether the container is still there is judged by it; a wrong guess would end it.
            msg = f"{self.charge.runtime} keeps no state of it in {self.charge.runtime_root}"
            raise ValueError(f"{msg}: name the directory with --root")
        self._meet()
        pid = state.pid
        self.init_pidfd = os.pidfd_open(pid)
        self.init_pid = pid
        self._register(self.init_pidfd, self._init_ended)
        try:
            self._supervise(pid)
        finally:
            # Also where the container is refused: whoever clears up has to find it.
            self._have_view()

    def _supervise(self, pid: int) -> None:
        if not self.charge.supervised:
            self._on_the_way()
            return
        path = Path(self.charge.state_dir, COVER)
        self.cover = tuple(path.read_bytes().split(b"\0")[:-1])
        self._send_worker(pid, self._on_the_way)
        self.have_second()
        self._see_room()

    def _on_the_way(self) -> None:
        """Do what else the container needs before it goes on."""
        if self.charge.engine_rootfs is not None:
            # The engine may look as soon as the container is made: begun here, it comes up while
            # the rest is done.
            self._begin_view(
                self.charge.engine_rootfs,
                lambda: view.staged(self.held.runtime_pidfd, self.charge.state_dir),
            )
        self.cgroups = cgroups.delegate(self.init_pid, self.charge.base, self.charge.base)

    @staticmethod
    def _see_room() -> None:
        """Raise OSError where a listener could not be taken: later, the create has succeeded."""
        with contextlib.ExitStack() as opened:
            for _ in range(LISTENER_FDS):
                opened.callback(os.close, os.eventfd(0, os.EFD_CLOEXEC))

    def _meet(self) -> None:
        path = os.path.join(self.charge.state_dir, MET)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    # -- listeners --------------------------------------------------------------------------

    def _accept_listener(self) -> None:
        accepted = _accept(self.held.notify)
        if accepted is None:
            return
        accepted.settimeout(0)
        connection = Connection(accepted)
        try:
            check_peer(accepted)
        except IntakeError as error:
            self.log(f"listener refused: {error}")
            connection.close()
            return
        # Never wait for one connection: crun connects early and sends late.
        self._register(accepted, lambda: self._feed(connection))

    def _feed(self, connection: Connection) -> None:
        try:
            state = connection.feed()
            if state is None:
                return
            self._take(connection, state)
        except (OSError, ValueError, IntakeError, WorkerError) as error:
            # The fd is dropped with the connection: calls of these threads are denied.
            self.log(f"listener refused: {error}")
            self._stop_unsupervised()
        self.selector.unregister(connection.socket)
        connection.close()

    def _take(self, connection: Connection, state: ProcessState) -> None:
        listener = connection.listener(state, self.charge.container_id)
        try:
            if self.worker is None:
                # No hook has run: the runtime has made the mounts of another time (restore).
                self._meet()
                self._send_worker(state.pid)
                self.have_second()
            if self.worker is not None:
                self._serve(self.worker, listener)
        finally:
            os.close(listener)

    def _serve(self, worker: Worker, listener: int) -> None:
        if not self.decides:
            # The worker's table: the container may run already, and have changed its root.
            mounts = mountinfo.read(f"/proc/{worker.pid}/mountinfo")
            policy = compile_policy(mounts, self.charge, self.cover, self.protected)
            worker.decide_by(policy)
            self.decides = True
        worker.serve(listener)

    def _stop_unsupervised(self) -> None:
        """Without a worker the container would run and every mount in it fail: stop it instead."""
        if not self.decides and self._init_alive():
            self.log("the container is stopped, because its supervisor could not start")
            self._kill_init()

    def get_ready(self) -> None:
        """Start what the container will need, while the runtime is busy making it.

        What fails here is tried once more when the container is there, and fails it then.
        """
        if self.charge.supervised:
            with contextlib.suppress(OSError):
                self._start_worker()

    def _start_worker(self) -> Worker:
        self.ring = Ring()
        watched = watch.create(self.charge.state_dir)
        errors = self._open_log()
        try:
            room = Room(self.charge.state_dir, self.charge.nonce, self.charge.mount_memory)
            try:
                self.waiting = Worker.start(self.ring, errors, watched, room)
            finally:
                room.close()
        finally:
            os.close(errors)
            os.close(watched)
        return self.waiting

    def _send_worker(self, pid: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Have it enter the container, whose first process is `pid`."""
        worker = self.waiting or self._start_worker()
        self.waiting = None
        self.protected = list(self.charge.protected)
        if self.charge.hooks_meddle:
            self.protected = protected_rules(self.charge.host_paths)
        worker.enter(pid, self.cover, meanwhile)
        self.worker = worker
        if self.ring is not None:
            self._register(self.ring.event_fd, self._drain_in_time)
        self._register(worker.control, self._hear_worker)

    # -- events -----------------------------------------------------------------------------

    def _drain_in_time(self) -> None:
        """Refusals come as fast as a container likes; what they may cost is bounded.

        The ring counts what it has to drop meanwhile.
        """
        if self.trace is None:
            time.sleep(max(0.0, self.drained + PAUSE_SECONDS - time.monotonic()))
            self.drained = time.monotonic()
        self._drain()

    def _drain(self) -> None:
        if self.ring is None:
            return
        for event in self.ring.drain():
            try:
                self._report(event)
            except Exception as error:  # noqa: BLE001 - its modules may be another version's by now
                self.log(f"a refusal is not told: {error!r}")
        if self.ring.dropped:
            # Of these the worker has counted the refusals: a trace is more than that.
            known = watch.read_counts(f"{self.charge.state_dir}/{watch.FILE}") or watch.NONE
            self.limit.left_out += max(0, known.dropped - self.dropped)
            self.dropped = max(known.dropped, self.dropped)

    def _audit(self, event: Event) -> str:
        """Put a refusal into the audit log; returns its name there, if it has got one."""
        if not self.limit.allows(time.monotonic()):
            return ""
        from eci_supervisor.observe import calls  # noqa: PLC0415 - as below

        charge = self.charge
        image = charge.image or engine.recorded_image(charge.engine_record)
        record = calls.record_of(event, charge.container_id, image)
        return record.id if self._write(record) else ""

    def _write(self, record: Record) -> bool:
        from eci_supervisor.observe import audit  # noqa: PLC0415 - as below

        problem = audit.write_of(record, self.limit)
        if problem is not None:
            self.log(f"not in the audit log: {problem}")
        return problem is None

    def _tell_left_out(self) -> None:
        """Say in the audit log how many refusals are not in it."""
        if not self.limit.left_out:
            return
        from eci_supervisor.observe import audit  # noqa: PLC0415 - as below

        self._write(audit.left_out(self.charge.container_id))

    def _report(self, event: Event) -> None:
        name = self._audit(event) if refuses(event.reason) else ""
        if self.trace is None and self.room <= 0:
            return
        # Imported when there is something to tell: most containers have no events.
        from eci_supervisor.supervisor import trace  # noqa: PLC0415

        text = trace.line(self.charge.container_id, event)
        if self.trace is None:
            self.log(f"{text} {name}".rstrip())
            return
        try:
            self.trace.write(text)
        except OSError:
            self.trace = None

    # -- ends -------------------------------------------------------------------------------

    def _container_exists(self) -> bool:
        return Path(self.charge.runtime_root, self.charge.container_id).exists()

    def _is_recorded(self) -> bool:
        """Say whether the runtime has written down the container, so that a delete runs hooks."""
        directory = Path(self.charge.runtime_root, self.charge.container_id)
        return any((directory / name).exists() for name in RECORDS)

    def _holds_state(self) -> bool:
        """Say whether the state directory is still this container's: its lock file has a name."""
        return os.fstat(self.held.lock).st_nlink > 0

    def _init_alive(self) -> bool:
        return self.init_pidfd >= 0 and self.init_pidfd in self.selector.get_map()

    def _runtime_ended(self) -> None:
        """`create` returned, `run` is over, or somebody killed it."""
        self.recorded = self.recorded or self._is_recorded()
        self.selector.unregister(self.held.runtime_pidfd)
        if not self._init_alive():
            self._finish()
            return
        rootfs = self.charge.engine_rootfs
        if rootfs and self._container_exists() and not view.is_begun(self.charge.state_dir):
            # No hook has run (restore), and the stage is gone.
            self._begin_view(rootfs, lambda: view.Root.open(self.init_pid))
            self._have_view()
        self.linger = LINGER_SECONDS

    def _lingered(self) -> None:
        """Tell a create that went well from one that was killed half way."""
        self.linger = None
        if not self._container_exists():
            # Nobody knows of this first process any more; what remains of it ends here.
            self.log("the runtime was killed before the container was made: it is removed")
            self._kill_init()
        elif not self.charge.supervised:
            self.done = True

    def _kill_init(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.init_pidfd, signal.SIGKILL)

    def _begin_view(self, rootfs: str, root_of: Callable[[], view.Root]) -> None:
        try:
            root = root_of()
            errors = self._open_log()
            try:
                self.view = view.begin(self.charge, rootfs, errors, root)
            finally:
                os.close(errors)
                root.close()
        except OSError as error:
            self._tell_of_no_view(error)

    def _have_view(self) -> None:
        """Wait for the view that was begun; without one the container goes on all the same."""
        if self.view < 0:
            return
        begun, self.view = self.view, -1
        try:
            view.finish(begun)
        except (OSError, view.ViewError) as error:
            self._tell_of_no_view(error)

    def _tell_of_no_view(self, why: Exception) -> None:
        self.log(f"the engine's view of the files stays read-only: {why}")

    def _init_ended(self) -> None:
        """Nothing of the container runs any more; `run` has still to delete it."""
        self.recorded = self.recorded or self._is_recorded()
        self.selector.unregister(self.init_pidfd)
        self._see_off()
        if self.held.runtime_pidfd not in self.selector.get_map():
            self._finish()
        else:
            # Whoever clears up may go ahead: `delete` waits for this lock.
            fcntl.flock(self.held.lock, fcntl.LOCK_UN)

    def _hear_worker(self) -> None:
        if self.worker is None:
            return
        if said := self.worker.hear():
            if said == HELD:
                self.log("the holder of the worker was killed: there is another one")
            return
        self.selector.unregister(self.worker.control)
        if self._init_alive():
            how = self.worker.ending()
            self.log(f"the worker ended before the container: {how}")
            self.log("mount calls are denied from here on")

    def _see_off(self) -> None:
        """Take the last events and let the worker end."""
        if self.waiting is not None:
            self.waiting.stop()
            self.waiting = None
        if self.worker is not None:
            if self.worker.control in self.selector.get_map():
                self.selector.unregister(self.worker.control)
            if not self.worker.finish(LAST_CALLS_SECONDS):
                self.worker.stop()
            self.worker = None
        self._drain()
        self._tell_left_out()
        if self.trace is not None:
            self.trace.close()
            self.trace = None

    def _make_room(self) -> None:
        """Close what clearing up has no use for: it needs descriptors, and there may be no more.

        The lock stays, and so does the second, which clears up where this process is killed.
        """
        for file in (self.held.hook, self.held.notify, self.ring):
            if file is not None:
                file.close()
        self.ring = None
        programs, self.programs = self.programs, None
        pinned = () if programs is None else (programs.keeper, programs.cleanup)
        for fd in (self.held.runtime_pidfd, self.init_pidfd, *pinned):
            if fd >= 0:
                os.close(fd)

    def _finish(self) -> None:
        """The last step; clear up, unless a `delete` is still to come.

        Its poststop hook does it then.  crun runs hooks in the bundle's directory, and dies of
        SIGPIPE when that is gone.
        """
        self._see_off()
        if self.recorded:
            # Whoever deletes may go ahead: first the runtime's directory goes, then comes the hook.
            fcntl.flock(self.held.lock, fcntl.LOCK_UN)
            deadline = time.monotonic() + LINGER_SECONDS
            gone = 0.0
            while self._holds_state() and time.monotonic() < deadline and gone < HOOK_PATIENCE:
                gone = 0.0 if self._container_exists() else gone + PAUSE_SECONDS
                time.sleep(PAUSE_SECONDS)
            left = self._holds_state() and gone > 0
        else:
            left = self._holds_state()
        if left:
            self._make_room()
            # A runtime that was killed half way has not always written down where they are.  Of a
            # first process that died while the hook ran, its entry in procfs does not say either.
            named = cgroups.directories(self.charge.cgroups_path)
            cgroups.remove(list(dict.fromkeys([*self.cgroups, *named])))
            self.clean(self.charge.state_dir)
        # Whoever has cleared up may have done so while we got ready.
        memory.remove(self.charge.state_dir, self.charge.nonce)
        self.done = True


def keep(keeper: Keeper) -> None:
    """Run it to its end; what stops it before that stands in its log."""
    gc.enable()  # start.py turned it off
    set_name("eci-keeper")
    try:
        keeper.run()
        keeper.dismiss_second()
    except BaseException as error:
        keeper.log(f"the keeper stops: {error!r}")
        raise


def hold(charge: Charge, pid: int) -> Held:
    """Open what the keeper of `charge` needs; its sockets listen then.

    `pid`: of the process that becomes the runtime.  Must run in the host's mount namespace, before
    the wrapper makes one of its own.  The state directory is locked for as long as the keeper
    lives.  OSError when the sockets or the trace file cannot be made.
    """
    path = charge.state_dir
    lock = os.open(f"{path}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holding.hold(lock)  # for those who only want to know
    return Held(
        hook=_listen(f"{path}/{HOOK_SOCKET}"),
        notify=_listen(f"{path}/{NOTIFY_SOCKET}") if charge.supervised else None,
        runtime_pidfd=os.pidfd_open(pid),
        lock=lock,
        trace=TraceFile.of(charge.trace),
    )
