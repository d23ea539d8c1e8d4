"""Namespaces to join, named by a path that others may change between the look and the use."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime import state
from tests.support.bundle import make_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

FLAGS = {"network": "-n", "pid": "-pf"}
NAMES = {"network": "net", "pid": "pid_for_children"}


@pytest.fixture(scope="module", params=["network", "pid"])
def foreign(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A kind of namespace, and the path of one that is not the host's."""
    kind: str = request.param
    words = ["unshare", FLAGS[kind], "--kill-child", "sh", "-c", "echo; exec sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield kind, f"/proc/{process.pid}/ns/{NAMES[kind]}"
        process.kill()


def swap(path: Path, target: str, state_dir: str) -> None:
    """Have the link `path` show `target` once the container of `state_dir` has been judged."""
    other = path.with_name("other")
    other.symlink_to(target)
    deadline = time.monotonic() + 20
    while not os.path.exists(state_dir) and time.monotonic() < deadline:
        time.sleep(0.0005)
    other.rename(path)


@pytest.mark.parametrize("program", ["eci", "eci-crun"])
def test_what_is_joined_is_what_was_judged(
    program: str,
    foreign: tuple[str, str],
    bundles: Bundles,
    runtimes: dict[str, Path],
    place: Place,
) -> None:
    kind, path = foreign
    name = NAMES[kind].partition("_")[0]
    own, hosts = os.readlink(path), os.readlink(f"/proc/self/ns/{name}")
    assert own != hosts
    link = place.directory("n") / "link"
    link.symlink_to(path)
    container = bundles.name()
    runtime = bundles.runtime(runtimes[program])
    bundles.expect(runtime, container)
    spec = make_spec(["readlink", f"/proc/self/ns/{name}"], cgroup=bundles.cgroup(container))
    for entry in spec["linux"]["namespaces"]:
        if entry["type"] == kind:
            entry["path"] = str(link)
    key = state.key_of(container, str(runtime.root))
    words = (link, f"/proc/{os.getpid()}/ns/{name}", f"{state.root()}/containers/{key}")
    thread = threading.Thread(target=swap, args=words)
    thread.start()
    done = runtime.call("run", "--bundle", str(bundles.write(spec)), container, check=False)
    thread.join()
    assert os.readlink(link) == words[1]
    # runc mounts /proc from the container's user namespace, which may not show a foreign one.
    assert done.stdout.split() == ([] if (kind, program) == ("pid", "eci") else [own]), done.stderr
