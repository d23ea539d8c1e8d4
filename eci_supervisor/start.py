"""python -I -S start.py WHAT ARGV…: the Python half's way in, without the cost of `site`.

WHAT is `runtime` (csrc/launcher.c), `resume` (csrc/keeper.c) or `proxy` (socket/launch.py).
Reading .pth files and the finder of an editable install took two thirds of the interpreter's
start.  So `site` is left out, and the two places that it would have found are given: the package's
own parent, and the directory of its dependencies, which setup.py wrote down when it compiled the
programs.
Where a dependency is not there (a distribution's package), `site` does its work after all.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.machinery import PathFinder

BUILT = "/bin/dependencies"
"""Beside this file: the directories of the dependencies, one a line."""
TRIED = 2
"""Which of csrc/keeper.c's words says that this was in vain just now."""


def find_packages() -> None:
    """Let the package and its dependencies be imported."""
    package = __file__.rpartition("/")[0]
    places = [package.rpartition("/")[0]]
    try:
        with open(package + BUILT, encoding="utf-8", errors="surrogateescape") as file:
            places += file.read().splitlines()
    except FileNotFoundError:
        pass
    # msgspec asks for it and does without; where other tools have brought it along, it takes 8 ms.
    # None blocks an import (sys.modules in the reference); typeshed has no None there.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    sys.path[:0] = [place for place in dict.fromkeys(places) if place.startswith("/")]
    if not all(PathFinder.find_spec(name) for name in ("_cffi_backend", "msgspec")):
        import site  # noqa: PLC0415 - what this module is for is to do without

        site.main()


def resume(argv: list[str]) -> int:
    """Take over from the keeper at rest, or leave the container to it; returns the exit code.

    `argv`: a descriptor of csrc/keeper.c's program as it was when it was executed, and its words.
    An installation that was cut short, or is another one's, must not cost a container its keeper.
    """
    program, *words = argv
    try:
        from eci_supervisor.supervisor import resume as way_back  # noqa: PLC0415 - one of three

        keeper = way_back.come_back(words)
    except Exception as error:  # noqa: BLE001 - whatever it is, the container is to be kept
        print(f"the keeper stays at rest: {error!r}", file=sys.stderr)  # noqa: T201 - it is a log
        words[TRIED] = "1"
        os.execve(int(program), ["eci-keeper", *words], os.environ)  # noqa: S606 - no shell
    os.close(int(program))
    return way_back.serve(keeper)


def main(what: str, argv: list[str]) -> int:
    """Run that part of the Python half; returns its exit code."""
    if what == "resume":
        return resume(argv)
    if what == "proxy":
        # asyncio does without, and a process for each socket has 4 MB less.  As above.
        sys.modules["ssl"] = None  # type: ignore[assignment]
        from eci_supervisor.socket import serve  # noqa: PLC0415 - one of three

        return serve.main(argv)
    try:
        from eci_supervisor.runtime import __main__ as runtime  # noqa: PLC0415 - one of three
    except (OSError, ImportError, MemoryError) as error:
        # Before there is anybody who could say it in the runtime's way.
        print(f"eci-runtime: its program cannot be loaded: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return runtime.main(argv)


if __name__ == "__main__":
    # Nothing that lives for 100 ms has garbage to look for; the keeper turns this on again.
    gc.disable()
    find_packages()
    sys.exit(main(sys.argv[1], sys.argv[2:]))
