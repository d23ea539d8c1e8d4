"""A Docker engine in a container: `docker run --privileged`, and a volume on /var/lib/docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.docker import SLEEP
from tests.support.inside import MAKE_BOX
from tests.support.waiting import wait_until
from tests.support.workload import PRIVILEGED, Workload

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.workload import Workloads

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the image.
    pytest.mark.timeout(120, func_only=True),
]


class Inner:
    """The engine inside, started and stopped by its tests."""

    def __init__(self, outer: Workload) -> None:
        """Take the container in which it is to run."""
        self.outer = outer

    def start(self) -> None:
        """Start dockerd, which starts its containerd, and wait for it."""
        self.outer.dockerd.docker(
            "exec", "-d", self.outer.container, "sh", "-c", "exec dockerd > /var/log/dockerd 2>&1"
        )
        wait_until(self.answers, "the inner engine answers", 30)

    def answers(self) -> bool:
        """Ask for its version."""
        return self.docker("version", check=False).returncode == 0

    def stop(self) -> None:
        """End dockerd, and wait until its containerd and its shims have gone too."""
        self.outer.out(
            "pid=$(cat /run/docker.pid); kill $pid\n"
            "while kill -0 $pid 2> /dev/null; do sleep 0.05; done\n"
            "while pgrep -x containerd > /dev/null; do sleep 0.05; done"
        )

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the client inside."""
        return self.outer.dockerd.docker(
            "exec", "-i", self.outer.container, "docker", *words, check=check
        )

    def out(self, *words: str) -> str:
        """Run the client inside and return what it printed, without the last newline."""
        return self.docker(*words).stdout.rstrip("\n")


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def inner(request: pytest.FixtureRequest, workloads: Workloads) -> Iterator[Inner]:
    """A running engine with the image `box`, on each runtime; it leaves nothing mounted."""
    volume = ["-v", "/var/lib/docker"]
    with workloads.start(request.param, *PRIVILEGED, *volume) as outer:
        engine = Inner(outer)
        engine.start()
        outer.out(MAKE_BOX)
        yield engine
        outer.out("docker ps -aq | xargs -r docker rm -fv > /dev/null")
        engine.stop()
        assert outer.mounts("/var/lib/docker") == ["/var/lib/docker"]
        assert outer.mounts("/run/docker/netns") == []


def test_engine_keeps_its_usual_drivers(inner: Inner) -> None:
    form = "{{.Driver}} {{.CgroupDriver}}"
    assert inner.out("info", "--format", form) == "overlay2 cgroupfs"


def test_run(inner: Inner) -> None:
    limit = ["--memory=64m", "--pids-limit=100"]
    script = "id -u; cat /proc/self/uid_map; cat /sys/fs/cgroup/memory*/memory.limit_in_bytes || "
    script += "cat /sys/fs/cgroup/memory.max"
    uid, *ids, memory = inner.out("run", "--rm", *limit, "box", "sh", "-c", script).split()
    # The inner container is in the user namespace of the outer one.
    assert (uid, ids[0], ids[2], memory) == ("0", "0", "65536", str(64 << 20))
    done = inner.docker(
        "run", "--rm", "-i", "box", "sh", "-c", "echo err >&2; exit 42", check=False
    )
    assert (done.returncode, done.stderr) == (42, "err\n")


def test_privileged_run(inner: Inner) -> None:
    script = (
        "mkdir /m && mount -t tmpfs none /m && echo x > /m/file && mount -o remount,ro /m && "
        "{ echo y > /m/file; umount /m && ls /m; }"
    )
    done = inner.docker("run", "--rm", "--privileged", "box", "sh", "-c", script)
    assert (done.stdout, "Read-only file system" in done.stderr) == ("", True)


def test_exec_and_cp(inner: Inner) -> None:
    container = inner.out("run", "-d", "box", "sh", "-c", SLEEP)
    inner.docker("exec", container, "sh", "-c", "echo made > /made && chown 1000 /made")
    listing = inner.outer.out(f"docker cp {container}:/made - | tar -t -v --numeric-owner")
    assert listing.split()[1] == "1000/0"
    inner.outer.out(f"echo given > /tmp/given && docker cp /tmp/given {container}:/given")
    assert inner.out("exec", container, "cat", "/given") == "given"
    inner.docker("rm", "-f", container)


