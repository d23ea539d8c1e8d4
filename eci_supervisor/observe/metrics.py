"""What all workers together have counted, for Prometheus.

Counts come from the workers' own memory (kernel/watch.py), so a scrape wakes nobody.  They never
shrink while the host runs: those of containers that are gone are kept (csrc/cleanup.c).
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, MetricsHandler, generate_latest, write_to_textfile
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from eci_supervisor.kernel import watch
from eci_supervisor.observe import counts, tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from eci_supervisor.kernel.watch import Counts
    from eci_supervisor.observe.counts import Seen

PATIENCE = 10.0
"""Seconds that a client may take for its request, and to take the answer."""


def _calls(total: Counts) -> Metric:
    family = CounterMetricFamily(
        "eci_calls", "Mount calls that were trapped.", labels=("kind", "verdict")
    )
    sums: Counter[tuple[str, str]] = Counter()
    for (kind, reason), number in total.calls.items():
        sums[kind, counts.verdict_of(reason)] += number
    for labels, number in sorted(sums.items()):
        family.add_metric(labels, number)
    return family


def _refusals(total: Counts, others: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "eci_refusals",
        "Mount calls, containers and commands that were refused.",
        labels=("reason",),
    )
    sums = Counter(others)
    for (_, reason), number in total.calls.items():
        if counts.is_refusal(reason):
            sums[reason] += number
    for reason, number in sorted(sums.items()):
        family.add_metric((reason,), number)
    return family


def _times(total: Counts) -> Metric:
    buckets = []
    so_far = 0
    for index, number in enumerate(total.times):
        so_far += number
        last = index == len(total.times) - 1
        buckets.append(("+Inf" if last else repr((1 << index) / 1_000_000), so_far))
    return HistogramMetricFamily(
        "eci_call_duration_seconds",
        "From receiving a call to its answer; of a container since it was first looked at.",
        buckets=buckets,
        sum_value=total.times_ns / 1_000_000_000,
    )


def _supervisors(seen: list[Seen]) -> Iterator[Metric]:
    containers = GaugeMetricFamily(
        "eci_containers",
        "Protected containers. supervised: spared ones make plain unmounts, binds and new file "
        "systems without being trapped; no: they cannot mount at all.",
        labels=("supervised",),
    )
    kinds = Counter({"yes": 0, "spared": 0, "no": 0})
    kinds.update("no" if not one.supervised else "spared" if one.spared else "yes" for one in seen)
    for kind, number in kinds.items():
        containers.add_metric((kind,), number)
    yield containers
    alive = GaugeMetricFamily(
        "eci_supervisors_alive", "Processes that serve supervised containers.", labels=("process",)
    )
    supervised = [one for one in seen if one.supervised]
    alive.add_metric(("worker",), sum(one.worker_alive for one in supervised))
    alive.add_metric(("keeper",), sum(one.keeper_alive for one in supervised))
    yield alive


class Everything(Collector):
    """What Prometheus is told."""

    def __init__(self, state_root: str | None = None) -> None:
        """Collect what is below `state_root`, or below that of the environment."""
        self.state_root = state_root

    def collect(self) -> Iterable[Metric]:
        """Look at all containers now, and have those that are new measure times from now on."""
        seen, total = counts.everything(self.state_root)
        for one in seen:
            with contextlib.suppress(watch.WatchError, OSError):
                watch.ask_for_times(one.state_dir)
        yield _calls(total)
        yield _refusals(total, tally.read(self.state_root))
        yield _times(total)
        drops = CounterMetricFamily(
            "eci_ring_drops", "Refusals that could not be logged, because too many came at once."
        )
        drops.add_metric((), total.dropped)
        yield drops
        yield from _supervisors(seen)


def registry(state_root: str | None = None) -> CollectorRegistry:
    """Return a registry with all of it and nothing else."""
    made = CollectorRegistry(auto_describe=False)
    made.register(Everything(state_root))
    return made


def text() -> str:
    """Return all of it in Prometheus' text format."""
    return generate_latest(registry()).decode()


def write_textfile(path: str) -> None:
    """Replace the file `path`: readers see the old or the new one.  OSError."""
    write_to_textfile(path, registry())


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers each HTTP GET on a Unix socket.  Owns the socket and its name."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, path: str, mode: int = 0o600, group: int = -1) -> None:
        """Listen at `path`, with this mode and group (an id, -1: our own).

        OSError; EADDRINUSE where somebody serves there already.
        """
        self._name: str | None = None
        """Not before it is ours: what failed to begin removes nothing."""
        handler: Any = MetricsHandler.factory(registry())
        handler.timeout = PATIENCE
        _remove_dead(path)
        # Nobody shall connect before it has its mode.
        umask = os.umask(0o177)
        try:
            super().__init__(path, handler)
        finally:
            os.umask(umask)
        self._name = path
        os.chown(path, -1, group)
        os.chmod(path, mode)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no matter."""

    def server_close(self) -> None:
        """Close it, and take the name away."""
        super().server_close()
        if self._name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name)


def _remove_dead(path: str) -> None:
    """Remove a socket that nobody listens on any more; what is no socket stays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
