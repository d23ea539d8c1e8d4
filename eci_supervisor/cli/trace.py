"""`eci trace`: the calls of running containers, as they are decided.

Each container's worker is asked, by a time in memory that both have mapped, to show its calls for
the next two seconds, and is asked again as long as this command runs.  So it need not be told that
this command has ended, however that was; and it waits for nobody.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from eci_supervisor.cli.completion import containers
from eci_supervisor.cli.root import require_root

if TYPE_CHECKING:
    from eci_supervisor.kernel.ring import Event
    from eci_supervisor.kernel.watch import Watch
    from eci_supervisor.observe.counts import Seen

LOOK_SECONDS = 0.02
"""Between two looks at what has come."""
ASK_SECONDS = 0.5
"""Between two times that the workers are asked, and new containers looked for."""


@click.command()
@click.argument("container", required=False, shell_complete=containers)
@click.option("--json", "as_json", is_flag=True, help="Print each call as a line of JSON.")
def trace(container: str | None, *, as_json: bool) -> None:
    """Follow the mount calls of all containers, or of CONTAINER (its id, or what it begins with).

    One line for each, as strace writes it.  Ends with CONTAINER, or when it is interrupted; the
    containers do not notice.
    """
    require_root("following containers")
    follower = Follower(container, as_json=as_json)
    try:
        follower.run()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever reads has had enough; nothing more can be written, at the end either.
        sys.stdout = None


class Follower:
    """Follows containers until there is nobody left."""

    def __init__(self, wanted: str | None, *, as_json: bool) -> None:
        """Follow `wanted`, an id or its beginning, or all where it is None."""
        self.wanted = wanted
        self.as_json = as_json
        self.followed: dict[str, tuple[Seen, Watch]] = {}
        self.refused: set[str] = set()
        """State directories of which nothing can be followed, and that has been said."""

    def run(self) -> None:
        """Print calls until the wanted container has ended; without one, for ever."""
        self.look_for_containers(first=True)
        if not self.followed:
            if self.wanted is not None:
                sys.exit(1)  # why has been said
            self._say("no supervised container is running; waiting for one")
        asked = time.monotonic()
        while self.followed or self.wanted is None:
            time.sleep(LOOK_SECONDS)
            self.print_calls()
            if time.monotonic() - asked >= ASK_SECONDS:
                asked = time.monotonic()
                self.look_for_containers(first=False)

    def look_for_containers(self, *, first: bool) -> None:
        """Begin with those that are new, ask all for their calls, let those go that have ended."""
        from eci_supervisor.observe import counts  # noqa: PLC0415 - `eci run` needs none of it

        there = {seen.state_dir: seen for seen in counts.containers()}
        if first:
            self._begin(self._chosen(there))
        elif self.wanted is None:
            self._begin(there)
        for directory, (seen, watch) in list(self.followed.items()):
            now = there.get(directory)
            if now is not None and now.worker_alive:
                watch.follow()
            else:
                self.print_calls()
                del self.followed[directory]
                watch.close()
                self._say(f"{seen.id} has ended")

    def _chosen(self, there: dict[str, Seen]) -> dict[str, Seen]:
        """Return those that were asked for; ClickException where that is nobody, or unclear."""
        if self.wanted is None:
            return there
        exact = {path: seen for path, seen in there.items() if seen.id == self.wanted}
        found = exact or {
            path: seen for path, seen in there.items() if seen.id.startswith(self.wanted)
        }
        if not found:
            raise click.ClickException(f"no protected container {self.wanted} is running")
        if len(found) > 1:
            names = ", ".join(sorted(seen.id for seen in found.values()))
            raise click.ClickException(f"{self.wanted} stands for more than one container: {names}")
        (seen,) = found.values()
        if not seen.supervised:
            raise click.ClickException(
                f"{seen.id}: its seccomp profile lets no mount call through: nothing to follow"
            )
        if not seen.worker_alive:
            raise click.ClickException(f"{seen.id}: its worker is gone: its mount calls are denied")
        return found

    def _begin(self, there: dict[str, Seen]) -> None:
        from eci_supervisor.kernel.watch import Watch, WatchError  # noqa: PLC0415 - as above

        for directory, seen in there.items():
            if directory in self.followed or directory in self.refused or not seen.worker_alive:
                continue
            try:
                watch = Watch(directory)
                watch.follow()
            except FileNotFoundError:
                continue  # it has just ended
            except (OSError, WatchError) as error:
                self.refused.add(directory)
                self._say(f"{seen.id} cannot be followed: {error}")
                continue
            self.followed[directory] = (seen, watch)
            self._say(f"following {seen.id}")
            if seen.spared:
                self._say(
                    f"{seen.id}: nothing is hidden or protected in it, so plain unmounts, binds "
                    "and new file systems go to the kernel and are not shown"
                )

    def print_calls(self) -> None:
        """Print what has come since the last time, in the order of time."""
        from eci_supervisor.observe import calls  # noqa: PLC0415 - as above

        found: list[tuple[Event, str]] = []
        for seen, watch in self.followed.values():
            found += [(event, seen.id) for event in watch.events()]
            if watch.lost:
                self._say(f"{seen.id}: {watch.lost} calls came too fast to be shown")
                watch.lost = 0
        for event, container in sorted(found, key=lambda pair: pair[0].time_ns):
            text = calls.json_of(event, container) if self.as_json else calls.line(event, container)
            click.echo(text)

    @staticmethod
    def _say(text: str) -> None:
        from eci_supervisor.observe.audit import printable  # noqa: PLC0415 - as above

        click.echo(f"eci trace: {printable(text)}", err=True)
