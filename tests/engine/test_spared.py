"""Containers whose unmounts, binds and new file systems are nobody's business: not trapped.

Seen by stopping the worker: what is trapped waits for it then, and what is not goes on.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bundle import appearing, bind
from tests.support.filters import ALLOW, I386, NOTIFY, X86_64, filters_of, verdict
from tests.support.races import pairs
from tests.support.waiting import call_of, stop, wait_until
from tests.support.worker import worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.bundle import Spec
    from tests.support.containers import Container, Containers
    from tests.support.docker import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.engine]

PATIENCE = 10.0
PAIRS = (
    "mount none /mnt tmpfs - -",
    "umount2 /mnt -",
    "mount none /mnt proc MS_NOSUID -",
    "umount2 /mnt UMOUNT_NOFOLLOW",
    "mount - / - MS_PRIVATE|MS_REC -",
    "mount /tmp /mnt - MS_BIND -",
    "umount2 /mnt -",
    "mount /w /mnt - MS_BIND|MS_REC|MS_SILENT -",
    "umount2 /mnt -",
    "umount2 /mnt -",
)
ANSWERS = ["0"] * 9 + ["EINVAL"]


class Box:
    """A running container, and its worker."""

    def __init__(self, container: Container) -> None:
        self.runtime = container.runtime
        self.name = container.name
        self.pid = container.pid

    def run(self, *calls: str, program: str = "mnt") -> list[str]:
        """Make calls in it; return the answers."""
        words = shlex.split(" , ".join(calls))
        return self.runtime.call("exec", self.name, program, *words).stdout.split()

    @contextmanager
    def without_worker(self) -> Iterator[None]:
        """Have nobody answer within the block."""
        worker = worker_of(self.pid)
        stop(worker)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)

    def waits(self, call: str) -> bool:
        """Say whether the call waits for the worker, who is stopped; it is answered afterwards."""
        pid_file = f"{self.runtime.root}/pid"
        argv = self.runtime.argv("exec", "--pid-file", pid_file, self.name, "mnt", *call.split())
        with self.without_worker(), subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:

            def is_settled() -> bool:
                if process.poll() is not None:
                    return True
                with open(pid_file, encoding="ascii") as file:
                    text = file.read()
                return bool(text) and call_of(int(text)) in {165, 166}

            wait_until(lambda: os.path.exists(pid_file) and is_settled(), call, PATIENCE)
            waits = process.poll() is None
            os.kill(worker_of(self.pid), signal.SIGCONT)
        os.unlink(pid_file)
        return waits


class Boxes:
    """Makes such containers, privileged ones."""

    def __init__(self, containers: Containers) -> None:
        self.place = containers.place
        self.root = containers.root
        self.volume = containers.volume
        self._start = containers.start

    def start(self, *mounts: dict[str, Any], **options: Any) -> Box:
        """Start one; `options` as `Containers.start` has them."""
        return Box(self._start(*mounts, **options))


@pytest.fixture
def boxes(containers: Containers) -> Boxes:
    """A maker of containers, on each runtime."""
    return Boxes(containers)


def test_unmounts_and_new_file_systems_are_not_trapped(boxes: Boxes) -> None:
    box = boxes.start(bind(boxes.volume(), "/w"))
    with box.without_worker():
        assert box.run("umount2 /proc -", "umount2 /sys -") == ["EBUSY", "EBUSY"]
        assert box.run(*PAIRS) == ANSWERS
        assert box.run(*PAIRS, program="mnt32") == ANSWERS
    assert box.waits("mount /w /mnt - MS_MOVE -")
    assert box.run("umount2 /mnt -", "umount2 /mnt -") == ["0", "EINVAL"]


def test_flags_are_held_all_the_same(boxes: Boxes) -> None:
    box = boxes.start(bind(boxes.volume(), "/w"))
    loosen = (
        "mount - /dev - MS_REMOUNT|MS_BIND -",
        "mount - /dev - MS_REMOUNT -",
        "mount /dev /mnt - MS_BIND -",
        "mount - /mnt - MS_REMOUNT|MS_BIND|MS_NODEV -",
        "mount - /mnt - 0xc0ed1020 -",
        "umount2 /mnt -",
        "mount none /mnt tmpfs MS_NOSUID -",
        "mount - /mnt - MS_REMOUNT|MS_BIND -",
        "umount2 /mnt -",
    )
    expected = ["EPERM", "EPERM", "0", "EPERM", "EPERM", "0", "0", "0", "0"]
    assert box.run(*loosen) == expected
    assert box.run(*loosen, program="mnt32") == expected


NOT_LOOSENED = (
    ("mount_setattr /dev - - MOUNT_ATTR_NOSUID -", "EPERM"),
    ("mount_setattr /dev AT_RECURSIVE - MOUNT_ATTR_NOEXEC -", "EPERM"),  # of /dev/pts
    ("mount_setattr / AT_RECURSIVE - MOUNT_ATTR_NOSUID -", "EPERM"),
    ("clone /dev /mnt -", "0"),
    ("mount_setattr /mnt - - MOUNT_ATTR_NOSUID -", "EPERM"),
    ("umount2 /mnt MNT_DETACH", "0"),
    ("open_tree 1 cwd / OPEN_TREE_CLONE|AT_RECURSIVE", "0"),
    ("setattr 1 '' AT_EMPTY_PATH|AT_RECURSIVE - MOUNT_ATTR_NOSUID -", "EPERM"),
    # A tree that was taken off its place is nobody's, and changes in no place.
    ("open_tree 2 cwd /dev -", "0"),
    ("umount2 /dev MNT_DETACH", "0"),
    ("setattr 2 '' AT_EMPTY_PATH - MOUNT_ATTR_NOSUID -", "EINVAL|EPERM"),
)


@pytest.mark.parametrize("program", ["mnt", "mnt32"])
def test_flags_are_held_by_the_new_api(boxes: Boxes, program: str) -> None:
    calls, wanted = zip(*NOT_LOOSENED, strict=True)
    seen = boxes.start().run(*calls, program=program)
    assert all(answer in one.split("|") for answer, one in zip(seen, wanted, strict=True)), seen


def test_filters_say_so_for_all_flags(boxes: Boxes) -> None:
    """As the kernel has them: what libseccomp makes of several conditions on one argument."""
    chain = filters_of(boxes.start(bind(boxes.volume(), "/w")).pid)
    numbers = {
        X86_64: {"mount": 165, "umount2": 166, "move_mount": 429, "fsmount": 432, "setattr": 442},
        I386: {"mount": 21, "umount": 22, "umount2": 52, "move_mount": 429, "fsmount": 432,
               "setattr": 442},
    }  # fmt: skip
    random = Random(1)  # noqa: S311 - nothing secret

    def action(arch: int, name: str, *args: int) -> int:
        """The strongest of all filters' actions: with us the smallest number."""
        return min(verdict(one, arch, numbers[arch][name], args) for one in chain)

    for arch, names in numbers.items():
        for name in (name for name in names if "umount" in name):
            seen = [action(arch, name, 1, others) for others in (0, 1, 2, 4, 8, 10, 2**32 - 1)]
            assert [NOTIFY if one == NOTIFY else ALLOW for one in seen] == seen
            detaching = {2, 5, 6} if name == "umount2" else set()
            assert [one == NOTIFY for one in seen] == [i in detaching for i in range(7)]
        assert action(arch, "fsmount") == ALLOW
        assert action(arch, "move_mount") == action(arch, "setattr") == NOTIFY
        for judged in (0, 32, 8192, 32 | 8192):
            for _ in range(1000):
                others = random.getrandbits(32 if arch == I386 else 64) & ~(32 | 8192)
                wanted = NOTIFY if judged else ALLOW
                assert action(arch, "mount", 1, 2, 3, others | judged) == wanted


