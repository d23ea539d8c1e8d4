"""A container on the host of which a path is protected."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import appearing, bind, make_spec
from tests.support.engines import Bundles
from tests.support.shell import Shell
from tests.support.sides import AND_CLEAN, Volumes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.attacks import Attack
    from tests.support.bundle import Runtime
    from tests.support.place import Place


class Guarded:
    """One privileged container, with /w/secret a host-protected path in a writable volume.

    It was not there when the volume was judged: a bind that shows one would have been refused.  In
    it, /w/secret/sub/free is shared.
    """

    def __init__(self, bundles: Bundles, program: Path, volumes: Volumes) -> None:
        self._bundles = bundles
        self._program = program
        self._volumes = volumes
        self._shell: Shell | None = None

    def _start(self) -> tuple[Runtime, str]:
        name = self._bundles.name()
        settings = self._bundles.place.directory("set") / "settings.json"
        secret = self._volumes.writable / "secret"
        paths = {"protectedPaths": [str(secret)], "sharedPaths": ["/", f"{secret}/sub/free"]}
        settings.write_text(json.dumps({"configurationFileVersion": 2, "vm": paths}))
        hidden = self._bundles.place.directory("hidden") / "secret"
        secret.rename(hidden)
        spec = make_spec(
            ["sleep", "1000"],
            cgroup=self._bundles.cgroup(name),
            privileged=True,
            mounts=[bind(self._volumes.writable, "/w")],
            hooks=appearing(hidden, secret),
        )
        runtime = self._bundles.runtime(self._program, "--settings", str(settings))
        self._bundles.expect(runtime, name)
        bundle = self._bundles.write(spec)
        runtime.call("create", "--bundle", str(bundle), name)
        runtime.start(name)
        return runtime, name

    def run(self, words: list[str]) -> str:
        """Run the words in the container and return what they print."""
        if self._shell is None:
            runtime, name = self._start()
            self._shell = Shell(runtime.argv("exec", name, "sh"), os.environ | runtime.env)
        return self._shell.run(["sh", "-c", AND_CLEAN, "sh", *words])

    def attack(self, one: Attack, program: str) -> None:
        """Make the attack, which must fail."""
        try:
            one.check(self.run(one.words(program)), protected=True)
            assert (self._volumes.writable / "secret/mark").is_file()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the container."""
        self._bundles.close()
        if self._shell is not None:
            self._shell.close()
            self._shell = None


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def guarded(
    request: pytest.FixtureRequest, place: Place, own_root: Path, runtimes: dict[str, Path]
) -> Iterator[Guarded]:
    """The container with the protected path, on each runtime."""
    side = Guarded(Bundles(place, own_root), runtimes[request.param], Volumes.make(place))
    yield side
    side.close()
