"""Builds: each RUN step is a container, protected like any other, on every builder.

The steps check by themselves what they see: where a check fails the build does.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.buildah import Buildah
from tests.support.bundle import make_spec
from tests.support.docker import Dockerd
from tests.support.images import write_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

PREFIX = "error in the container spec: invalid or unsupported container spec: "
HOST_NETWORK = (
    f"{PREFIX}eci containers can't share a network namespace with the host "
    "(because they use the linux user-namespace for isolation)"
)
INSECURE = f"{PREFIX}eci containers can't have the build entitlement security.insecure"


@pytest.fixture(scope="module")
def daemon(place: Place, runtimes: dict[str, Path], busybox_root: Path) -> Iterator[Dockerd]:
    """A dockerd that finds eci-runtime where it looks for `runc`, as BuildKit in it does."""
    first = place.directory("first")
    (first / "runc").symlink_to(runtimes["eci"])
    # The cgroup of all steps of BuildKit's, which is made once and kept.
    place.engine_cgroups.add("buildkit")
    path = {"PATH": f"{first}:{os.environ['PATH']}"}
    with Dockerd(place, runtimes, "eci", path) as running:
        running.import_image(busybox_root)
        yield running


@pytest.fixture(scope="module")
def buildah(place: Place, busybox_root: Path) -> Iterator[Buildah]:
    """A buildah with the image `box`."""
    engine = Buildah(place)
    archive = engine.top / "box.tar"
    write_archive(archive, busybox_root, {"localhost/box:latest": ["sh"]})
    engine.import_image(archive, "box")
    archive.unlink()
    yield engine
    engine.close()


OWNERS = r"""
FROM box AS made
COPY --chown=1000:1000 copied /copied
COPY copied /copied-by-root
RUN cat /proc/self/uid_map \
    && test "$(echo $(stat -c %u /copied /copied-by-root /home/user/mine))" = "1000 0 1000" \
    && mkdir /made && echo x >/made/root && echo x >/made/user && chown 1000:1000 /made/user
USER 1000
RUN test "$(id -u)" = 1000 && echo x >/home/user/own && echo x >>/made/user && ! touch /made/root
FROM made
COPY --from=made /made/user /again
RUN test "$(stat -c %u:%g:%s /made/root /made/user /home/user/own /copied /again | tr '\n' ' ')" = \
    "0:0:2 1000:1000:4 1000:1000:2 1000:1000:6 1000:1000:4 " && touch /tmp/last
"""
FILES = {"copied": "copied"}
MAP = " 0     100000      65536\n"


@pytest.mark.parametrize("kit", [False, True], ids=["legacy", "buildkit"])
def test_files_have_the_right_owners(daemon: Dockerd, kit: bool, mark: Callable[[], str]) -> None:  # noqa: FBT001 - a parameter of pytest's
    name = mark()
    assert MAP in daemon.build(OWNERS, "--tag", name, kit=kit, files=FILES).stdout
    # On the disk as well, where an engine without us would see it.
    upper = Path(daemon.inspect(name, "{{.GraphDriver.Data.UpperDir}}"))
    assert (upper / "tmp/last").stat().st_uid == 1000


def test_files_have_the_right_owners_with_buildah(
    buildah: Buildah, runtimes: dict[str, Path]
) -> None:
    assert MAP in buildah.build(OWNERS, runtime=runtimes["eci"], files=FILES).stdout


MOUNTS = r"""
FROM box AS base
RUN mkdir /dir && echo y >/dir/y && echo stage >/stage && chown 1000 /dir /dir/y /stage
FROM box
RUN --mount=type=cache,target=/cache,id=ID \
    --mount=type=cache,target=/own,id=ID-own,uid=1000,gid=1000,mode=0700 \
    --mount=type=cache,target=/seeded,id=ID-seeded,from=base,source=/dir \
    --mount=type=bind,target=/context \
    --mount=type=bind,rw,target=/scratch \
    --mount=type=bind,from=base,source=/stage,target=/one \
    --mount=type=bind,from=base,target=/all \
    --mount=type=tmpfs,target=/memory \
    --mount=type=secret,id=s,target=/secret \
    set -ex; owner() { test "$(stat -c %u:%g "$2")" = "$1"; }; \
    owner 0:0 /cache; echo x >/cache/x; chown 1000 /cache/x; \
    owner 1000:1000 /own; test "$(stat -c %a /own)" = 700; echo x >/own/root; \
    owner 1000:0 /seeded/y; owner 1000:0 /seeded; echo z >/seeded/z; \
    owner 0:0 /context/copied; ! touch /context/x; \
    owner 0:0 /scratch/copied; echo x >/scratch/x; owner 0:0 /scratch/x; \
    owner 1000:0 /one; ! echo x >/one; \
    owner 1000:0 /all/dir/y; owner 0:0 /all/bin/busybox; ! touch /all/x; \
    for at in /context /one /all; do \
        test "$(mnt mount - $at - 'MS_REMOUNT|MS_BIND' -)" = EPERM; \
    done; \
    echo x >/memory/x; owner 0:0 /memory/x; \
    owner 0:0 /secret; test "$(cat /secret)" = hidden