def test_kernel_file_systems_stay(boxes: Boxes) -> None:
    """The kernel finds them busy, and the supervisor says so of what would not care."""
    box = boxes.start()
    calls = [
        f"umount2 {point} {flags}"
        for point in ("/proc", "/sys")
        for flags in ("-", "MNT_DETACH", "MNT_DETACH|UMOUNT_NOFOLLOW", "UMOUNT_NOFOLLOW")
    ]
    assert box.run(*calls) == ["EBUSY"] * 8
    assert box.run("umount2 /proc MNT_EXPIRE", "umount2 /proc MNT_EXPIRE") == ["EBUSY"] * 2
    assert box.run("mount /proc /mnt - MS_MOVE -") == ["EBUSY"]
    assert box.run("umount /proc", program="mnt32") == ["EBUSY"]


@pytest.mark.parametrize(("runtime", "what"), pairs(("string", "fd", "link")))
def test_flags_are_held_while_mounts_come_and_go(boxes: Boxes, what: str) -> None:
    """What is not trapped takes no turn: it happens in the midst of what is being judged."""
    box = boxes.start()
    pairs = " , ".join(["mount none /mnt/l tmpfs - -", "umount2 /mnt/l -"] * 20)
    script = f"""
        mnt mount none /mnt tmpfs - - >&2; mkdir /mnt/l
        while [ ! -e /tmp/end ]; do mnt {pairs} > /dev/null; done &
        race remount {what} 2500 /mnt /dev; echo "$?"
        touch /tmp/end; wait; rm /tmp/end
        grep -c ' /dev rw,nosuid[ ,]' /proc/self/mountinfo
    """
    lines = box.runtime.call("exec", box.name, "sh", "-c", script, timeout=60).stdout.splitlines()
    seen = dict(word.split("=") for word in lines[0].split())
    assert lines[1:] == ["0", "1"]
    assert {"0", "EPERM"} <= set(seen)
    assert set(seen) <= {"0", "EPERM", "EINVAL", "ENOENT", "flips", "leaks"}


