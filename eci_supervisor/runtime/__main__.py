"""start.py runtime RUNTIME BINARY ARGV…: called by csrc/launcher.c.

RUNTIME is `runc` or `crun`, BINARY its path, ARGV the words that the engine gave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from eci_supervisor.kernel.features import MissingFeatureError
from eci_supervisor.policy.refusals import BAD_SETTINGS
from eci_supervisor.policy.settings import SettingsError
from eci_supervisor.runtime import args, log, successor
from eci_supervisor.runtime.errors import EciError, RefusedError


def _step(error: BaseException) -> str:
    """Name our innermost function that `error` came through: errno alone says little."""
    name = "start"
    trace = error.__traceback__
    while trace is not None:
        if "eci_supervisor" in trace.tb_frame.f_code.co_filename:
            name = trace.tb_frame.f_code.co_name
        trace = trace.tb_next
    return name.strip("_").replace("_", " ")


def _record(call: args.Invocation | None, reason: str, message: str, pid: int) -> None:
    """Write a refusal into the audit log; nothing fails for it."""
    from eci_supervisor.runtime import refused  # noqa: PLC0415 - most containers are not

    # The user's one line comes first: nothing may come between.
    with contextlib.suppress(Exception):
        if call is not None:
            refused.record(call, reason, message, pid)


def main(argv: list[str]) -> int:
    """Become the runtime, or report why not and return 1."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from eci_supervisor.runtime import fork_server, state  # noqa: PLC0415 - others need none of it

    fork_server.offer(state.root(), prepare)
    return prepare(argv, successor.Self())


def prepare(argv: list[str], process: successor.Successor) -> int:
    """Make the container and `process` the runtime, or report why not and return 1."""
    runtime, binary, *words = argv
    log_file, log_format = args.log_flags(words)
    call = None
    try:
        call = args.parse(runtime, words, os.getcwd())
        log_file, log_format = call.log, call.log_format
        from eci_supervisor.runtime import lifecycle  # noqa: PLC0415 - help needs none of it

        if call.help is not None:
            process.become(binary, [runtime, *call.help])
        lifecycle.create(call, binary, process)
    except RefusedError as error:
        message = str(error)
        _record(call, error.reason, message, process.pid)
    except EciError as error:
        message = str(error)
    except SettingsError as error:
        message = str(error)
        _record(call, BAD_SETTINGS, message, process.pid)
    except MissingFeatureError as error:
        message = str(error)
    except OSError as error:
        message = f"eci-runtime: {_step(error)}: {error.strerror or error}"
        if error.filename is not None:
            message += f": {os.fsdecode(error.filename)}"
    except Exception as error:  # noqa: BLE001 - the user gets one line, and no container
        message = f"eci-runtime: internal error: {_step(error)}: {type(error).__name__}: {error}"
    log.report(message, runtime=runtime, log=log_file, log_format=log_format)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
