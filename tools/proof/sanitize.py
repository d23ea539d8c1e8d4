"""The tests on builds with sanitizers.  A report of whatever process fails the run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from tools.proof.variant import HERE, SANITIZE, THREADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.proof.variant import Variant

PARALLEL = ("--numprocesses", "logical", "--maxprocesses", "4", "--dist", "loadfile")
OF_THE_FILTER = tuple(
    f"--deselect=tests/attack/test_taken_over.py::test_{name}"
    for name in ("it_is_killed_and_the_container_gains_nothing", "what_is_not_on_the_list_kills")
)
"""Left out: a sanitizer makes calls of its own, so one off the list is logged and kills nobody."""
TESTS = (
    *PARALLEL,
    *OF_THE_FILTER,
    "tests/kernel",
    "tests/attack",
    *(f"tests/unit/test_{name}.py" for name in ("decide", "policy_table", "ring", "watch")),
)
"""What is run where nothing else is asked for: what calls C."""
OF_THREADS = (
    *PARALLEL,
    "tests/attack/test_notifications.py",
    "tests/attack/test_races.py",
    "tests/engine/test_observe.py",
    "-k",
    "not are_not_taken_for_each_other and not changes_the_verdict",
)
"""Several listeners, and who follows them.  Left out is what also asks that an attacker lose some
rounds: against a worker that is ten times slower he wins or is refused each time."""

OUT_OF_BOUNDS = """
from eci_supervisor._eci import ffi, lib
block = ffi.new("uint32_t[5]", [lib.ECI_POLICY_MAGIC, lib.ECI_POLICY_VERSION, 4096])
lib.eci_policy_check(ffi.cast("struct eci_policy *", block), 4096)
"""
"""The Python module reads behind the end of a block."""

_FRAME = re.compile(r"#\d+ 0x[0-9a-f]+ +\((?P<file>/[^+()]+)\+(?P<offset>0x[0-9a-f]+)\)")


def reported(variant: Variant) -> str:
    """Return what the processes have reported so far, with lines for addresses."""
    text = ""
    for path in sorted(variant.report_dir.iterdir()):
        text += path.read_text(errors="replace")
    return _FRAME.sub(_with_line, text)


def _with_line(frame: re.Match[str]) -> str:
    words = ["addr2line", "-f", "-i", "-p", "-s", "-e", frame["file"], frame["offset"]]
    told = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    return f"{frame[0]} {told.stdout.strip()}"


def _start_reports(variant: Variant) -> None:
    shutil.rmtree(variant.report_dir, ignore_errors=True)
    variant.report_dir.mkdir(parents=True)


def _see_it_report(variant: Variant, kinds: dict[str, str]) -> None:
    """Provoke each kind of report: a run without any proves nothing where none arrives."""
    with tempfile.TemporaryDirectory() as empty:
        canary = variant.directory / "canary"
        variant.compile([HERE / "canary.c"], canary, "-O0", "-pthread")
        for kind, text in kinds.items():
            _start_reports(variant)
            subprocess.run(
                [canary, empty, kind],
                env={},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            _expect(variant, text)
    if variant.interpreter:
        _start_reports(variant)
        words = [variant.python, "-I", "-c", OUT_OF_BOUNDS]
        subprocess.run(words, env={}, stderr=subprocess.DEVNULL, check=False)
        _expect(variant, "heap-buffer-overflow")
    _start_reports(variant)


def _expect(variant: Variant, text: str) -> None:
    if text not in reported(variant):
        raise SystemExit(f"the variant {variant.name} does not report: {text}")


def _run(variant: Variant, words: Sequence[str]) -> int:
    """Run the tests; not 0 where one failed or something was reported."""
    failed = subprocess.run(
        ["setarch", "-R", variant.python, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=variant.tree,
        check=False,
    ).returncode
    text = reported(variant)
    if text:
        print(text)
        print(f"==> the sanitizers have reported: {variant.report_dir}")
    return failed or int(bool(text))


def sanitize(words: Sequence[str]) -> int:
    """Run tests on a build with ASan and UBSan; `words` are pytest's."""
    SANITIZE.build()
    _see_it_report(SANITIZE, {"heap": "heap-buffer-overflow", "shift": "shift exponent"})
    return _run(SANITIZE, words or TESTS)


def threads(words: Sequence[str]) -> int:
    """Run tests with the programs built for TSan, and the stress of what they share."""
    THREADS.build()
    _see_it_report(THREADS, {"race": "data race"})
    stress = THREADS.directory / "shared"
    sources = [THREADS.tree / "csrc" / name for name in ("ring.c", "watch.c")]
    THREADS.compile(
        [HERE / "shared.c", *sources], stress, "-O1", f"-I{THREADS.tree}/csrc", "-pthread"
    )
    # Only with names does the sanitizer know what report.c suppresses.
    named = {"TSAN_OPTIONS": "symbolize=1:external_symbolizer_path=/usr/bin/llvm-symbolizer"}
    failed = subprocess.run(["setarch", "-R", stress], env=named, check=False).returncode
    return _run(THREADS, words or OF_THREADS) or failed