@pytest.mark.parametrize(("runtime", "how"), pairs(("grow", "pivot")))
def test_flags_are_held_while_a_tree_grows(boxes: Boxes, how: str) -> None:
    """/dev comes into a tree that loses nosuid, which it must not lose itself.

    By a bind, or with pivot_root(2), which is trapped nowhere.  The other mounts of the tree make
    it longer from the look at what there is to the change.
    """
    script = f"""
        mnt mount none /mnt tmpfs - - >&2; mkdir /mnt/l
        for n in $(seq 40); do mkdir /mnt/$n; mnt mount none /mnt/$n tmpfs - - >&2; done
        race setattr {how} 3000 /mnt /dev; echo "$?"
    """
    box = boxes.start()
    lines = box.runtime.call("exec", box.name, "sh", "-c", script, timeout=60).stdout.splitlines()
    seen = dict(word.split("=") for word in lines[0].split())
    assert lines[1:] == ["0"]
    assert seen.pop("leaks") == "0"
    assert {"0", "EPERM", "flips"} == set(seen)


def test_detached_trees_change_as_under_the_kernel(boxes: Boxes) -> None:
    calls = (
        "mount none /mnt tmpfs - -",
        "open_tree 1 cwd /mnt OPEN_TREE_CLONE|AT_RECURSIVE",
        "setattr 1 '' AT_EMPTY_PATH|AT_RECURSIVE - MOUNT_ATTR_RDONLY -",
    )
    assert boxes.start().run(*calls) == ["0", "0", "0"]


TREES = (
    ("mount none /mnt tmpfs MS_NOSUID|MS_NOEXEC -", "0"),
    ("mkdir /mnt/a", "0"),
    ("mkdir /mnt/b", "0"),
    ("mount none /mnt/a tmpfs MS_NOSUID -", "0"),
    ("mount none /mnt/b tmpfs MS_NOSUID -", "0"),
    ("mount /tmp /mnt/b - MS_BIND -", "0"),
    ("mount_setattr /mnt AT_RECURSIVE MOUNT_ATTR_NODEV MOUNT_ATTR_NOSUID -", "0"),
    ("mount_setattr /mnt AT_RECURSIVE - 0x1000000 -", "EINVAL"),
)


def test_a_tree_of_its_own_changes_as_a_whole(boxes: Boxes) -> None:
    """Mount by mount, as the kernel would; but for what is covered, to which no path leads."""
    box = boxes.start()
    calls, wanted = zip(*TREES, strict=True)
    assert box.run(*calls) == list(wanted)
    seen = box.runtime.call("exec", box.name, "cat", "/proc/self/mountinfo").stdout.splitlines()
    flags = [line.replace(",idmapped", "").split()[4:6] for line in seen if " /mnt" in line]
    assert flags == [
        ["/mnt", "rw,nodev,noexec,relatime"],
        ["/mnt/a", "rw,nodev,relatime"],
        ["/mnt/b", "rw,nosuid,relatime"],
        ["/mnt/b", "rw,nodev,relatime"],
    ]


def _masked(spec: Spec) -> None:
    spec["linux"]["maskedPaths"] = ["/proc/kcore"]


def _with_profile(spec: Spec) -> None:
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}


def _with_hook(spec: Spec) -> None:
    spec["hooks"] = {"prestart": [{"path": "/bin/true", "args": ["true"]}]}