def test_build_with_both_builders(inner: Inner) -> None:
    inner.outer.out(
        "mkdir -p /build && cd /build && echo given > given\n"
        "cat > Dockerfile <<'END'\n"
        "FROM box\n"
        "COPY --chown=1000:1000 given /given\n"
        "RUN stat -c %u /given > /owner && rm /bin/wget\n"
        'CMD ["sh", "-c", "cat /owner; ls /bin/wget"]\n'
        "END"
    )
    for builder in ("0", "1"):
        build = f"DOCKER_BUILDKIT={builder} docker build --no-cache -t built{builder} /build"
        inner.outer.out(build)
        done = inner.docker("run", "--rm", f"built{builder}", check=False)
        assert (done.returncode, done.stdout) == (1, "1000\n"), builder
        assert "No such file or directory" in done.stderr


def test_volume(inner: Inner) -> None:
    volume = inner.out("volume", "create")
    run = ["run", "--rm", "-v"]
    inner.docker(*run, f"{volume}:/v", "box", "sh", "-c", "echo kept > /v/file")
    script = "cat /v/file; touch /v/new"
    read = inner.docker(*run, f"{volume}:/v:ro", "box", "sh", "-c", script, check=False)
    assert (read.returncode, read.stdout) == (1, "kept\n")
    assert "Read-only file system" in read.stderr
    inner.docker("volume", "rm", volume)


def test_containers_on_a_network_reach_each_other(inner: Inner) -> None:
    inner.docker("network", "create", "net")
    serve = "echo served > /tmp/index.html; exec httpd -f -h /tmp"
    server = inner.out("run", "-d", "--network=net", "--name=server", "box", "sh", "-c", serve)
    try:
        script = "ping -c 1 -W 5 server > /dev/null && wget -q -O - http://server/index.html"
        run = ["run", "--rm", "--network=net", "box", "sh", "-c"]
        assert inner.out(*run, script) == "served"
        # Not from the default network: the engine's packet filter keeps the two apart.
        form = "{{.NetworkSettings.Networks.net.IPAddress}}"
        ping = ["ping", "-c", "1", "-W", "1", inner.out("inspect", "-f", form, server)]
        assert inner.docker("run", "--rm", "--network=net", "box", *ping).returncode == 0
        assert inner.docker("run", "--rm", "box", *ping, check=False).returncode == 1
    finally:
        inner.docker("rm", "-f", server)
        inner.docker("network", "rm", "net")


def test_published_port(inner: Inner) -> None:
    serve = "echo published > /tmp/index.html; exec httpd -f -h /tmp"
    server = inner.out("run", "-d", "-p", "8080:80", "box", "sh", "-c", serve)
    try:
        fetch = "busybox wget -q -O - http://127.0.0.1:8080/index.html"
        wait_until(lambda: inner.outer.run(fetch, check=False).returncode == 0, fetch, 10)
        assert inner.outer.out(fetch) == "published"
    finally:
        inner.docker("rm", "-f", server)


def test_engine_and_its_containers_start_again(inner: Inner) -> None:
    always = inner.out("run", "-d", "--restart=always", "box", "sh", "-c", SLEEP)
    kept = inner.out("run", "-d", "box", "sh", "-c", f"echo kept >> /kept; {SLEEP}")
    inner.stop()
    inner.start()
    running = "{{.State.Running}}"
    wait_until(lambda: inner.out("inspect", "-f", running, always) == "true", "it runs again", 30)
    assert inner.out("inspect", "-f", running, kept) == "false"
    inner.docker("start", kept)
    wait_until(
        lambda: inner.out("exec", kept, "cat", "/kept") == "kept\nkept", "it started twice", 30
    )
    inner.docker("rm", "-f", always, kept)
