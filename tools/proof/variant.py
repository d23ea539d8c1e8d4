"""Instrumented builds of the project, each below a directory of its own in build/.

A variant has a copy of the sources, compiled in place, and a Python environment whose packages are
links to those of .venv.  So nothing that `make build` has made is touched, and what is started by
name (an interpreter from a C program, `eci` from a test) is the variant's.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

ECI = """#!{python}
import sys
from eci_supervisor.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """How one is compiled; `{dir}` in a word is the variant's directory."""

    name: str
    compiler: str
    words: tuple[str, ...]
    """For every C source of the product."""
    of_programs: tuple[str, ...] = ()
    """For those of the programs alone."""
    reports: bool = False
    """report.c goes into each program."""
    interpreter: bool = False
    """The interpreter is python.c, with `words`."""
    module: bool = True
    """`words` go into the Python module as well."""

    @property
    def directory(self) -> Path:
        """Where all of it lies."""
        return ROOT / "build" / self.name

    @property
    def tree(self) -> Path:
        """The copy of the sources; where its tests are run."""
        return self.directory / "tree"

    @property
    def report_dir(self) -> Path:
        """What the programs have to report."""
        return self.directory / "reports"

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.directory / "venv" / "bin" / "python")

    def build(self) -> None:
        """Make it anew.  What was compiled is kept as long as no word and no C source changes."""
        shutil.rmtree(self.tree, ignore_errors=True)
        _copy(_sources(), self.tree)
        stamp, built = self.directory / "stamp", self.directory / "built"
        package = self.tree / "eci_supervisor"
        if stamp.exists() and stamp.read_text() == self._digest():
            shutil.copytree(built, package, dirs_exist_ok=True, symlinks=True)
            return
        stamp.unlink(missing_ok=True)
        shutil.rmtree(built, ignore_errors=True)
        print(f"==> compiling the variant {self.name} into {self.directory.relative_to(ROOT)}/")
        self._make_environment()
        self._compile()
        shutil.copytree(package / "bin", built / "bin", symlinks=True)
        for module in package.glob("_eci.*.so"):
            shutil.copy2(module, built)
        stamp.write_text(self._digest())

    def compile(self, sources: list[Path], out: Path, *more: str) -> None:
        """Compile a program of this directory's with the variant's words."""
        reports = [str(self._report(by_name=False))] if self.reports else []
        words = [self.compiler, "-g", *self._said(), *map(str, sources), *reports, *more]
        subprocess.run([*words, "-o", str(out)], check=True)

    def _said(self) -> list[str]:
        return [word.replace("{dir}", str(self.directory)) for word in self.words]

    def _digest(self) -> str:
        digest = hashlib.sha256(repr((self, sys.version, ROOT)).encode())
        for path in sorted([ROOT / "setup.py", *(ROOT / "csrc").iterdir(), *HERE.glob("*.c")]):
            if path.is_file():
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    def _report(self, *, by_name: bool) -> Path:
        out = self.directory / ("by_name.o" if by_name else "report.o")
        words = [self.compiler, "-c", "-fPIC", "-O1", f'-DECI_REPORTS="{self.report_dir}"']
        words += ["-DECI_BY_NAME"] if by_name else []
        subprocess.run([*words, str(HERE / "report.c"), "-o", str(out)], check=True)
        return out

    def _make_environment(self) -> None:
        """Make the Python environment: the packages of this one but for the project itself."""
        venv = self.directory / "venv"
        shutil.rmtree(venv, ignore_errors=True)
        packages = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        packages.mkdir(parents=True)
        (venv / "bin").mkdir()
        shutil.copy(Path(sys.prefix, "pyvenv.cfg"), venv)
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if not path.name.startswith(("__editable__", "eci_supervisor")):
                (packages / path.name).symlink_to(path)
        (packages / "variant.pth").write_text(f"{self.tree}\n")
        if self.interpreter:
            self._compile_interpreter()
        else:
            (venv / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
        (venv / "bin" / "python3").symlink_to("python")
        eci = venv / "bin" / "eci"
        eci.write_text(ECI.format(python=self.python))
        eci.chmod(0o755)

    def _compile_interpreter(self) -> None:
        library = sysconfig.get_config_var("LIBDIR")
        words = [f"-I{sysconfig.get_path('include')}", "-g", *self._said(), str(HERE / "python.c")]
        words += [str(self._report(by_name=True)), f"-L{library}", f"-Wl,-rpath,{library}"]
        words += [f"-lpython{sysconfig.get_python_version()}", "-lm", "-rdynamic"]
        words += ["-o", self.python]
        subprocess.run([self.compiler, *words], check=True)

    def _compile(self) -> None:
        """Compile the C half in place."""
        said = self._said()
        of_programs = [*said, *self.of_programs, "-Wno-error"]
        if self.reports:
            self.report_dir.mkdir(parents=True, exist_ok=True)
            of_programs.append(str(self._report(by_name=False)))
        environment = dict(os.environ, ECI_PROGRAM_WORDS=shlex.join(of_programs))
        environment["CC"] = self.compiler
        if self.module:
            environment["CFLAGS"] = shlex.join(said)
            environment["LDSHARED"] = f"{self.compiler} -shared"
        log = subprocess.run(
            [self.python, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=self.tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if log.returncode != 0:
            sys.exit(f"{log.stdout}\nthe variant {self.name} does not compile")


def _sources() -> list[str]:
    """Return the files of the project, whether git knows them yet or not."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    out = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return [
        os.fsdecode(name)
        for name in out.split(b"\0")
        if name and (ROOT / os.fsdecode(name)).exists()
    ]


def _copy(names: list[str], to: Path) -> None:
    for name in names:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


SANITIZE = Variant(
    name="sanitize",
    compiler="clang",
    words=(
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-DECI_SANITIZED",
        "-U_FORTIFY_SOURCE",  # its functions are none that the sanitizer knows
        "-fno-wrapv",  # CPython's own flags define what happens on overflow; ours do not
    ),
    of_programs=("-O1",),
    reports=True,
    interpreter=True,
)
THREADS = Variant(
    name="threads",
    compiler="clang",
    words=("-fsanitize=thread", "-DECI_SANITIZED", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE"),
    of_programs=("-O1",),
    reports=True,
    module=False,  # the threads of an interpreter that knows nothing of the sanitizer
)
COVERAGE = Variant(
    name="coverage",
    compiler="clang",
    # The counters lie in the file itself, from the first instruction on: a worker is killed, or
    # ends in a mount namespace without that file.
    words=(
        "-fprofile-instr-generate={dir}/counts/%m-%p%c.profraw",
        "-fcoverage-mapping",
        "-mllvm",
        "-runtime-counter-relocation",
        "-DECI_SANITIZED",
    ),
)
VALGRIND = Variant(name="valgrind", compiler="gcc", words=("-g", "-O1", "-DECI_SANITIZED"))
