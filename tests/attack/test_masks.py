"""Masks that the runtime makes of a false /dev/null, in a volume that is the container's /dev.

As in CVE-2025-31133: runc before 1.2.8 binds whatever /dev/null leads to over a path that is to be
masked.  (crun has the host's.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.bundle import Spec
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

MASKED = "/proc/timer_list"
KINDS = {"SYS_ADMIN": ["CAP_SYS_ADMIN"], "default": []}


def spec_of(words: list[str], dev: Path, cgroup: str, caps: list[str], *, bare: bool) -> Spec:
    """Return the configuration of a container that has the directory for its /dev."""
    spec = make_spec(words, cgroup=cgroup, cap_add=caps, identity_userns=bare)
    others = [mount for mount in spec["mounts"] if not mount["destination"].startswith("/dev")]
    spec["mounts"] = [*others, bind(dev, "/dev")]
    return spec


def answer(
    bundles: Bundles, program: Path | str, dev: Path, words: list[str], caps: list[str]
) -> str:
    """Run a container with that /dev and return what it prints."""
    name = bundles.name()
    runtime = bundles.runtime(program)
    bundles.expect(runtime, name)
    spec = spec_of(words, dev, bundles.cgroup(name), caps, bare=program == "runc")
    return runtime.call("run", "--bundle", str(bundles.write(spec)), name).stdout


@pytest.fixture
def dev(place: Place) -> Path:
    """A directory in which null leads to a file of procfs."""
    directory = place.directory("v")
    (directory / "null").symlink_to("/proc/version")
    return directory


def test_succeeds_without_protection(bundles: Bundles, dev: Path) -> None:
    """What null leads to lies there now, wherever in the container that is."""
    assert answer(bundles, "runc", dev, ["cat", MASKED], []).startswith("Linux version")


@pytest.mark.parametrize("caps", KINDS.values(), ids=KINDS)
def test_fails(bundles: Bundles, runtimes: dict[str, Path], dev: Path, caps: list[str]) -> None:
    """The masks are there before the runtime makes its own."""
    words = f"mnt kind {MASKED} , kind /proc/keys".split()
    assert answer(bundles, runtimes["eci"], dev, words, caps) == "chr 1:3\nchr 1:3\n"
