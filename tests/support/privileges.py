"""The privileges of a process: as ARCHITECTURE.md has them, and as the kernel has."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eci_supervisor.kernel import syscalls
from tests.support.children import in_child
from tests.support.filters import ALLOW, ERRNO, X86_64, filters_of, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.filters import Step

DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
HEADING = "## Privileges"
CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()
"""By number: <linux/capability.h>."""
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
KILL_PROCESS = 0x80000000
DENIED = {
    "acct": 163, "add_key": 248, "bpf": 321, "io_uring_setup": 425, "kexec_load": 246,
    "init_module": 175, "keyctl": 250, "open_by_handle_at": 304, "perf_event_open": 298,
    "process_vm_writev": 311, "ptrace": 101, "reboot": 169, "userfaultfd": 323,
}  # fmt: skip
"""What nobody of ours needs who has a filter; name -> number on x86-64."""
OTHERS: dict[str, tuple[int, ...]] = {
    "clone": (56, 17), "execve": (59,), "execveat": (322,), "fork": (57,), "kill": (62,),
    "mount": (165,), "prctl": (157,), "setns": (308,), "setresuid": (117,), "socket": (41, 2),
    "unshare": (272, 0x10000000), "vfork": (58,),
}  # fmt: skip
"""What some of them need; name -> number and first argument: a new process, one to the network, a
user namespace."""
_PROCFS = 0x9FA0
_KINDS = (
    (r"/dev/null", "null"),
    (r"/dev/fuse", "fuse"),
    (r"socket:.*", "socket"),
    (r"pipe:.*", "pipe"),
    (r"anon_inode:\[?(eventfd|eventpoll|pidfd|signalfd)\]?", r"\1"),
    (r"anon_inode:seccomp notify", "listener"),
    (r"pidfd:.*", "pidfd"),
    (r"/memfd:.*", "memfd"),
    (r"(user|mnt|net|ipc|uts|pid|cgroup):.*", "namespace"),
    (r".*/keeper\.log", "log"),
    (r"/sys/fs/cgroup/.*", "cgroup"),
)


class Row(NamedTuple):
    """What the table says of a process; the order is the table's."""

    process: str
    user: str
    capabilities: frozenset[str]
    most: frozenset[str]
    """Permitted, and in the bounding set."""
    filter: str
    """`kills`, `refuses`, `refuses some` or `-`."""
    needs: frozenset[str]
    """What of OTHERS the filter lets through."""
    files: str
    memory: str
    namespaces: frozenset[str]
    descriptors: frozenset[str]
    """Their kinds; one in parentheses may be there or not."""


def _words(cell: str) -> frozenset[str]:
    if cell == "every":
        return frozenset(CAPABILITIES)
    return frozenset(cell.split()) - {"-", "none"}


def table(text: str | None = None) -> dict[str, Row]:
    """Read the document's table; process -> row."""
    section = (text or DOCUMENT.read_text()).partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = {}
    for line in lines[2:]:
        process, user, now, most, kind, needs, files, memory, spaces, fds = (
            cell.strip().replace("`", "") for cell in line.strip("|").split("|")
        )
        now_set = _words(now)
        most_set = now_set if most == "the same" else _words(most)
        rows[process] = Row(
            process, user, now_set, most_set, kind, _words(needs), files, memory, _words(spaces),
            _words(fds),
        )  # fmt: skip
    return rows


def status_of(pid: int) -> dict[str, str]:
    """Return /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def parent_of(pid: int) -> int:
    """Return a process's parent."""
    return int(status_of(pid)["PPid"])


def names(mask: str) -> frozenset[str]:
    """Return the capabilities in a line of status."""
    bits = int(mask, 16)
    return frozenset(name for number, name in enumerate(CAPABILITIES) if bits >> number & 1)


def limit(pid: int, name: str) -> tuple[str, str]:
    """Return a limit, soft and hard, as /proc/PID/limits has it."""
    text = Path(f"/proc/{pid}/limits").read_text()
    found = re.search(rf"^Max {name} +(\S+) +(\S+)", text, re.MULTILINE)
    assert found
    return found[1], found[2]


def foreign_namespaces(pid: int, engine: int) -> frozenset[str]:
    """Return which of its namespaces are not those of the process `engine`."""
    return frozenset(
        name
        for name in NAMESPACES
        if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/{engine}/ns/{name}")
    )


