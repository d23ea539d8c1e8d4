"""python -I -m eci_supervisor.runtime RUNTIME BINARY ARGV…: called by csrc/launcher.c.

RUNTIME is `runc` or `crun`, BINARY its path, ARGV the words that the engine gave.
"""

from __future__ import annotations

import os
import signal
import sys

from eci_supervisor.runtime import args, log
from eci_supervisor.runtime.errors import EciError


def main(argv: list[str]) -> int:
    """Become the runtime, or report why not and return 1."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    runtime, binary, *words = argv
    log_file, log_format = args.log_flags(words)
    try:
        call = args.parse(runtime, words, os.getcwd())
        log_file, log_format = call.log, call.log_format
        from eci_supervisor.runtime import lifecycle

        if call.help is not None:
            lifecycle.become(binary, [runtime, *call.help])
        lifecycle.create(call, binary)
    except EciError as error:
        message = str(error)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"eci-runtime: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
        if isinstance(error, OSError) and error.filename is not None:
            message += f": {os.fsdecode(error.filename)}"
    except Exception as error:
        message = f"eci-runtime: internal error: {type(error).__name__}: {error}"
    log.report(message, runtime=runtime, log=log_file, log_format=log_format)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
