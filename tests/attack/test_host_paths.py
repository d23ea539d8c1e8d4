"""What a container must not have of the host, asked for in a bundle in every way there is.

Each succeeds under plain runc: the container reads the host's file.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bundle import bind, make_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.bundle import Runtime, Spec
    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

MARK = "the host's own"


class Ground:
    """A directory of the host with a protected one in it, and one that a user may write to."""

    def __init__(self, place: Place) -> None:
        self.top = place.directory("ground")
        self.secret = self.top / "secret"
        self.mine = self.top / "mine"
        self.secret.mkdir()
        self.mine.mkdir()
        (self.secret / "mark").write_text(MARK)
        self.settings = self.top / "settings.json"
        self.settings.write_text(f'{{"vm": {{"protectedPaths": ["{self.secret}"]}}}}')
        self._mounted: list[Path] = []

    def mount(self, *words: str | Path) -> Path:
        """Mount on the host, on a new directory of the user's, which is returned."""
        target = self.mine / f"m{len(self._mounted)}"
        target.mkdir()
        subprocess.run(["mount", *words, target], check=True)
        self._mounted.append(target)
        return target

    def close(self) -> None:
        """Unmount what was mounted."""
        for target in reversed(self._mounted):
            subprocess.run(["umount", "-l", target], check=True)


def itself(ground: Ground) -> dict[str, Any]:
    return bind(ground.secret, "/x")


def a_file_in_it(ground: Ground) -> dict[str, Any]:
    return bind(ground.secret / "mark", "/file")


def what_is_above_it(ground: Ground) -> dict[str, Any]:
    return bind(ground.top, "/x")


def it_through_dots(ground: Ground) -> dict[str, Any]:
    return bind(ground.mine / ".." / "." / "secret", "/x")


def it_relative_to_the_bundle(ground: Ground) -> dict[str, Any]:
    up = "../" * 12
    return {**bind(ground.secret, "/x"), "source": f"{up}{ground.secret}".replace("//", "/")}


def it_through_a_link(ground: Ground) -> dict[str, Any]:
    (ground.mine / "link").symlink_to("../secret")
    return bind(ground.mine / "link", "/x")


def it_through_links_of_links(ground: Ground) -> dict[str, Any]:
    (ground.mine / "a").symlink_to(ground.mine / "b")
    (ground.mine / "b").symlink_to("./d/../a-directory/up")
    (ground.mine / "d").mkdir()
    (ground.mine / "a-directory").mkdir()
    (ground.mine / "a-directory/up").symlink_to("../../secret/mark")
    return bind(ground.mine / "a", "/file")


def it_through_a_process(ground: Ground) -> dict[str, Any]:
    return {**bind(ground.secret, "/x"), "source": f"/proc/self/root{ground.secret}"}


def it_where_it_is_bound(ground: Ground) -> dict[str, Any]:
    return bind(ground.mount("--bind", ground.secret), "/x")


def a_bind_of_what_is_above_it(ground: Ground) -> dict[str, Any]:
    return bind(ground.mount("--bind", ground.top) / "secret", "/x")


def a_mount_that_comes_along(ground: Ground) -> dict[str, Any]:
    inner = ground.mine / "volume/secret"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "--bind", ground.secret, inner], check=True)
    ground._mounted.append(inner)
    return bind(ground.mine / "volume", "/x")


def it_by_the_options_alone(ground: Ground) -> dict[str, Any]:
    return {**bind(ground.secret, "/x"), "type": "none"}


def it_without_a_type(ground: Ground) -> dict[str, Any]:
    return {"destination": "/x", "source": str(ground.secret), "options": ["rbind"]}


def it_read_only(ground: Ground) -> dict[str, Any]:
    return bind(ground.secret, "/x", "ro")


def a_layer_of_an_overlay(ground: Ground) -> dict[str, Any]:
    layers = f"lowerdir={ground.secret}:{ground.mine}"
    return {"destination": "/x", "type": "overlay", "source": "overlay", "options": [layers]}


WAYS: list[Callable[[Ground], dict[str, Any]]] = [
    itself,
    a_file_in_it,
    what_is_above_it,
    it_through_dots,
    it_relative_to_the_bundle,
    it_through_a_link,
    it_through_links_of_links,
    it_through_a_process,
    it_where_it_is_bound,
    a_bind_of_what_is_above_it,
    a_mount_that_comes_along,
    it_by_the_options_alone,
    it_without_a_type,
    it_read_only,
    a_layer_of_an_overlay,
]


@pytest.fixture
def ground(place: Place) -> Iterator[Ground]:
    """A protected directory."""
    made = Ground(place)
    yield made
    made.close()


@contextmanager
def bundle_of(
    bundles: Bundles, mount: dict[str, Any], program: Path | str, *flags: str
) -> Iterator[tuple[Runtime, Path, str]]:
    """A container that reads what it gets."""
    name = bundles.name()
    reads = "cat /file /x/mark /x/secret/mark 2>/dev/null; true"
    spec: Spec = make_spec(
        ["sh", "-c", reads], cgroup=bundles.cgroup(name), privileged=False, mounts=[mount]
    )
    runtime = bundles.runtime(program, *flags)
    bundles.expect(runtime, name)
    yield runtime, bundles.write(spec), name


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_succeeds_without_protection(
    bundles: Bundles, ground: Ground, way: Callable[[Ground], dict[str, Any]]
) -> None:
    with bundle_of(bundles, way(ground), "runc") as (runtime, bundle, name):
        assert MARK in runtime.call("run", "--bundle", str(bundle), name).stdout


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_fails(
    bundles: Bundles,
    ground: Ground,
    runtimes: dict[str, Path],
    way: Callable[[Ground], dict[str, Any]],
) -> None:
    flags = ("--settings", str(ground.settings))
    with bundle_of(bundles, way(ground), runtimes["eci"], *flags) as (runtime, bundle, name):
        done = runtime.call("run", "--bundle", str(bundle), name, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert "because it's configured as a restricted host mount" in done.stderr