def _twice(spec: Spec) -> None:
    spec["mounts"].append({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"})


@pytest.mark.parametrize("change", [_masked, _with_profile, _with_hook, _twice])
def test_what_may_hide_something_is_trapped(boxes: Boxes, change: Callable[[Spec], object]) -> None:
    assert boxes.start(change=change).waits("umount2 /mnt -")


def test_a_read_only_volume_is_trapped(boxes: Boxes) -> None:
    assert boxes.start(bind(boxes.volume(), "/w", "ro")).waits("umount2 /mnt -")


def test_a_link_that_leads_onto_another_mount_is_trapped(boxes: Boxes) -> None:
    (boxes.root / "link").symlink_to("w")
    box = boxes.start(bind(boxes.volume(), "/w"), bind(boxes.volume(), "/link"))
    assert box.waits("umount2 /mnt -")


@pytest.mark.parametrize("what", ["tmpfs", "proc"])
def test_what_a_volume_brings_along_is_trapped(boxes: Boxes, what: str) -> None:
    """Something read-only over what can be written, or a procfs of the host's."""
    volume = boxes.volume()
    (volume / "in").mkdir()
    settings = boxes.place.directory("set") / "settings.json"
    settings.write_text(json.dumps({"vm": {"sharedPaths": ["/", str(volume / "in")]}}))
    subprocess.run(["mount", "-t", what, "-o", "ro", "none", volume / "in"], check=True)
    try:
        box = boxes.start(bind(volume, "/w"), settings=settings)
        assert box.waits("umount2 /mnt -")
    finally:
        subprocess.run(["umount", volume / "in"], check=True)


def test_who_comes_to_see_a_host_protected_path_is_trapped(boxes: Boxes) -> None:
    volume, hidden = boxes.volume(), boxes.volume()
    settings = boxes.place.directory("set") / "settings.json"
    given = {"configurationFileVersion": 2, "vm": {"protectedPaths": [str(volume / "secret")]}}
    settings.write_text(json.dumps(given))

    def change(spec: Spec) -> None:
        spec["hooks"] = appearing(hidden, volume / "secret")

    box = boxes.start(bind(volume, "/w"), settings=settings, change=change)
    assert box.waits("umount2 /mnt -")
    assert boxes.start(bind(boxes.volume(), "/w"), settings=settings).run(*PAIRS) == ANSWERS


def test_a_trace_shows_every_call(boxes: Boxes) -> None:
    trace = boxes.place.directory("trace") / "trace"
    box = boxes.start(env={"ECI_TRACE": str(trace)})
    assert box.run("umount2 /mnt -") == ["EINVAL"]
    wait_until(lambda: "umount2" in trace.read_text(), "no line", PATIENCE)


MEDDLER = """#!/usr/bin/env python3
import json, os, sys
if "create" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    config = json.load(open(path))
    config["mounts"].append(
        {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]})
    json.dump(config, open(path, "w"))
os.execv(%r, [%r, *sys.argv[1:]])
"""


def test_a_container_that_is_not_as_expected_is_stopped(boxes: Boxes, runtime: str) -> None:
    """Here the runtime mounts something read-only of its own accord."""
    name = "crun" if runtime == "eci-crun" else "runc"
    real = shutil.which(name)
    directory = boxes.place.directory("bin")
    (directory / name).write_text(MEDDLER % (real, name))
    (directory / name).chmod(0o755)
    try:
        box = boxes.start(env={"PATH": f"{directory}:{os.environ['PATH']}"}, begin=False)
    except AssertionError as error:
        # It was stopped before crun or runc had heard of its first process for the last time.
        if not any(text in str(error) for text in ("read from the init process", "init-p: broken")):
            raise
        return
    wait_until(
        lambda: json.loads(box.runtime.call("state", box.name).stdout)["status"] == "stopped",
        "it can be started",
        PATIENCE,
    )


def test_docker_privileged_is_spared(dockerd: Dockerd, mark: Callable[[], str]) -> None:
    name = mark()
    run = ("run", "--privileged", "--rm", "--detach", f"--volume={mark()}:/w", "--name", name)
    dockerd.docker(*run, "box", "sleep", "1000")
    worker = worker_of(int(dockerd.inspect(name, "{{.State.Pid}}")))
    stop(worker)
    try:
        words = " , ".join(PAIRS).split()
        assert dockerd.out("exec", name, "mnt", *words).split() == ANSWERS
    finally:
        os.kill(worker, signal.SIGCONT)
        dockerd.docker("rm", "--force", "--volumes", name)
