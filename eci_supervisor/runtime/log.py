"""Errors, in the form that the caller of the runtime expects.

Engines read the runtime's `--log` file and show its last error to the user, so a failure of
the wrapper is written there exactly as runc or crun would, and to stderr as they do.
"""

from __future__ import annotations

import json
import os
import sys
import time


def one_line(text: str) -> str:
    """Return `text` as a single printable line."""
    return " ".join(text.split())


def format_text(runtime: str, message: str, stamp: str) -> str:
    """One line of `--log-format text`."""
    if runtime == "crun":
        return f"{stamp}: {message}\n"
    return f"time={json.dumps(stamp)} level=error msg={json.dumps(message, ensure_ascii=False)}\n"


def format_json(message: str, stamp: str) -> str:
    """One line of `--log-format json`, as logrus and crun write it."""
    record = {"level": "error", "msg": message, "time": stamp}
    return json.dumps(record, ensure_ascii=False) + "\n"


def report(message: str, *, runtime: str, log: str | None, log_format: str | None) -> None:
    """Write the error to stderr and to the file `log`.

    A log that cannot be written is itself said on stderr; the message is never lost.
    """
    message = one_line(message)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if log and log != "/dev/stderr":
        line = (
            format_json(message, stamp)
            if log_format == "json"
            else format_text(runtime, message, stamp)
        )
        try:
            fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, line.encode("utf-8", "backslashreplace"))
            finally:
                os.close(fd)
        except OSError as error:
            sys.stderr.write(f"eci-runtime: cannot write the log {log}: {error.strerror}\n")
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
