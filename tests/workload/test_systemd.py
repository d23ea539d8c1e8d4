"""systemd as the first process of a container, and units that it puts into sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eci_supervisor.engines.service import drop_in
from tests.support.inside import AWAIT_BOOT
from tests.support.workload import PRIVILEGED, SYS_ADMIN, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workload import Workloads

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the image.
    pytest.mark.timeout(120, func_only=True),
]

BOOT = (
    "--tmpfs=/run --tmpfs=/run/lock --stop-signal=SIGRTMIN+3 --env=container=docker "
    "--volume=/var/lib/docker"
).split()

# debugfs and tracefs can be mounted by the machine's own root alone, with or without us; systemd
# tries where it has CAP_SYS_RAWIO, which is where it is privileged.
NOT_IN_A_USER_NAMESPACE = {"sys-kernel-debug.mount", "sys-kernel-tracing.mount"}
# Docker gives a container that is not privileged its cgroups read-only, where systemd needs to
# write: it gets a mount of its own hierarchy, version 1 or 2, from whoever starts it.
OWN_CGROUPS = """
[ ! -d /sys/fs/cgroup/systemd ] || version=1
mount -t tmpfs cgroup /sys/fs/cgroup
if [ "$version" ]
then
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup /sys/fs/cgroup
fi
"""
KINDS = {
    "privileged": (PRIVILEGED, "", NOT_IN_A_USER_NAMESPACE),
    "sys_admin": (SYS_ADMIN, OWN_CGROUPS, set[str]()),
}


@pytest.fixture(
    scope="module",
    params=[(runtime, kind) for runtime in ("eci", "eci-crun") for kind in KINDS],
    ids="-".join,
)
def booted(request: pytest.FixtureRequest, workloads: Workloads) -> Iterator[Workload]:
    """A container that systemd has booted, with the units that are to fail; it ends in order."""
    runtime, kind = request.param
    flags, before, expected = KINDS[kind]
    with workloads.start(runtime, *BOOT, *flags, command=f"{before}exec /sbin/init") as machine:
        state = machine.run(AWAIT_BOOT, check=False).stdout.strip()
        failed = machine.out("systemctl --failed --plain --no-legend | cut -d' ' -f1").split()
        assert set(failed) == expected, machine.out("journalctl -b --no-pager | tail -50")
        assert state == ("degraded" if expected else "running")
        yield machine
        engine = machine.dockerd
        engine.docker("stop", "-t", "30", machine.container)
        # 137 would be the engine's patience at its end.
        assert engine.inspect(machine.container, "{{.State.ExitCode}}") in {"0", "130"}


def run_unit(machine: Workload, script: str, *settings: str) -> list[str]:
    """Run `script` as a service with `settings`; return what it printed, word by word."""
    lines = "\n".join(settings)
    machine.out(
        "cat > /srv/script <<'END'\n"
        f"{script}\n"
        "END\n"
        "cat > /run/systemd/system/one.service <<'END'\n"
        "[Service]\nType=oneshot\nExecStart=/bin/sh -e /srv/script\n"
        f"StandardOutput=truncate:/srv/seen\n{lines}\n"
        "END\n"
        "rm -f /srv/seen; systemctl daemon-reload\n"
        "systemctl start one || { journalctl --no-pager -n 20 >&2; exit 1; }"
    )
    return machine.out("cat /srv/seen").split()


REFUSED = "if ({}) 2> /dev/shm/e; then echo done; else sed 's/.*: //; s/ /-/g' /dev/shm/e; fi\n"
READ_ONLY = "Read-only-file-system"


def test_service_in_a_sandbox(booted: Workload) -> None:
    """The three that nearly every service of a distribution has, from a unit file."""
    booted.out(
        "cat > /etc/systemd/system/probe.service <<'END'\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        "PrivateTmp=yes\n"
        "ProtectSystem=strict\n"
        "PrivateMounts=yes\n"
        "StateDirectory=probe\n"
        "ExecStart=/bin/sh -e /srv/probe\n"
        "END\n"
        "cat > /srv/probe <<'END'\n"
        "exec > /var/lib/probe/seen\n"
        "ls -A /tmp\n"
        "echo own > /tmp/own\n"
        f"{REFUSED.format('echo x > /usr/new')}"
        f"{REFUSED.format('echo x > /etc/new')}"
        "mount -t tmpfs none /mnt && echo x > /mnt/inside\n"
        "END\n"
        "echo x > /tmp/outside\n"
        "systemctl daemon-reload\n"
        "systemctl start probe"
    )
    show = "systemctl show --value -p Result -p ActiveState -p ExecMainStatus probe"
    assert sorted(booted.out(show).split()) == ["0", "active", "success"]
    assert booted.out("cat /var/lib/probe/seen").split() == [READ_ONLY, READ_ONLY]
    # What it wrote to its /tmp and mounted is nobody else's, and its /tmp goes with it.
    assert booted.out(
        "ls /mnt; ls /tmp/outside; ls /tmp/systemd-private-*-probe.service-*/tmp"
    ) == ("/tmp/outside\nown")
    booted.out("systemctl stop probe; rm /tmp/outside")
    assert booted.run("ls -d /tmp/systemd-private-*-probe*", check=False).returncode == 2


def test_drop_in_of_eci_enable_has_the_last_word(booted: Workload) -> None:
    change = drop_in("one", "/var/lib/eci/path", '/opt/50% "off":/usr/bin:/bin')
    directory = "/etc/systemd/system/one.service.d"
    assert change.path == f"{directory}/zz-eci.conf"
    booted.out(f"mkdir {directory}; cat > {change.path} <<'END'\n{change.after.decode()}END\n")
    try:
        seen = run_unit(booted, 'echo "$PATH" | tr " " _', "Environment=PATH=/bin", "User=root")
    finally:
        booted.out(f"rm -r {directory}; systemctl daemon-reload")
    assert seen == ['/var/lib/eci/path:/opt/50%_"off":/usr/bin:/bin']


def test_hidden_and_read_only_directories(booted: Workload) -> None:
    booted.out("mkdir -p /srv/a /srv/b /srv/c; echo x | tee /srv/a/f /srv/b/f /srv/c/f")
    seen = run_unit(
        booted,
        "ls /srv/a /srv/b/f /srv/bound\n"
        + REFUSED.format("echo x > /srv/b/f")
        + REFUSED.format("cat /srv/c/f")
        + "ls -A /root /home",
        "TemporaryFileSystem=/srv/a:ro",
        "ReadOnlyPaths=/srv/b",
        "InaccessiblePaths=/srv/c",
        "BindReadOnlyPaths=/srv/c:/srv/bound",
        "ProtectHome=tmpfs",
    )
    assert seen == [
        *["/srv/b/f", "/srv/a:", "/srv/bound:", "f"],
        *[READ_ONLY, "No-such-file-or-directory", "/home:", "/root:"],
    ]


def test_protected_kernel_files(booted: Workload) -> None:
    seen = run_unit(
        booted,
        REFUSED.format("echo x > /proc/sys/kernel/domainname")
        + REFUSED.format("mkdir /sys/fs/cgroup/systemd/new")
        + "ls -A /dev | grep -c . \n"
        + "echo x > /dev/null",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "PrivateDevices=yes",
    )
    assert seen[:2] == [READ_ONLY, READ_ONLY]
    assert int(seen[2]) > 5


def test_dynamic_user_in_a_root_directory(booted: Workload) -> None:
    """A whole tree of the service's own, with a user that exists as long as it runs."""
    booted.out("mkdir -p /srv/root/usr; cp -P /bin /lib /lib64 /srv/root")
    seen = run_unit(
        booted,
        "id -u; ls -d /var/lib /home 2> /dev/null || echo nothing; readlink /proc/self/exe",
        "DynamicUser=yes",
        "RootDirectory=/srv/root",
        "MountAPIVFS=yes",
        "BindReadOnlyPaths=/usr /srv/script",
    )
    assert 61184 <= int(seen[0]) <= 65519
    assert seen[1:] == ["nothing", "/usr/bin/readlink"]


def test_mount_unit(booted: Workload) -> None:
    booted.out(
        "cat > /etc/systemd/system/media.mount <<'END'\n"
        "[Mount]\nWhat=tmpfs\nWhere=/media\nType=tmpfs\nOptions=size=1m,nosuid\nEND\n"
        "systemctl daemon-reload; systemctl start media.mount; echo x > /media/file"
    )
    assert booted.out("findmnt -n -o FSTYPE,SOURCE /media").split() == ["tmpfs", "tmpfs"]
    booted.out("systemctl stop media.mount")
    assert booted.out("ls -A /media; findmnt -n /media || echo gone") == "gone"
