"""`eci run`: a protected container without any engine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

import eci_supervisor
from eci_supervisor.cli.bundle import OptionError, Request, Volume, capability, configuration
from eci_supervisor.cli.rootfs import NoBusyboxError, make_busybox_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

# What docker run answers when the fault is its own and not the container's.
EXIT_NOT_RUN = 125
# Signals that the container gets in our place. Those of the keyboard reach it by the terminal.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)


class NotRunError(click.ClickException):
    """The container was not started; the message is one line."""

    exit_code = EXIT_NOT_RUN


def _volume(_context: click.Context, _parameter: click.Parameter, words: Sequence[str]) -> object:
    try:
        return tuple(Volume.parse(word) for word in words)
    except OptionError as error:
        raise click.BadParameter(str(error)) from None


def _caps(_context: click.Context, _parameter: click.Parameter, words: Sequence[str]) -> object:
    try:
        return tuple(name for word in words for name in capability(word))
    except OptionError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-v",
    "--volume",
    "volumes",
    multiple=True,
    callback=_volume,
    metavar="SRC:DST[:ro]",
    help="Show a file or directory of the host in the container.",
)
@click.option(
    "--privileged", is_flag=True, help="All capabilities, no masks, no read-only /proc and /sys."
)
@click.option(
    "--cap-add", "capabilities", multiple=True, callback=_caps, metavar="CAP", help="Add one."
)
@click.option(
    "--rootfs",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    metavar="DIR",
    help="The container's root; without it a small one with busybox, gone afterwards.",
)
@click.option(
    "--runtime", type=click.Choice(["runc", "crun"]), help="What makes the container; runc first."
)
@click.option(
    "--settings",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="Settings instead of /etc/eci/admin-settings.json.",
)
@click.option("--trace", is_flag=True, help="Write one line per vetted call to standard error.")
@click.argument("command", nargs=-1, required=True, metavar="CMD...")
def run(
    *,
    volumes: tuple[Volume, ...],
    privileged: bool,
    capabilities: tuple[str, ...],
    rootfs: str | None,
    runtime: str | None,
    settings: str | None,
    trace: bool,
    command: tuple[str, ...],
) -> None:
    """Run CMD in a protected container, without any engine.

    The exit code is CMD's own; 125 when the container could not be prepared.
    """
    if os.geteuid() != 0:
        raise NotRunError("making containers needs root")
    program = runtime_program()
    if not os.access(program, os.X_OK):
        raise NotRunError(f"{program} is missing: the C half is not built (make build)")
    for volume in volumes:
        if not os.path.exists(volume.source):
            raise NotRunError(
                f"{volume.source}: no such file or directory to show in the container"
            )

    identity = f"eci-run-{secrets.token_hex(6)}"
    environment = dict(os.environ)
    if trace:
        environment["ECI_TRACE"] = "stderr"
    if runtime is not None:
        environment["ECI_RUNTIME"] = runtime
    if settings is not None:
        environment["ECI_SETTINGS"] = settings

    try:
        with _temporary_directory() as directory:
            if rootfs is None:
                rootfs = os.path.join(directory, "rootfs")
                os.mkdir(rootfs)
                make_busybox_root(rootfs)
            request = Request(
                command=command,
                rootfs=rootfs,
                hostname=identity.removeprefix("eci-run-"),
                volumes=volumes,
                privileged=privileged,
                capabilities=capabilities,
                terminal=sys.stdin.isatty(),
                term=os.environ.get("TERM", "xterm"),
            )
            bundle = os.path.join(directory, "bundle")
            os.mkdir(bundle)
            with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as stream:
                json.dump(configuration(request, last_capability()), stream)
            code = _run_to_the_end(program, bundle, identity, environment)
    except (NoBusyboxError, OSError) as error:
        raise NotRunError(str(error)) from error
    sys.exit(code)


def runtime_program() -> str:
    """Return where the build puts `eci-runtime`."""
    return os.path.join(os.path.dirname(eci_supervisor.__file__), "bin", "eci-runtime")


def last_capability() -> int:
    """Return the highest capability that the kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as stream:
        return int(stream.read())


@contextmanager
def _temporary_directory() -> Iterator[str]:
    """Give a directory that is removed, with all in it, when the block ends however.

    Only root may enter it (mkdtemp's 0700): below lie files that on disk belong to uid 0, perhaps
    with a set-user-ID bit that the container gave them.
    """
    directory = tempfile.mkdtemp(prefix="eci-run-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _run_to_the_end(
    program: str, bundle: str, identity: str, environment: Mapping[str, str]
) -> int:
    """Run the bundle and return the exit code that the shell should see."""
    with _forwarding() as child:
        process = subprocess.Popen([program, "run", "--bundle", bundle, identity], env=environment)
        child.begin(process)
        code = process.wait()
    if code >= 0:
        return code
    # The runtime itself was killed, and could not remove what it had made.
    subprocess.run(
        [program, "delete", "--force", identity],
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return 128 - code


class _Child:
    """The process that gets our signals, also those that came before it was there."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        """Hand over the process, and with it what came early."""
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Pass a signal on: a signal handler."""
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def ignore(self, _number: int, _frame: FrameType | None) -> None:
        """Let a signal be: a handler and not SIG_IGN, which the runtime would inherit."""


@contextmanager
def _forwarding() -> Iterator[_Child]:
    """Let a child take our signals, and give back the handlers at the end."""
    child = _Child()
    # The terminal sends ^C to the whole group, the runtime in it; twice would be once too often.
    keyboard = child.ignore if any(os.isatty(fd) for fd in (0, 1, 2)) else child.forward
    before = {number: signal.signal(number, child.forward) for number in _FORWARDED}
    before |= {number: signal.signal(number, keyboard) for number in _KEYBOARD}
    try:
        yield child
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
