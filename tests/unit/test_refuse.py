"""Namespaces of the host: refused by identity, in the words that users know."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime import refuse
from eci_supervisor.runtime.errors import RefusedError, SpecError

if TYPE_CHECKING:
    from pathlib import Path

OWN = {"pid": "", "ipc": "", "uts": "", "network": "", "mount": ""}
HOST = {kind: (4, number) for number, kind in enumerate((*OWN, "user", "cgroup"), 1)}
START = "error in the container spec: invalid or unsupported container spec: eci containers can't "
END = " with the host (because they use the linux user-namespace for isolation)"


def text(namespaces: dict[str, str], joined: dict[str, refuse.Identity]) -> str:
    with pytest.raises(RefusedError) as caught:
        refuse.refuse_shared(namespaces, joined, HOST)
    return str(caught.value)


def without(*kinds: str) -> dict[str, str]:
    return {kind: path for kind, path in OWN.items() if kind not in kinds}


def test_namespaces_of_its_own_are_fine() -> None:
    refuse.refuse_shared(OWN, {}, HOST)


def test_another_containers_are_fine() -> None:
    refuse.refuse_shared({**OWN, "network": "/x"}, {"network": (4, 99)}, HOST)


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_one_that_is_not_listed_is_the_hosts(kind: str) -> None:
    assert text(without(kind), {}) == f"{START}share namespaces [{kind}]{END}"


def test_several_are_named_together() -> None:
    assert text(without("pid", "uts"), {}) == f"{START}share namespaces [pid uts]{END}"


def test_the_network_has_a_text_of_its_own() -> None:
    assert text(without("network"), {}) == f"{START}share a network namespace{END}"


def test_host_name_that_comes_with_the_hosts_network_is_not_named() -> None:
    assert text(without("network", "uts"), {}) == f"{START}share a network namespace{END}"
    assert text(without("network", "uts", "pid"), {}).startswith(f"{START}share namespaces [pid")


INSECURE = "/var/lib/x/buildkit/executor/abc"


@pytest.mark.parametrize(
    ("bundle", "capability", "refused"),
    [
        (INSECURE, "CAP_SYS_ADMIN", True),
        (INSECURE, "CAP_CHOWN", False),
        ("/run/containerd/io.containerd.runtime.v2.task/moby/abc", "CAP_SYS_ADMIN", False),
        ("/srv/executor/abc", "CAP_SYS_ADMIN", False),
    ],
)
def test_insecure_steps_of_a_build(bundle: str, capability: str, *, refused: bool) -> None:
    if not refused:
        refuse.refuse_insecure_build(bundle, [capability])
        return
    with pytest.raises(RefusedError, match=r"can't have the build entitlement security\.insecure"):
        refuse.refuse_insecure_build(bundle, [capability])


@pytest.mark.parametrize("kind", ["pid", "network"])
def test_a_path_to_the_hosts_is_the_hosts_whatever_its_name(kind: str) -> None:
    assert f"{kind}" in text({**OWN, kind: "/proc/1234/ns/x"}, {kind: HOST[kind]})


def test_the_same_inode_of_another_file_system_is_not_the_hosts() -> None:
    refuse.refuse_shared({**OWN, "pid": "/x"}, {"pid": (5, HOST["pid"][1])}, HOST)


def test_identities_are_those_of_nsfs(tmp_path: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to("/proc/self/ns/net")
    joined = refuse.open_joined({"network": str(link), "pid": ""})
    os.close(joined["network"].fd)
    assert joined["network"].identity == refuse.host_identities()["network"]
    assert list(joined) == ["network"]


def test_a_path_that_is_not_there_is_an_error_and_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SpecError, match="the pid namespace /none cannot be joined"):
        refuse.open_joined({"network": "/proc/self/ns/net", "pid": "/none"})
    assert len(os.listdir("/proc/self/fd")) == before