USER 1000
RUN --mount=type=cache,target=/cache,id=ID \
    --mount=type=cache,target=/own,id=ID-own,uid=1000,gid=1000,mode=0700 \
    --mount=type=secret,id=s,target=/secret,uid=1000,mode=0400 \
    set -ex; test "$(stat -c %u /cache/x /own/root | tr '\n' ' ')" = "1000 0 "; \
    echo x >>/cache/x; echo x >/own/user; test "$(cat /secret)" = hidden
"""
SSH = 'RUN --mount=type=ssh,uid=1000 test -S "$SSH_AUTH_SOCK" && test -w "$SSH_AUTH_SOCK"\n'


@pytest.fixture
def secret(place: Place) -> str:
    """The words that give a build the secret `s`."""
    file = place.directory("s") / "secret"
    file.write_text("hidden")
    return f"--secret=id=s,src={file}"


def test_mounts_of_buildkit(
    daemon: Dockerd, place: Place, secret: str, mark: Callable[[], str]
) -> None:
    dockerfile = MOUNTS.replace("ID", mark()) + SSH
    agent = place.directory("agent") / "socket"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(agent))
        listener.listen()
        daemon.build(dockerfile, secret, f"--ssh=default={agent}", files=FILES)
    # Nothing of ours stays in a cache.
    assert list(daemon.data_root.glob("overlay2/*/eci-work*")) == []


def test_mounts_of_buildah(
    buildah: Buildah,
    runtimes: dict[str, Path],
    runtime: str,
    secret: str,
    mark: Callable[[], str],
) -> None:
    buildah.build(MOUNTS.replace("ID", mark()), secret, runtime=runtimes[runtime], files=FILES)


CONFINED = """\
FROM box
RUN mknod /dev/disk b 8 0; mount -t tmpfs none /mnt; umount /proc/keys; wc -c /proc/keys; \
    echo "networks: $(ls /sys/class/net)"
"""


@pytest.mark.parametrize("kit", [False, True], ids=["legacy", "buildkit"])
def test_steps_are_confined(daemon: Dockerd, kit: bool) -> None:  # noqa: FBT001 - as above
    out = daemon.build(CONFINED, "--network=none", kit=kit).stdout
    assert "mknod: /dev/disk: Operation not permitted" in out
    assert "mount: permission denied" in out
    assert "umount: can't unmount /proc/keys" in out
    assert "0 /proc/keys" in out
    assert "networks: lo\n" in out


@pytest.mark.parametrize("kit", [False, True], ids=["legacy", "buildkit"])
def test_network_of_the_host_is_refused(daemon: Dockerd, kit: bool) -> None:  # noqa: FBT001 - as above
    done = daemon.build("FROM box\nRUN true\n", "--network=host", kit=kit, check=False)
    assert (done.returncode, HOST_NETWORK in done.stdout) == (1, True), done.stdout


def test_network_of_the_host_is_given_without_us(dockerd: Dockerd, place: Place) -> None:
    """The engine alone refuses nothing: here BuildKit finds the real runc."""
    place.engine_cgroups.add("buildkit")
    text = "FROM box\nRUN cat /proc/self/uid_map; readlink /proc/self/ns/net\n"
    out = dockerd.build(text, "--network=host").stdout
    assert " 0          0 4294967295\n" in out
    assert os.readlink(f"/proc/{dockerd.pid}/ns/net") in out


def test_network_of_the_host_is_refused_to_buildah(
    buildah: Buildah, runtimes: dict[str, Path], runtime: str
) -> None:
    text = "FROM box\nRUN true\n"
    done = buildah.build(text, "--network=host", runtime=runtimes[runtime], check=False)
    assert (done.returncode, HOST_NETWORK in done.stdout) == (1, True), done.stdout


def test_insecure_entitlement_is_refused(
    place: Place, bundles: Bundles, runtimes: dict[str, Path], runtime: str
) -> None:
    """No front end that can be had here asks for it: this is the bundle that BuildKit makes."""
    name = bundles.name()
    spec = make_spec(["true"], cgroup=bundles.cgroup(name), privileged=True)
    bundle = bundles.write(spec)
    step = place.directory("b") / "buildkit/executor" / name
    step.parent.mkdir(parents=True)
    bundle.rename(step)
    done = bundles.runtime(runtimes[runtime]).call("run", "--bundle", str(step), name, check=False)
    assert (done.returncode, INSECURE in done.stderr) == (1, True), done.stderr


def test_failing_step_fails_the_build(daemon: Dockerd) -> None:
    done = daemon.build("FROM box\nRUN exit 7\n", check=False)
    assert (done.returncode, "exit code: 7" in done.stdout) == (1, True), done.stdout
