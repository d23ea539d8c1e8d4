"""What can be seen of containers: audit log, explanation, trace, counts and metrics."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eci_supervisor.kernel import watch
from eci_supervisor.kernel.watch import Watch
from eci_supervisor.observe import counts, find, metrics
from eci_supervisor.observe.limit import BURST
from eci_supervisor.policy.refusals import TEXTS
from tests.support.bundle import bind, make_spec
from tests.support.waiting import stop, wait_until
from tests.support.worker import holder_of, worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eci_supervisor.observe.audit import Record
    from eci_supervisor.observe.counts import Seen
    from tests.support.bundle import Runtime, Spec
    from tests.support.containers import Container, Containers
    from tests.support.docker import Dockerd
    from tests.support.engines import Bundles
    from tests.support.place import Place
    from tests.support.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.engine]

ECI = Path(sys.executable).parent / "eci"
LOOSEN = "mount - /vol - MS_REMOUNT|MS_BIND -".split()
LOOSENING = 'mount(NULL, "/vol", NULL, MS_REMOUNT|MS_BIND, NULL)'
MOUNT = "mount none /mnt tmpfs - -".split()
UMOUNT = "umount2 /mnt -".split()


@pytest.fixture
def runtime() -> str:
    """One runtime is enough: what is shown comes from the worker, which is the same."""
    return "eci"


@pytest.fixture
def logs(place: Place) -> Path:
    """A directory for the audit log of one test."""
    return place.directory("log")


class Box:
    """A container with a read-only volume, and an audit log of its own."""

    def __init__(self, container: Container, volume: Path, logs: Path, place: Place) -> None:
        self.container = container
        self.volume = volume
        self.logs = logs
        self.place = place

    @property
    def seen(self) -> Seen:
        """It, as everybody else sees it."""
        there = counts.containers(str(self.place.state_dir))
        return next(seen for seen in there if seen.id == self.container.name)

    def calls(self, *calls: list[str]) -> list[str]:
        """Make calls, one after the other, and return the answers."""
        words = ["mnt"]
        for call in calls:
            words += [*call, ","]
        return self.container.run(*words[:-1])

    def refuse(self, times: int = 1) -> None:
        """Make calls that are refused."""
        assert self.calls(*[LOOSEN] * times) == ["EPERM"] * times

    def records(self) -> list[Record]:
        """Return what stands in the audit log about it."""
        path = self.logs / "audit.log"
        there = find.records(str(path), self.container.name) if path.exists() else ()
        return [record for record in there if record.container == self.container.name]

    def wait_for(self, number: int) -> list[Record]:
        """Wait until so many records stand in the log, and return them."""
        wait_until(lambda: len(self.records()) >= number, "not in the audit log")
        found = self.records()
        assert len(found) == number
        return found

    def eci(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `eci` where this log is the host's."""
        environment = os.environ | {"ECI_LOG_DIR": str(self.logs)}
        return subprocess.run(
            [ECI, *words], capture_output=True, text=True, check=check, env=environment
        )


@pytest.fixture
def box(containers: Containers, place: Place, logs: Path) -> Box:
    """One that runs."""
    volume = containers.volume()
    environment = {"ECI_LOG_DIR": str(logs)}
    container = containers.start(bind(volume, "/vol", "ro"), privileged=False, env=environment)
    return Box(container, volume, logs, place)


# -- audit log and explanation ------------------------------------------------------------


