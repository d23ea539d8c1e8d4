"""Engines, images and bundles for the end-to-end tests."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bundle import Runtime, Spec, make_spec, write_bundle
from tests.support.docker import Dockerd
from tests.support.podman import Podman
from tests.support.programs import compile_programs
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.place import Place

ECI_RUNTIME = Path(__file__).parents[2] / "eci_supervisor/bin/eci-runtime"


@pytest.fixture(scope="session")
def programs(place: Place) -> dict[str, Path]:
    """The static test programs, name -> file."""
    return compile_programs(place.directory("c"))


@pytest.fixture(scope="session")
def busybox_root(place: Place, programs: dict[str, Path]) -> Path:
    """A root file system with busybox and the test programs, for images: nobody writes to it."""
    return build_root(place.directory("b") / "root", programs.values())


@pytest.fixture(scope="session")
def bundle_root(place: Place, programs: dict[str, Path]) -> Path:
    """The same for bundles: a runtime makes mount points in it, which stay."""
    return build_root(place.directory("b") / "root", programs.values())


@pytest.fixture(scope="session")
def runtimes(place: Place) -> dict[str, Path]:
    """The runtimes under test, as an administrator registers them: name -> program."""
    if not ECI_RUNTIME.exists():
        pytest.fail(f"{ECI_RUNTIME} is not built: make build")
    link = place.directory("r") / "eci-runtime-crun"
    link.symlink_to(ECI_RUNTIME)
    return {"eci": ECI_RUNTIME, "eci-crun": link}


@pytest.fixture(scope="session")
def dockerd(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Dockerd]:
    """A running dockerd with the image `box` and `eci` as its default runtime."""
    with Dockerd(place, runtimes, "eci") as daemon:
        daemon.import_image(busybox_root)
        yield daemon


@pytest.fixture(scope="module")
def podman(place: Place, busybox_root: Path) -> Iterator[Podman]:
    """A podman with the image `box`."""
    engine = Podman(place)
    engine.import_image(busybox_root, "box", "runc")
    yield engine
    engine.close()


@pytest.fixture(params=["eci", "eci-crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    """The name of a runtime under test: eci-runtime on runc, and on crun."""
    name: str = request.param
    return name


_numbers = itertools.count()


class Bundles:
    """Makes bundles on a private copy-free root, and containers of them that are deleted."""

    def __init__(self, place: Place, rootfs: Path) -> None:
        self.place = place
        self.rootfs = rootfs
        self._made: list[tuple[Runtime, str]] = []

    def cgroup(self, name: str) -> str:
        """Return the cgroupsPath for the container `name`."""
        return f"/{self.place.cgroup}/{name}"

    def name(self) -> str:
        """Return a container id that no other test uses."""
        return f"c{next(_numbers)}"

    def runtime(self, program: Path | str, *flags: str) -> Runtime:
        """Return the runtime `program` with a new --root."""
        return Runtime(str(program), self.place.directory("rt"), list(flags))

    def write(self, spec: Spec, rootfs: Path | None = None) -> Path:
        """Write `spec` as a new bundle; without `rootfs` on the one that all share."""
        directory = self.place.directory("bundle")
        return write_bundle(directory, copy.deepcopy(spec), rootfs or self.rootfs)

    def expect(self, runtime: Runtime, name: str) -> None:
        """Have the container `name` deleted by force at the end, whatever became of it."""
        self._made.append((runtime, name))

    def answers(self, program: Path | str, words: Sequence[str], **options: Any) -> list[str]:
        """Run `words` in a container of its own; return what they print, word by word.

        `options`: of `make_spec`.
        """
        name = self.name()
        bundle = self.write(make_spec(words, cgroup=self.cgroup(name), **options))
        return self.run(self.runtime(program), name, bundle).split()

    def run(self, runtime: Runtime, name: str, bundle: Path) -> str:
        """Run a container to its end, which deletes it; return what it printed."""
        self.expect(runtime, name)
        printed = runtime.call("run", "--bundle", str(bundle), name).stdout
        self._made.remove((runtime, name))
        return printed

    def close(self) -> None:
        """Delete what `expect` was told of, as far as it still exists."""
        for runtime, name in self._made:
            runtime.call("delete", "--force", name, check=False)


@pytest.fixture
def bundles(place: Place, bundle_root: Path) -> Iterator[Bundles]:
    """A maker of bundles."""
    maker = Bundles(place, bundle_root)
    yield maker
    maker.close()


@pytest.fixture
def mark() -> Callable[[], str]:
    """A maker of names that are unique in the session, for containers and volumes."""
    return lambda: f"t{next(_numbers)}"
