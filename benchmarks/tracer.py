"""`tracer.py PID`: stops a process at every system call and lets it go on; a rival, see ladder.py.

Of a mount it reads the strings, as whoever wants to decide by them must.  It decides nothing.
"""

from __future__ import annotations

import sys

from ptrace.debugger import ProcessExit, PtraceDebugger

# arch/x86/entry/syscalls/syscall_64.tbl
MOUNT = 165
PATH_MAX = 4096


def main() -> None:
    """Attach, say so, and trace until the process ends."""
    debugger = PtraceDebugger()
    process = debugger.addProcess(int(sys.argv[1]), is_attached=False)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    entering = True
    try:
        while True:
            process.syscall()
            debugger.waitSyscall(process)
            registers = process.getregs()
            if entering and registers.orig_rax == MOUNT:
                for address in (registers.rdi, registers.rsi, registers.rdx):
                    if address:
                        process.readCString(address, PATH_MAX)
            entering = not entering
    except ProcessExit:
        pass


if __name__ == "__main__":
    main()