def test_refused_call_is_in_the_audit_log_and_explained(box: Box) -> None:
    box.refuse()
    (record,) = box.wait_for(1)
    host = box.volume.stat()
    assert record.target is not None
    assert (record.event, record.of, record.reason) == ("refusal", "call", "refused:no-loosening")
    assert (record.comm, record.result) == ("mnt", "-1 EPERM")
    assert record.call == LOOSENING
    assert record.target.path == "/vol"
    assert record.target.inode == host.st_ino
    assert record.target.device == f"{os.major(host.st_dev)}:{os.minor(host.st_dev)}"
    said = dict(
        line.split(maxsplit=1) for line in box.eci("explain", record.id).stdout.splitlines()
    )
    assert said["asked"] == record.call
    assert said["target"].startswith("/vol (")
    assert said["rule"] == TEXTS["refused:no-loosening"].rule
    assert said["setting"] == "none would allow it"
    assert record.id in box.eci("explain").stdout
    assert json.loads(box.eci("explain", "--json", record.id).stdout)["id"] == record.id
    unknown = box.eci("explain", "zzzz", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("Error: no refusal zzzz in ")


def test_what_a_path_led_to_is_told_and_not_what_it_was_called(box: Box) -> None:
    """A link, a name beneath it, and both ends of a move."""
    run = box.container.run
    run("ln", "-s", "/vol", "/tmp/link")
    assert box.calls("mount - /tmp/link - MS_REMOUNT|MS_BIND -".split()) == ["EPERM"]
    assert box.calls("umount2 /proc/sys -".split()) == ["EPERM"]
    assert box.calls("mount /proc /mnt - MS_MOVE -".split()) == ["EBUSY"]
    run("rm", "/tmp/link")
    link, umount, move = box.wait_for(3)
    assert "/tmp/link" in link.call
    ends = [
        (record.reason, getattr(record.source, "path", None), getattr(record.target, "path", None))
        for record in (link, umount, move)
    ]
    assert ends == [
        ("refused:no-loosening", None, "/vol"),
        ("refused:no-uncovering", None, "/proc/sys"),
        ("refused:kernel-fs-busy", "/proc", "/mnt"),
    ]


def test_no_byte_of_a_container_reaches_log_or_terminal(
    box: Box, follow: Callable[..., Follower]
) -> None:
    """Neither the name of a program nor a path can say something that it is not."""
    evil = "\x1b[2Jx\n\x9b"
    follower = follow(box.container.name)
    follower.wait_for("following")
    box.container.run("cp", "/bin/mnt", f"/tmp/{evil}")
    box.container.run("ln", "-s", "/vol", f"/{evil}")
    words = ("mount", "-", f"/{evil}", "-", "MS_REMOUNT|MS_BIND", "-")
    assert box.container.run(f"/tmp/{evil}", *words) == ["EPERM"]
    box.container.run("rm", f"/tmp/{evil}", f"/{evil}")
    (record,) = box.wait_for(1)
    follower.wait_for("refused:no-loosening")
    shown = (
        (box.logs / "audit.log").read_bytes(),
        box.eci("explain", record.id).stdout.encode(),
        box.eci("explain").stdout.encode(),
        follower.printed,
        Path(box.seen.state_dir, "keeper.log").read_bytes(),
    )
    for text in shown:
        assert re.fullmatch(rb"[ -~\n]+", text)
        assert b"[2Jx" in text
    assert follower.end() == 130


def refuse_create(bundles: Bundles, runtime: Runtime, name: str) -> str:
    """Have the runtime refuse a container with the host's processes; returns what it says."""
    spec: Spec = make_spec(["true"], cgroup=bundles.cgroup(name))
    spec["linux"]["namespaces"] = [
        entry for entry in spec["linux"]["namespaces"] if entry["type"] != "pid"
    ]
    spec["annotations"] = {"io.kubernetes.cri.image-name": "docker.io/library/box:1"}
    bundle = bundles.write(spec)
    done = runtime.call("create", "--bundle", str(bundle), name, check=False)
    assert done.returncode == 1
    return done.stderr.strip()


def test_refused_container_is_in_the_audit_log(
    bundles: Bundles, runtimes: dict[str, Path], logs: Path, place: Place
) -> None:
    """And so are settings that cannot be read, and what has changed in them."""
    settings = place.directory("settings") / "admin-settings.json"
    runtime = bundles.runtime(runtimes["eci"])
    runtime.env |= {"ECI_LOG_DIR": str(logs), "ECI_SETTINGS": str(settings)}
    before = samples(metrics.text())
    said = []
    for text in ('{"vm": {"protectedPaths": ["/etc"]}}', '{"vm": {}}', "{"):
        settings.write_text(text)
        said.append(refuse_create(bundles, runtime, "refused"))
    found = list(find.records(str(logs / "audit.log")))
    first, refused, second, _, broken = found
    assert (first.event, first.before, first.settings) == ("policy-change", "", str(settings))
    assert (second.before, second.changed) == (first.sha256, ("vm.protectedPaths",))
    assert (refused.of, refused.reason) == ("container", "refused:host-namespace")
    assert (refused.message, refused.container) == (said[0], "refused")
    assert refused.image == "docker.io/library/box:1"
    assert (broken.reason, broken.message) == ("refused:bad-settings", said[2])
    after = samples(metrics.text())
    for reason, number in ((refused.reason, 2), (broken.reason, 1)):
        assert after["eci_refusals_total", reason] - before["eci_refusals_total", reason] == number


@pytest.mark.parametrize(
    ("words", "reason", "setting"),
    [
        ("--pid=host", "refused:host-namespace", ""),
        ("-v/etc:/x", "refused:host-mount", "vm.sharedPaths"),
        (
            "-v{socket}:/x",
            "refused:engine-socket",
            "enhancedContainerIsolation.dockerSocketMount.imageList",
        ),
    ],
)
def test_refused_container_of_docker_has_its_image(
    dockerd: Dockerd, place: Place, words: str, reason: str, setting: str
) -> None:
    name = dockerd.out("create", words.format(socket=dockerd.socket), "box", "true")
    said = dockerd.docker("start", name, check=False).stderr
    dockerd.docker("rm", name)
    (record,) = find.records(str(place.log_dir / "audit.log"), name)
    assert (record.container, record.image) == (name, "box")
    assert (record.reason, record.setting) == (reason, setting)
    # As docker's client prints it: with the message's quotes quoted.
    assert record.message in said.replace('\\"', '"')


def test_refused_container_of_podman_has_its_image(
    podman: Podman, runtimes: dict[str, Path], place: Place
) -> None:
    """Which is not in the bundle: it is known by the layers of the root file system."""
    words = ("run", "--rm", "--pid=host", "--name=refused-by-eci", "box", "true")
    done = podman.podman(*words, runtime=runtimes["eci"], check=False)
    (record,) = (
        record
        for record in find.records(str(place.log_dir / "audit.log"), "localhost/box")
        if record.reason == "refused:host-namespace"
    )
    assert record.image == "localhost/box"
    assert record.message in done.stderr


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    """A small disk."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def test_full_disk_neither_stops_nor_hides_anything(box: Box) -> None:
    with mounted(box.logs):
        filler = box.logs / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"x" * (1 << 20))
        box.refuse()
        said = Path(box.seen.state_dir, "keeper.log")
        wait_until(lambda: said.exists() and "not in the audit log" in said.read_text(), "not told")
        assert box.calls(MOUNT, UMOUNT) == ["0", "0"]
        filler.unlink()
        box.refuse()
        (record,) = box.wait_for(1)
        assert record.left_out == 1


def test_rotated_log(box: Box) -> None:
    box.refuse()
    (first,) = box.wait_for(1)
    log = box.logs / "audit.log"
    with gzip.open(box.logs / "audit.log.1.gz", "wb") as packed:
        packed.write(log.read_bytes())
    log.unlink()
    box.refuse()
    (second,) = box.wait_for(1)
    for record in (first, second):
        assert record.call in box.eci("explain", record.id).stdout


def test_flood_of_refusals_fills_no_disk_and_all_are_counted(box: Box) -> None:
    flood = 700
    for _ in range(flood // 70):
        box.refuse(70)
    assert box.seen.refusals == flood
    box.container.runtime.call("delete", "--force", box.container.name)
    path = box.logs / "audit.log"

    def told() -> int:
        return sum(record.left_out + (record.event == "refusal") for record in box.records())

    wait_until(lambda: told() == flood, "not all are counted")
    assert BURST <= len(box.records()) < 2 * BURST
    assert path.stat().st_size < 2 * BURST * 4096


# -- following ----------------------------------------------------------------------------


class Follower:
    """A running `eci trace`."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [ECI, "trace", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.said = b""
        self.printed = b""

    def read(self) -> None:
        """Take what it has written so far, waiting a moment for it."""
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        for stream in select.select([out, err], [], [], 0.05)[0]:
            data = os.read(stream.fileno(), 1 << 16)
            if stream is err:
                self.said += data
            else:
                self.printed += data

    def wait_for(self, text: str) -> None:
        """Wait until it has written this somewhere."""

        def there() -> bool:
            self.read()
            return text.encode() in self.said + self.printed

        wait_until(there, f"{text}: {self.said!r} {self.printed!r}")

    def lines(self) -> list[str]:
        """Return the calls that it has printed."""
        return self.printed.decode().splitlines()

    def end(self) -> int:
        """Interrupt it, if it still runs; returns its exit status."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture
def follow() -> Iterator[Callable[..., Follower]]:
    """A maker of followers, which end with the test."""
    made: list[Follower] = []

    def make(*words: str) -> Follower:
        made.append(Follower(*words))
        return made[-1]

    yield make
    for follower in made:
        if follower.process.poll() is None:
            follower.process.kill()
        follower.process.communicate()


def test_follower_sees_every_call_of_a_container_that_is_not_traced(
    box: Box, follow: Callable[..., Follower]
) -> None:
    assert box.calls(MOUNT, UMOUNT) == ["0", "0"]
    one, two = follow(box.container.name), follow("--json", box.container.name)
    all_of_them = follow()
    for follower in (one, two, all_of_them):
        follower.wait_for(f"following {box.container.name}")
    assert box.calls(MOUNT, UMOUNT, LOOSEN) == ["0", "0", "EPERM"]
    for follower in (one, two, all_of_them):
        follower.wait_for("refused:no-loosening")
    for follower in (one, all_of_them):
        shown = [line for line in follower.lines() if " mnt: " in line]
        assert [re.sub(r"^\S+ \S+ | \d+us$", "", line) for line in shown] == [
            'mnt: mount("none", "/mnt", "tmpfs", 0, NULL) = 0 <performed>',
            'mnt: umount2("/mnt", 0) = 0 <performed>',
            f"mnt: {LOOSENING} = -1 EPERM <refused:no-loosening>",
        ]
    objects = [json.loads(line) for line in two.lines()]
    assert [found["reason"] for found in objects] == [
        "performed",
        "performed",
        "refused:no-loosening",
    ]
    assert objects[-1]["target"]["path"] == "/vol"
    assert {found["container"] for found in objects} == {box.container.name}
    assert all_of_them.end() == 130
    box.container.runtime.call("delete", "--force", box.container.name)
    for follower in (one, two):
        follower.wait_for("has ended")
        assert follower.process.wait(20) == 0


def test_stopped_or_killed_follower_holds_up_nothing(
    box: Box, follow: Callable[..., Follower]
) -> None:
    follower = follow(box.container.name)
    follower.wait_for("following")
    shown = Watch(box.seen.state_dir)
    worker = worker_of(box.container.pid)

    def asked_without_waking() -> bool:
        asked, asleep = int(shown.head.follow_until), switches(worker)
        wait_until(lambda: shown.head.follow_until > asked, "it is not asked again")
        return switches(worker) == asleep

    wait_until(asked_without_waking, "a follower wakes the worker")
    stop(follower.process.pid)
    rounds = watch.SLOTS // 200 + 1
    for _ in range(rounds):
        assert box.calls(*[MOUNT, UMOUNT] * 100) == ["0"] * 200
    os.kill(follower.process.pid, signal.SIGCONT)
    follower.wait_for("came too fast to be shown")
    follower.process.kill()
    follower.process.wait()
    wait_until(lambda: time.monotonic_ns() > shown.head.follow_until, "it is followed for ever")
    before = int(shown.head.head)
    assert box.calls(MOUNT, UMOUNT) == ["0", "0"]
    assert int(shown.head.head) == before, "calls become events though nobody follows"
    shown.close()


def test_follower_says_what_is_not_shown(
    containers: Containers, follow: Callable[..., Follower]
) -> None:
    container = containers.start()
    follower = follow(container.name)
    follower.wait_for("go to the kernel and are not shown")
    # The reader goes away: an error of nobody's.
    assert follower.process.stdout is not None
    follower.process.stdout.close()
    container.run("mnt", *"umount2 /proc MNT_DETACH".split())
    assert follower.process.wait(20) == 0


def test_worker_that_was_killed(box: Box) -> None:
    """What it has counted stays, and everybody sees that it is gone."""
    box.refuse()
    box.wait_for(1)
    before = samples(box.eci("metrics", "show").stdout)
    # Both of its processes, as either would go on.
    pids = [holder_of(box.container.pid), worker_of(box.container.pid)]
    for pid in pids:
        stop(pid)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not box.seen.worker_alive, "it lives")
    assert (box.seen.keeper_alive, box.seen.refusals) == (True, 1)
    after = samples(box.eci("metrics", "show").stdout)
    assert after["eci_supervisors_alive", "worker"] == before["eci_supervisors_alive", "worker"] - 1
    reason = ("eci_refusals_total", "refused:no-loosening")
    assert after[reason] == before[reason]
    done = box.eci("trace", box.container.name, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(": its worker is gone: its mount calls are denied\n")


def test_nobody_to_follow(box: Box) -> None:
    done = box.eci("trace", "nobody", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: no protected container nobody is running\n"


# -- counts and metrics -------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return what Prometheus reads: (name, label values ...) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def switches(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep so far."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_counts_are_what_was_done_and_outlive_the_container(box: Box) -> None:
    before = box.seen
    total = samples(box.eci("metrics", "show").stdout)
    assert box.calls(MOUNT, UMOUNT, LOOSEN, LOOSEN, MOUNT, UMOUNT) == [
        *("0", "0", "EPERM", "EPERM", "0", "0")
    ]
    seen = box.seen
    assert seen.calls - before.calls == 6
    assert seen.refusals - before.refusals == 2
    assert (seen.drops, seen.worker_alive, seen.keeper_alive) == (0, True, True)
    wanted = {
        ("eci_calls_total", "mount", "performed"): 2,
        ("eci_calls_total", "umount2", "performed"): 2,
        ("eci_calls_total", "mount", "refused"): 2,
        ("eci_refusals_total", "refused:no-loosening"): 2,
        ("eci_refusals_total", "refused:no-uncovering"): 0,
        # From the first look on.
        ("eci_call_duration_seconds_count",): 6,
        ("eci_call_duration_seconds_bucket", "+Inf"): 6,
        ("eci_ring_drops_total",): 0,
        ("eci_supervisors_alive", "worker"): 0,
    }
    worker = worker_of(box.container.pid)
    now = {}

    def read_without_waking() -> bool:
        asleep = switches(worker)
        now.update(samples(box.eci("metrics", "show").stdout))
        return switches(worker) == asleep

    # The thread of the process that has just ended is still seen off.
    wait_until(read_without_waking, "reading wakes the worker")
    grown = {key: now.get(key, 0) - total.get(key, 0) for key in wanted}
    assert grown == wanted
    assert now["eci_call_duration_seconds_sum",] > total["eci_call_duration_seconds_sum",]
    box.container.runtime.call("delete", "--force", box.container.name)
    wait_until(lambda: not Path(seen.state_dir).exists(), "it is not cleared up")
    after = samples(box.eci("metrics", "show").stdout)
    kept = {key: value for key, value in now.items() if "_total" in key[0] or "duration" in key[0]}
    assert {key: after[key] for key in kept} == kept
    assert after["eci_supervisors_alive", "worker"] == now["eci_supervisors_alive", "worker"] - 1


def test_textfile_is_replaced_at_one_stroke(place: Place) -> None:
    path = place.directory("prom") / "eci.prom"
    metrics.write_textfile(str(path))
    whole = samples(path.read_text()).keys()
    done = threading.Event()
    faults = []

    def read() -> None:
        while not done.is_set():
            if samples(path.read_text()).keys() != whole:
                faults.append(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    with path.open() as old:
        for _ in range(50):
            metrics.write_textfile(str(path))
        assert os.fstat(old.fileno()).st_nlink == 0
        assert samples(old.read()).keys() == whole
    done.set()
    reader.join()
    assert not faults
    assert [other.name for other in path.parent.iterdir()] == ["eci.prom"]


class Connection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        """Do so."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self.path))


def server(path: Path) -> list[str]:
    """Return the words that start one."""
    return [str(ECI), "metrics", "serve", "--socket", str(path)]


def serve(path: Path) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it serves or has said why not."""
    process = subprocess.Popen(server(path), stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == f"eci metrics: serving at {path}\n".encode()
    return process


def get(path: Path) -> str:
    """Return what the server there answers."""
    connection = Connection(path)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.status == 200
    text = response.read().decode()
    connection.close()
    return text


def test_metrics_are_served_on_a_unix_socket(place: Place) -> None:
    path = place.directory("sock") / "metrics.sock"
    first = serve(path)
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        assert ("eci_ring_drops_total",) in samples(get(path))
        # One that says nothing holds up nobody.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
            silent.connect(str(path))
            get(path)
        second = subprocess.run(server(path), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stderr == f"Error: cannot serve at {path}: Address already in use\n"
        get(path)
    finally:
        first.kill()
        first.communicate()
    # What one that was killed has left is no obstacle.
    third = serve(path)
    get(path)
    third.terminate()
    third.communicate(timeout=20)
    assert third.returncode == 0
    assert not path.exists()
    path.write_text("a file")
    assert subprocess.run(server(path), capture_output=True, check=False).returncode == 1
    assert path.read_text() == "a file"
