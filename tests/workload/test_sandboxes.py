"""Programs that make namespaces of their own inside: bubblewrap, unshare, podman."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.debian import USER
from tests.support.workload import PRIVILEGED, UNFILTERED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workload import Workload, Workloads

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the image.
    pytest.mark.timeout(120, func_only=True),
]

KINDS = {"privileged": PRIVILEGED, "unfiltered": UNFILTERED}


@pytest.fixture(
    scope="module",
    params=[("eci", "unfiltered"), ("eci-crun", "privileged")],
    ids="-".join,
)
def box(request: pytest.FixtureRequest, workloads: Workloads) -> Iterator[Workload]:
    """A container that lets pivot_root through, with masks on its /proc and without."""
    runtime, kind = request.param
    with workloads.start(runtime, *KINDS[kind]) as container:
        yield container


@pytest.fixture(params=[0, USER], ids=["root", "user"])
def user(request: pytest.FixtureRequest) -> str:
    """A flag of `docker exec`: root, or somebody without any capability."""
    return f"--user={request.param}"


# Each sandbox's last word: what it may write, and what it may not.
PROBE = "touch /tmp/x && ls /tmp && ! touch /usr/x 2> /dev/null && echo held"
SANDBOX = "bwrap --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp"
WHOLE = "bwrap --bind / / --proc /proc --dev-bind /dev /dev"


def test_bubblewrap(box: Workload, user: str) -> None:
    assert box.out(f"{SANDBOX} true; {SANDBOX} sh -c '{PROBE}'", user).split() == ["x", "held"]


def test_bubblewrap_in_bubblewrap(box: Workload, user: str) -> None:
    script = f"{WHOLE} {SANDBOX} sh -c '{PROBE}'; {SANDBOX} {SANDBOX} sh -c '{PROBE}'"
    assert box.out(script, user).split() == ["x", "held", "x", "held"]


def test_bubblewrap_hides_and_binds(box: Workload, user: str) -> None:
    script = (
        "bwrap --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib64 /lib64 "
        "--symlink usr/lib /lib --dir /var --ro-bind-data 3 /given --perms 0700 --tmpfs /run "
        "--chdir /var sh -c 'ls -A / | sort; cat /given; stat -c %a /run' 3<<< given"
    )
    assert box.out(script, user).split() == [
        *["bin", "given", "lib", "lib64", "run", "usr", "var"],
        *["given", "700"],
    ]


def test_unshare_twice(box: Workload, user: str) -> None:
    # Without "bind" the kernel itself refuses: it shows a tmpfs with ids of the host in its
    # options, and mount(8) passes them on to where they mean nothing.
    mount = (
        "mount -t tmpfs none /mnt && echo x > /mnt/x && mount -o remount,bind,ro /mnt && "
        "! touch /mnt/y 2> /dev/null && ls /mnt"
    )
    once = f"unshare -Urm sh -c '{mount}'"
    twice = f"unshare -Urm {once}"
    assert box.out(f"{once}\n{twice}\nls -A /mnt", user).split() == ["x", "x"]


def test_sandboxes_have_processes_of_their_own(workloads: Workloads, runtime: str) -> None:
    """A new procfs two user namespaces deep, where no mask keeps the kernel from giving one."""
    sandbox = "bwrap --unshare-all --bind / / --proc /proc --dev /dev --tmpfs /tmp"
    count = "ls -d /proc/[0-9]* | wc -l"
    script = (
        f"{sandbox} {sandbox} sh -c '{count}'\n"
        "unshare -Urmpf --mount-proc unshare -Urmpf --mount-proc sh -c 'echo $$'"
    )
    with workloads.start(runtime, *PRIVILEGED) as box:
        for user in ("--user=0", f"--user={USER}"):
            processes, pid = (int(word) for word in box.out(script, user).split())
            assert processes <= 4
            assert pid == 1


def test_default_profile_lets_nobody_unshare(workloads: Workloads, runtime: str) -> None:
    """The engine's profile decides that, and is not loosened."""
    with workloads.start(runtime) as box:
        for script in ("unshare -Urm true", "unshare -m true"):
            done = box.run(script, check=False)
            assert (done.returncode, done.stderr) == (
                1,
                "unshare: unshare failed: Operation not permitted\n",
            )


# -- podman -------------------------------------------------------------------------------

MAKE_ARCHIVE = """\
mkdir -p /srv/box/bin /srv/box/tmp /srv/box/proc /srv/box/etc
cp /bin/busybox /srv/box/bin
chroot /srv/box /bin/busybox --install -s /bin
tar -C /srv/box -cf /srv/box.tar .
mkdir -p -m 700 /run/user/1000
chown -R user: /home/user /run/user/1000
"""
# The network needs /dev/net/tun, which on many machines is root's alone.
PODMAN = """\
exec 2> /tmp/said
export HOME=$1 XDG_RUNTIME_DIR=$2
cd
run="podman --storage-driver=overlay run --rm --network=none"
podman --storage-driver=overlay import -q -c 'ENV PATH=/bin' /srv/box.tar box > /dev/null 2>&1
$run box sh -c 'id -u; cat /proc/self/uid_map'
$run --privileged box sh -c 'mount -t tmpfs none /tmp && echo x > /tmp/x && ls /tmp'
$run -v $PWD:/v:ro box sh -c 'touch /v/x 2> /dev/null || echo held'
$run box sh -c 'echo x > /x; exit 42' || echo $?
podman --storage-driver=overlay rmi -fa > /dev/null 2>&1
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_podman(workloads: Workloads, runtime: str, who: str) -> None:
    """Podman with runc or crun below it as Debian has them, by root and without any privilege."""
    volumes = ["--volume=/var/lib/containers", "--volume=/home/user"]
    with workloads.start(runtime, *PRIVILEGED, *volumes) as outer:
        outer.out(MAKE_ARCHIVE)
        home, state, *flags = (
            ("/root", "/run") if who == "root" else ("/home/user", "/run/user/1000", "--user=1000")
        )
        seen = outer.out(f"set -- {home} {state}\n{PODMAN}", *flags, timeout=90).split("\n")
        root = ["0 100000 65536"] if who == "root" else [f"0 {USER} 1", "1 10000 50000"]
        maps = [" ".join(line.split()) for line in seen[1 : len(root) + 1]]
        if who == "root":
            maps = [f"0 100000 {maps[0].split()[2]}"]
        assert (seen[0], maps) == ("0", root)
        assert seen[len(root) + 1 :] == ["x", "held", "42"], outer.out("cat /tmp/said", *flags)
        assert outer.mounts("/home/user") == ["/home/user"]
