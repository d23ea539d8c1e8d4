"""The audit log: one line of JSON for each refusal and each change of the policy.

    /var/log/eci/audit.log    0600, and audit.log.1 ... audit.log.4 when it has grown over 16 MiB

A line goes out in one write(2) on a file that is opened for it, so that lines of several processes
do not mix and whoever rotates the log need not tell anybody.  The same goes to the journal, or to
syslog where there is none.  Nothing here waits, and nothing fails: a container must not, because a
disk is full.  What could not be written of a container is counted, and told by the next line that
can be.

All text is plain ASCII: what came out of a container is escaped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from eci_supervisor.observe.ids import new_id
from eci_supervisor.policy.refusals import text_of

if TYPE_CHECKING:
    from eci_supervisor.observe.limit import Limit

DIRECTORY = "/var/log/eci"
"""Unless ECI_LOG_DIR in the environment of the engine names another."""
NAME = "audit.log"
LINE = 4096
"""Bytes that a line has at most, with its end: PIPE_BUF."""
SIZE = 16 << 20
"""Bytes from which on a log is put away."""
KEPT = 4
"""How many logs are kept that were put away: so all of it stays under 81 MiB."""
JOURNAL = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"
SWITCH = "ECI_SYSLOG"
"""Environment; 0: neither journal nor syslog.  Else the path of a socket like syslog's."""
_PRIORITY = 5  # notice
_FACILITY = 10  # authpriv
_SHORT = 64
"""No text of a line is cut to less."""


class Thing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a path of a refused call turned out to be."""

    path: str
    """As the caller sees it, escaped; cut, and empty where it is not known."""
    device: str
    """`major:minor`, decimal."""
    inode: int
    mount: int
    """Unique id of the mount: statmount(2)."""


class Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One line.  Texts are escaped, and cut where the line would be too long."""

    time: str
    """ISO 8601, UTC."""
    id: str
    """Name of this record: `ids.new_id`."""
    event: str
    """`refusal`, `left-out` (see `left_out`) or `policy-change`."""
    of: str = ""
    """What was refused: `call`, `container` or `command`."""
    reason: str = ""
    """Its code: `policy.refusals`."""
    container: str = ""
    image: str = ""
    pid: int = 0
    """The thread that called, in the host's PID namespace; of a command, who asked."""
    comm: str = ""
    call: str = ""
    """The call with its arguments, as strace writes it; or the command."""
    result: str = ""
    source: Thing | None = None
    target: Thing | None = None
    message: str = ""
    """What the engine's user was told."""
    rule: str = ""
    setting: str = ""
    """The key that would allow it; none: nothing does."""
    settings: str = ""
    """Of a policy change: the file, and ..."""
    sha256: str = ""
    """... the sum over the settings in force, and ..."""
    before: str = ""
    """... over those that were before; empty: none since the host was started."""
    changed: tuple[str, ...] = ()
    """... and which keys differ."""
    left_out: int = 0
    """How many refusals of this container were not written since the last line about it."""


def directory() -> str:
    """Return where the log lies."""
    return os.environ.get("ECI_LOG_DIR") or DIRECTORY


def printable(text: str) -> str:
    """Return `text` in printable ASCII: nothing of a container reaches a terminal.  Pure."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in plain)


def stamp(time_ns: int) -> str:
    """Return a time in nanoseconds since the epoch as records have it.  Pure."""
    when = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}Z"


def _cut(record: Record) -> bool:
    """Cut the longest text of `record` by half; False where there is none to cut."""
    fields = ("call", "message", "image", "settings", "container")
    texts = {name: getattr(record, name) for name in fields}
    name = max(texts, key=lambda name: len(texts[name]))
    if len(texts[name]) <= _SHORT:
        return False
    setattr(record, name, texts[name][: len(texts[name]) // 2] + "...")
    return True


def line_of(record: Record) -> bytes:
    """Return the line of a record, with its end; at most LINE bytes.  Pure, but for cuts in it."""
    while len(line := msgspec.json.encode(record) + b"\n") > LINE:
        if not _cut(record):
            record.changed = ()
            record.source = record.target = None
    return line


def _put_away(folder: int, path: str) -> None:
    """Begin a new log; whoever comes second finds that it has been done."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_size < SIZE:
            return
        for number in range(KEPT - 1, 0, -1):
            if os.path.lexists(f"{path}.{number}"):
                os.rename(f"{path}.{number}", f"{path}.{number + 1}")
        os.rename(path, f"{path}.1")
    except OSError:
        return  # somebody else does it now


def _append(line: bytes) -> None:
    """Add a line to the file; OSError where there is no room for all of it."""
    where = directory()
    os.makedirs(where, mode=0o700, exist_ok=True)
    path = f"{where}/{NAME}"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size >= SIZE:
            folder = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _put_away(folder, path)
            finally:
                os.close(folder)
            os.close(fd)
            fd = os.open(path, flags, 0o600)
            size = os.fstat(fd).st_size
        # A disk that was full may have taken half a line.
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _send(record: Record, line: bytes) -> None:
    """Tell the journal, or syslog.  OSError where there is neither, or it is busy."""
    chosen = os.environ.get(SWITCH, "")
    if chosen == "0":
        return
    text = line.rstrip(b"\n")
    native = not chosen and os.path.exists(JOURNAL)
    if native:
        fields = {
            "MESSAGE": text.decode("ascii"),
            "PRIORITY": str(_PRIORITY),
            "SYSLOG_FACILITY": str(_FACILITY),
            "SYSLOG_IDENTIFIER": "eci",
            "ECI_ID": record.id,
            "ECI_EVENT": record.event,
            "ECI_REASON": record.reason,
            "ECI_CONTAINER": record.container,
        }
        data = "".join(f"{name}={value}\n" for name, value in fields.items()).encode("ascii")
    else:
        data = b"<%d>eci: %s" % (_FACILITY << 3 | _PRIORITY, text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as log:
        log.sendto(data, JOURNAL if native else chosen or SYSLOG)


def write(record: Record) -> str | None:
    """Write a record; returns what went wrong with the file, or None.  Never fails or waits."""
    line = line_of(record)
    with contextlib.suppress(OSError):  # there is none here, or it has enough to do
        _send(record, line)
    try:
        _append(line)
    except OSError as error:
        return f"{directory()}/{NAME}: {error.strerror}"
    return None


def write_of(record: Record, limit: Limit) -> str | None:
    """Do the same, and tell what was left out for `limit`; what cannot be written, is as well."""
    record.left_out = limit.tell()
    problem = write(record)
    if problem is not None:
        limit.left_out += record.left_out + (record.event == "refusal")
    return problem


def refusal(of: str, reason: str, time_ns: int | None = None) -> Record:
    """Return the beginning of a refusal's record: its name, and what there is to say of `reason`.

    `of`: `call`, `container` or `command`.
    """
    when = time.time_ns() if time_ns is None else time_ns
    text = text_of(reason)
    return Record(
        time=stamp(when),
        id=new_id(when),
        event="refusal",
        of=of,
        reason=reason,
        rule=text.rule,
        setting=text.setting or "",
    )


def left_out(container: str) -> Record:
    """Return the record that says how many refusals of a container have none: `write_of`."""
    now = time.time_ns()
    return Record(
        time=stamp(now),
        id=new_id(now),
        event="left-out",
        container=printable(container),
    )
