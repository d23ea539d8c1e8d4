"""Containers in a network namespace that the host's user namespace owns, as podman's and pods are.

runc 1.1 cannot join one from inside of a container's user namespace, in create or in exec.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import make_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.bundle import Runtime
    from tests.support.engines import Bundles

pytestmark = [pytest.mark.root, pytest.mark.engine]

LINK = "/proc/self/ns/net"


@pytest.fixture
def network() -> Iterator[str]:
    """The path of a network namespace of the host's."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo up; read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"up\n"
        yield f"/proc/{holder.pid}/ns/net"
        holder.stdin.close()


@contextmanager
def running(runtime: Runtime, bundles: Bundles, network: str) -> Iterator[str]:
    """Run a container in `network` for the length of the block; yield its name."""
    name = bundles.name()
    bundles.expect(runtime, name)
    spec = make_spec(["sleep", "1000"], cgroup=bundles.cgroup(name))
    for entry in spec["linux"]["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = network
    runtime.call("create", "--bundle", str(bundles.write(spec)), name)
    runtime.start(name)
    yield name


def test_both_its_first_process_and_later_ones_are_in_it(
    bundles: Bundles, runtimes: dict[str, Path], runtime: str, network: str
) -> None:
    eci = bundles.runtime(runtimes[runtime])
    wanted = os.readlink(network)
    with running(eci, bundles, network) as name:
        assert eci.call("exec", name, "readlink", LINK).stdout.strip() == wanted
        # The id stands behind flags with and without values, which look like one.
        flags = ["--env", "A=B", "--cwd=/", "--user", "0:0", "--pid-file", str(eci.root / "pid")]
        script = f"/bin/readlink {LINK}; /bin/readlink /proc/1/ns/net"
        seen = eci.call("exec", *flags, name, "/bin/sh", "-c", script)
        assert seen.stdout.split() == [wanted, wanted]
        assert seen.stdout.split()[0] != os.readlink("/proc/self/ns/net")


def test_a_container_that_has_ended_is_the_runtimes_to_report(
    bundles: Bundles, runtimes: dict[str, Path], network: str
) -> None:
    eci = bundles.runtime(runtimes["eci"])
    with running(eci, bundles, network) as name:
        eci.call("kill", name, "KILL")
        eci.call("delete", "--force", name)
        done = eci.call("exec", name, "true", check=False)
    assert done.returncode != 0
    assert "container does not exist" in done.stderr


def test_state_that_is_not_understood_is_no_way_into_our_own_network(
    bundles: Bundles, runtimes: dict[str, Path], network: str
) -> None:
    """A runc whose state says nothing of the first process: nothing is run."""
    eci = bundles.runtime(runtimes["eci"])
    with running(eci, bundles, network) as name:
        state = eci.root / name / "state.json"
        kept = state.read_text()
        state.write_text(kept.replace('"init_process_pid":', '"other":'))
        done = eci.call("exec", name, "readlink", LINK, check=False)
        state.write_text(kept)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot find the network namespace of the container for exec" in done.stderr
