"""The runtime's command line: both halves find the same sub-command, and nothing gets lost."""

from __future__ import annotations

import ctypes
import os

from eci_supervisor.runtime import args
from eci_supervisor.runtime.errors import UsageError
from tests.fuzz import build
from tests.fuzz.python.source import Source

_launcher = ctypes.CDLL(str(build.launcher()))


def _of_launcher(runtime: str, words: list[bytes]) -> bytes | None:
    """Return the sub-command that csrc/launcher.c finds."""
    argv = (ctypes.c_char_p * (len(words) + 2))(runtime.encode(), *words, None)
    at = _launcher.fuzz_subcommand(len(words) + 1, argv, runtime == "crun")
    return argv[at] if at else None


def one(data: bytes) -> None:
    """Words, divided by NUL; the first byte says which runtime."""
    source = Source(data)
    runtime = ("runc", "crun")[source.number(2)]
    raw = source.rest().split(b"\0")
    words = [os.fsdecode(word) for word in raw]
    args.log_flags(words)
    try:
        call = args.parse(runtime, words, "/cwd")
    except UsageError:
        # What the wrapper would not take must not pass by it for another sub-command.
        return
    assert _of_launcher(runtime, raw) == call.subcommand.encode()
    if call.help is not None:
        return
    assert os.path.isabs(call.bundle)
    assert os.path.isabs(call.root)
    assert call.subcommand in args.WRAPPED
    again = args.parse(runtime, call.as_given()[1:], "/cwd")
    for name in ("container_id", "bundle", "config", "console_socket", "pid_file", "subcommand"):
        assert getattr(again, name) == getattr(call, name), name
    assert again.settings is None
    other = args.parse(runtime, call.with_bundle("/other")[1:], "/cwd")
    assert other.bundle == "/other"
    assert (other.container_id, other.root, other.log) == (call.container_id, call.root, call.log)