def _f_type(path: str) -> int:
    buffer = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None, use_errno=True).statfs(path.encode(), buffer) < 0:
        return 0
    return int(struct.unpack_from("=q", buffer.raw)[0])


def _kind(pid: int, fd: str, state: str) -> str:
    path = f"/proc/{pid}/fd/{fd}"
    link = os.readlink(path)
    for pattern, name in _KINDS:
        if found := re.fullmatch(pattern, link.removesuffix(" (deleted)")):
            return found.expand(name)
    if _f_type(path) == _PROCFS:
        return "procfs"
    if link.startswith(state):
        return "state"
    return "directory" if stat.S_ISDIR(os.stat(path).st_mode) else "file"


def kinds_of_descriptors(pid: int, state: str) -> frozenset[str]:
    """Return the kinds of what it has open; `state`: the state directory."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(_kind(pid, fd, state))
    return frozenset(found)


def is_hidden(pid: int) -> bool:
    """Say whether nobody without CAP_SYS_PTRACE may look at a process, whatever else he has.

    Of a process that itself may have that capability this says nothing.
    """

    def look() -> None:
        kept = [n for n in range(len(CAPABILITIES)) if n != syscalls.CAP_SYS_PTRACE]
        syscalls.renounce(*kept)
        try:
            os.readlink(f"/proc/{pid}/cwd")
        except PermissionError:
            return
        raise AssertionError("it can be looked at")

    try:
        in_child(look)
    except AssertionError:
        return False
    return True


def actions(filters: Iterable[list[Step]], number: int, *args: int) -> int:
    """Return what all filters together say of a call: the least action, as a signed number."""
    found = [verdict(one, X86_64, number, args) for one in filters]
    return min(found, key=lambda action: action - (action >> 31 << 32))


def differences(row: Row, pid: int, state: str, engine: int | None = None) -> list[str]:
    """Compare a real process with the table; one line for each difference.

    `engine`: a process in the namespaces that are the host's for it; none: this one.
    """
    status = status_of(pid)
    filters = [] if row.filter == "-" else filters_of(pid)
    files = limit(pid, "open files")
    wanted = {
        "CapEff": row.capabilities,
        "CapPrm": row.most,
        "CapBnd": row.most,
        "CapInh": frozenset[str](),
        "CapAmb": frozenset[str](),
    }
    found: list[tuple[str, object, object]] = [
        (name, names(status[name]), value) for name, value in wanted.items()
    ]
    found += [
        ("NoNewPrivs", status["NoNewPrivs"], "1"),
        ("Seccomp", status["Seccomp"], "0" if row.filter == "-" else "2"),
        ("core", limit(pid, "core file size"), ("0", "0")),
        ("files", files, files if row.files == "-" else (row.files, row.files)),
        ("memory", row.memory, _memory(pid, row.memory)),
        ("namespaces", foreign_namespaces(pid, engine or os.getpid()), row.namespaces),
        ("descriptors", *_descriptors(pid, state, row.descriptors)),
    ]
    if row.filter != "-":
        other = KILL_PROCESS if row.filter == "kills" else ERRNO
        found += [(name, actions(filters, number), other) for name, number in DENIED.items()]
        let = {name for name, call in OTHERS.items() if actions(filters, *call) == ALLOW}
        found.append(("needs", let, set(OTHERS) if row.needs == {"all"} else row.needs))
    return [f"{row.process}: {name}: {is_} and not {be}" for name, is_, be in found if is_ != be]


def _descriptors(
    pid: int, state: str, cell: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return which kinds there are, and are to be, but for those that may be there or not."""
    optional = {word.strip("()") for word in cell if word.startswith("(")}
    certain = frozenset(word for word in cell if not word.startswith("("))
    return kinds_of_descriptors(pid, state) - optional, certain


def _memory(pid: int, cell: str) -> str:
    """Return the limit in the table's words."""
    if cell == "-":
        return cell
    name = "data size" if cell.endswith(" of data") else "address space"
    _, hard = limit(pid, name)
    number, unit, *rest = cell.split()
    size = int(number) << {"MiB": 20, "GiB": 30}[unit]
    return cell if hard == str(size) else f"{hard} bytes {' '.join(rest)}".strip()
