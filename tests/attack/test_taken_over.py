"""A process of ours that an attacker has taken over makes system calls of his choice.

The test has it make them by ptrace(2), with the process's own memory, descriptors and rights.  It
is the worker, or the proxy of a restricted socket.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind
from tests.support.filters import filters_of
from tests.support.inject import KilledError, call
from tests.support.privileges import DENIED, KILL_PROCESS, OTHERS, actions, parent_of
from tests.support.restricted import Restricted
from tests.support.waiting import wait_until
from tests.support.worker import holder_of, worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Container, Containers
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

OPENAT, CLOSE, EXECVE, SOCKET, MMAP, MPROTECT = 257, 3, 59, 41, 9, 10
CONNECT, MKDIR, RENAME, UNLINK = 42, 83, 82, 87
CAPSET, UNSHARE, SETNS, CLONE = 126, 272, 308, 56
CLONE_NEWUSER = 0x10000000
PROT_RWX = 7
PRIVATE_ANONYMOUS = 0x22
O_PATH = 0o10000000
O_MAKE = os.O_CREAT | os.O_WRONLY
MOUNT = "mount none /mnt tmpfs - -".split()


@pytest.fixture
def box(containers: Containers, place: Place) -> Container:
    """A container with masks and a read-only volume."""
    one = containers.start(bind(place.directory("v"), "/vol", "ro"), privileged=False)
    # Its filter comes on once the container has been told to go on.
    assert one.run("mnt", *MOUNT) == ["0"]
    return one


def test_no_descriptor_leads_to_the_files_of_the_host(box: Container, place: Place) -> None:
    mark = place.root / "mark"
    mark.touch()
    worker = worker_of(box.pid)
    up = "../" * 40
    paths = [str(mark), f"{up}{mark}", f"self/root/{mark}", f"self/cwd/{up}{mark}", f"1/root{mark}"]
    for fd in (-100, *map(int, os.listdir(f"/proc/{worker}/fd"))):
        for path in paths:
            answer = call(worker, OPENAT, fd, path.encode(), O_PATH)
            allowed = {-errno.ENOENT, -errno.ENOTDIR, -errno.EACCES, -errno.EBADF, -errno.EPERM}
            assert answer in allowed, (fd, path)


def test_no_other_process_of_the_host_is_to_be_had(box: Container) -> None:
    """Neither its memory nor its namespaces, nor can it be signalled."""
    worker = worker_of(box.pid)
    keeper = parent_of(holder_of(box.pid))
    for pid in (keeper, os.getpid(), 1):
        pidfd = call(worker, 434, pid, 0)  # pidfd_open
        assert pidfd >= 0
        assert call(worker, 438, pidfd, 0, 0) == -errno.EPERM  # pidfd_getfd
        assert call(worker, SETNS, pidfd, 0x20000) == -errno.EPERM  # CLONE_NEWNS
        for path in (f"{pid}/root/.", f"{pid}/fd/0", f"{pid}/ns/mnt"):
            for fd in map(int, os.listdir(f"/proc/{worker}/fd")):
                assert call(worker, OPENAT, fd, path.encode(), O_PATH) < 0
        call(worker, CLOSE, pidfd)


def test_capabilities_count_in_the_container_alone(box: Container) -> None:
    """It has all of them there, as a caller may, and what it takes makes them no more than that."""
    worker = worker_of(box.pid)
    header = (0x20080522).to_bytes(4, "little") + bytes(4)
    everything = b"\xff" * 8 + bytes(4) + b"\xff" * 8 + bytes(4)
    assert call(worker, CAPSET, header, everything) == 0
    mine, its, theirs = (os.readlink(f"/proc/{pid}/ns/user") for pid in ("self", worker, box.pid))
    assert its == theirs != mine


def test_what_is_not_on_the_list_kills(box: Container) -> None:
    """As its filter has it, which is asked, and not tried: of all that it might like to do."""
    filters = filters_of(worker_of(box.pid))
    calls: list[tuple[int, ...]] = [(number,) for number in DENIED.values()]
    calls += [one for name, one in OTHERS.items() if name not in {"clone", "mount", "setns"}]
    calls += [
        (MMAP, 0, 4096, PROT_RWX, PRIVATE_ANONYMOUS),
        (MPROTECT, 0, 4096, 5),
        (UNSHARE, CLONE_NEWUSER),
        (CLONE, CLONE_NEWUSER | signal.SIGCHLD),
        (435,),  # clone3, below
        (42,),  # connect
        (49,),  # bind
        (0x40000000 | OPENAT,),  # of x32
    ]
    told = {one: actions(filters, *one) for one in calls}
    enosys = told.pop((435,))
    assert {one for one, action in told.items() if action != KILL_PROCESS} == set()
    assert enosys == 0x00050000  # SECCOMP_RET_ERRNO: glibc then takes clone


@pytest.mark.parametrize(
    "words",
    [
        (EXECVE, b"/bin/sh\0", 0, 0),
        (SOCKET, 2, 1, 0),
        (MMAP, 0, 4096, PROT_RWX, PRIVATE_ANONYMOUS, -1, 0),
    ],
    ids=["execve", "socket", "mmap"],
)
def test_it_is_killed_and_the_container_gains_nothing(
    box: Container, place: Place, words: tuple[int | bytes, ...]
) -> None:
    worker = worker_of(box.pid)
    number, *args = words
    assert isinstance(number, int)
    with pytest.raises(KilledError) as killed:
        call(worker, number, *args)
    assert killed.value.signal == signal.SIGSYS
    assert Path(f"/proc/{box.pid}").exists()
    (log,) = place.state_dir.glob(f"containers/{box.name}-*/keeper.log")
    wait_until(lambda: f"killed by signal {signal.SIGSYS:d}" in log.read_text(), "not said")
    # The next one goes on by the same policy, and under the same filter.
    assert box.run("mnt", *"mount - /vol - MS_REMOUNT|MS_BIND -".split()) == ["EPERM"]
    assert box.run("mnt", *MOUNT) == ["0"]
    assert actions(filters_of(worker_of(box.pid)), EXECVE) == KILL_PROCESS


@pytest.fixture
def proxy(place: Place) -> Iterator[Restricted]:
    """The proxy of a restricted socket, which has answered once."""
    one = Restricted(place, place.root / "no-engine.sock")
    try:
        assert one.ask("GET", "/_ping").status == 502
        yield one
    finally:
        one.close()


def test_a_proxy_has_no_file_of_the_host(proxy: Restricted, place: Place) -> None:
    """Although it is root and may override permissions."""
    mark, new = place.root / "mark", place.root / "new"
    mark.touch()
    at, made = (os.fsencode(path) for path in (mark, new))
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        assert call(proxy.pid, OPENAT, -100, at, flags) == -errno.EACCES
    assert call(proxy.pid, OPENAT, -100, made, O_MAKE, 0o600) == -errno.EACCES
    assert call(proxy.pid, MKDIR, made, 0o700) == -errno.EACCES
    assert call(proxy.pid, RENAME, at, made) == -errno.EACCES
    assert call(proxy.pid, UNLINK, at) == -errno.EACCES
    assert call(proxy.pid, OPENAT, -100, b"/", os.O_DIRECTORY) == -errno.EACCES
    # What it has to write it can.
    log = os.fsencode(place.log_dir / "tried")
    fd = call(proxy.pid, OPENAT, -100, log, O_MAKE, 0o600)
    assert fd >= 0
    assert call(proxy.pid, CLOSE, fd) == call(proxy.pid, UNLINK, log) == 0


def test_a_proxy_reaches_no_abstract_socket(proxy: Restricted) -> None:
    """Shims of containerd listened on such ones (CVE-2020-15257)."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        name = listener.getsockname()
        address = struct.pack("=H", socket.AF_UNIX) + name
        fd = call(proxy.pid, SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, 0)
        assert fd >= 0
        assert call(proxy.pid, CONNECT, fd, address, len(address)) == -errno.EPERM
        assert call(proxy.pid, CLOSE, fd) == 0
