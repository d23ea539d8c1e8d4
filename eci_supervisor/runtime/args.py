"""The command line of runc and crun, as far as create, run and restore need it.  Pure.

Nothing is reordered or respelled but what the new bundle demands: every other word reaches
the runtime unchanged, and in the same order.

runc reads flags as Go does: `-flag` is `--flag`, the first word that is no flag ends them.
crun reads them as GNU argp does: short flags may be joined, long ones cut as far as they stay
unique, and flags may follow the container's id.
"""

from __future__ import annotations

import os

import msgspec

from eci_supervisor.runtime.errors import UsageError

WRAPPED = ("create", "run", "restore")

# Flag name -> whether it takes a value.  A superset of both runtimes' would misread neither,
# but errors should name the runtime's own flags, so they are kept apart.
_GLOBAL = {
    "runc": {
        "debug": False,
        "log": True,
        "log-format": True,
        "root": True,
        "criu": True,
        "systemd-cgroup": False,
        "rootless": True,
        "help": False,
        "h": False,
        "version": False,
        "v": False,
    },
    "crun": {
        "cgroup-manager": True,
        "debug": False,
        "log": True,
        "log-format": True,
        "log-level": True,
        "root": True,
        "rootless": True,
        "systemd-cgroup": False,
        "help": False,
        "usage": False,
        "version": False,
        "V": False,
        "v": False,
        "?": False,
    },
}
_CREATE = {
    "runc": {
        "bundle": True,
        "b": True,
        "console-socket": True,
        "pid-file": True,
        "no-pivot": False,
        "no-new-keyring": False,
        "preserve-fds": True,
        "help": False,
        "h": False,
    },
    "crun": {
        "bundle": True,
        "b": True,
        "config": True,
        "f": True,
        "console-socket": True,
        "no-new-keyring": False,
        "no-pivot": False,
        "pid-file": True,
        "preserve-fds": True,
        "help": False,
        "usage": False,
        "?": False,
    },
}
_RUN = {
    "runc": {**_CREATE["runc"], "detach": False, "d": False, "keep": False, "no-subreaper": False},
    "crun": {**_CREATE["crun"], "detach": False, "d": False, "keep": False, "no-subreaper": False},
}
_RESTORE = {
    "runc": {
        **_RUN["runc"],
        "image-path": True,
        "work-path": True,
        "tcp-established": False,
        "ext-unix-sk": False,
        "shell-job": False,
        "file-locks": False,
        "manage-cgroups-mode": True,
        "empty-ns": True,
        "auto-dedup": False,
        "lazy-pages": False,
        "lsm-profile": True,
        "lsm-mount-context": True,
    },
    "crun": {
        **_RUN["crun"],
        "image-path": True,
        "work-path": True,
        "tcp-established": False,
        "ext-unix-sk": False,
        "shell-job": False,
        "file-locks": False,
        "manage-cgroups-mode": True,
        "lsm-profile": True,
        "lsm-mount-context": True,
    },
}
_SUB = {"create": _CREATE, "run": _RUN, "restore": _RESTORE}
_REPLACED = ("bundle", "config", "console-socket", "pid-file")
_HELP = {"help", "h", "usage", "?"}
_VERSION = {"version", "v", "V"}
_LONG = {"b": "bundle", "f": "config", "d": "detach"}


class Invocation(msgspec.Struct, frozen=True):
    """One call of create, run or restore."""

    runtime: str
    """`runc` or `crun`."""
    global_words: tuple[str, ...]
    """The words before the sub-command, without our own."""
    subcommand: str
    words: tuple[str, ...]
    """The words after the sub-command, without the flags that `with_bundle` puts back."""
    container_id: str
    bundle: str
    """Absolute."""
    config: str
    """Absolute path of config.json."""
    root: str
    """Absolute; the runtime's state directory."""
    log: str | None = None
    log_format: str | None = None
    console_socket: str | None = None
    """Absolute."""
    pid_file: str | None = None
    """Absolute."""
    settings: str | None = None
    """Our own global flag: another settings file."""
    help: tuple[str, ...] | None = None
    """The words that make the runtime print what was asked for instead, if anything was."""

    def as_given(self) -> list[str]:
        """Return the command line for the runtime as it was given, without our own flags."""
        words = self.with_bundle(self.bundle)
        if self.config == os.path.join(self.bundle, "config.json"):
            return words
        # crun's own flag, which goes to the sub-command.
        at = words.index("--bundle")
        return [*words[:at], "--config", self.config, *words[at:]]

    def with_bundle(self, bundle: str) -> list[str]:
        """Return the runtime's command line, from argv[0], for another bundle."""
        extra = ["--bundle", bundle]
        if self.console_socket is not None:
            extra += ["--console-socket", self.console_socket]
        if self.pid_file is not None:
            extra += ["--pid-file", self.pid_file]
        return [self.runtime, *self.global_words, self.subcommand, *extra, *self.words]


class _Flag(msgspec.Struct, frozen=True):
    """One flag as it was written."""

    name: str
    value: str | None
    words: tuple[str, ...]


def _name(runtime: str, text: str, table: dict[str, bool]) -> str:
    """Return the full name of flag `text`; UsageError if the runtime has none such."""
    if text in table:
        return _LONG.get(text, text)
    if runtime == "crun":
        found = {name for name in table if len(name) > 1 and name.startswith(text)}
        if len(found) == 1:
            return found.pop()
    msg = f"flag provided but not defined: -{text}"
    raise UsageError(msg)


def _valued(name: str, table: dict[str, bool]) -> bool:
    """Whether flag `name` takes a value."""
    return table[name]


def _take(runtime: str, words: list[str], at: int, table: dict[str, bool]) -> list[_Flag]:
    """Read the flag at `words[at]`; joined short flags of crun give several."""
    word = words[at]
    if word.startswith("--") or runtime == "runc":
        text, equals, value = word.lstrip("-").partition("=")
        name = _name(runtime, text, table)
        if equals:
            return [_Flag(name, value, (word,))]
        if not _valued(name, table):
            return [_Flag(name, None, (word,))]
        if at + 1 >= len(words):
            msg = f"flag needs an argument: -{text}"
            raise UsageError(msg)
        return [_Flag(name, words[at + 1], (word, words[at + 1]))]
    flags = []
    rest = word[1:]
    while rest:
        name = _name("", rest[0], table)
        if not _valued(name, table):
            flags.append(_Flag(name, None, (f"-{rest[0]}",)))
            rest = rest[1:]
            continue
        if rest[1:]:
            return [*flags, _Flag(name, rest[1:], (f"-{rest}",))]
        if at + 1 >= len(words):
            msg = f"option requires an argument -- '{rest[0]}'"
            raise UsageError(msg)
        return [*flags, _Flag(name, words[at + 1], (f"-{rest}", words[at + 1]))]
    return flags


def _width(flags: list[_Flag]) -> int:
    """How many words of the command line these flags took."""
    return len(flags[-1].words)


class _Words(msgspec.Struct):
    """What one half of the command line comes to."""

    kept: list[str]
    values: dict[str, str | None]
    arguments: list[str]


def _read_global(runtime: str, argv: list[str]) -> tuple[_Words, int]:
    """Read the global flags; also the index of the sub-command."""
    table = {**_GLOBAL[runtime], "settings": True}
    words = _Words([], {}, [])
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-", "--"):
        flags = _take(runtime, argv, at, table)
        at += _width(flags)
        for flag in flags:
            words.values[flag.name] = flag.value
            if flag.name != "settings":
                words.kept += flag.words
    if argv[at : at + 1] == ["--"]:
        at += 1
    return words, at


def _read_sub(runtime: str, argv: list[str], table: dict[str, bool]) -> _Words:
    """Read what follows the sub-command; our replacements of `_REPLACED` are not kept."""
    words = _Words([], {}, [])
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            words.arguments += argv[at + 1 :]
            words.kept += argv[at:]
            break
        if not word.startswith("-") or word == "-" or (runtime == "runc" and words.arguments):
            words.arguments.append(word)
            words.kept.append(word)
            at += 1
            continue
        flags = _take(runtime, argv, at, table)
        at += _width(flags)
        for flag in flags:
            words.values[flag.name] = flag.value
            if flag.name not in _REPLACED:
                words.kept += flag.words
    return words


def _default_root(runtime: str) -> str:
    """Return where the runtime keeps its state without `--root`, when it runs as root.

    crun asks XDG_RUNTIME_DIR also as root; runc only when it is rootless.
    """
    directory = os.environ.get("XDG_RUNTIME_DIR") if runtime == "crun" else None
    return os.path.join(os.path.abspath(directory or "/run"), runtime)


def parse(runtime: str, argv: list[str], cwd: str) -> Invocation:
    """Read `argv`, the words after the program's name.

    UsageError for what the runtime would not take either.
    """
    outer, at = _read_global(runtime, argv)
    if at >= len(argv) or argv[at] not in WRAPPED:
        raise UsageError("expected one of the sub-commands create, run and restore")
    subcommand = argv[at]
    inner = _read_sub(runtime, argv[at + 1 :], _SUB[subcommand][runtime])
    asked: tuple[str, ...] | None = None
    if _VERSION & outer.values.keys():
        asked = ("--version",)
    elif _HELP & (outer.values.keys() | inner.values.keys()):
        asked = (subcommand, "--help")
    elif len(inner.arguments) != 1:
        raise UsageError(f'"{subcommand}" requires exactly 1 argument: the container id')
    bundle = os.path.normpath(os.path.join(cwd, inner.values.get("bundle") or "."))
    # runc makes the pid file absolute before it enters the bundle, crun afterwards.
    pid_base = cwd if runtime == "runc" else bundle
    return Invocation(
        runtime=runtime,
        global_words=tuple(outer.kept),
        subcommand=subcommand,
        words=tuple(inner.kept),
        container_id=inner.arguments[0] if inner.arguments else "",
        bundle=bundle,
        config=_absolute(bundle, inner.values.get("config")) or os.path.join(bundle, "config.json"),
        root=_absolute(cwd, outer.values.get("root")) or _default_root(runtime),
        log=outer.values.get("log"),
        log_format=outer.values.get("log-format"),
        console_socket=_absolute(bundle, inner.values.get("console-socket")),
        pid_file=_absolute(pid_base, inner.values.get("pid-file")),
        settings=outer.values.get("settings"),
        help=asked,
    )


def _absolute(base: str, path: str | None) -> str | None:
    """Return `path` seen from `base`, without following anything; None stays."""
    if not path:
        return None
    return os.path.normpath(os.path.join(base, path))


def log_flags(argv: list[str]) -> tuple[str | None, str | None]:
    """Find `--log` and `--log-format` in a command line that cannot be parsed."""
    found: dict[str, str] = {}
    for at, word in enumerate(argv):
        text, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and text in ("log", "log-format"):
            if equals:
                found[text] = value
            elif at + 1 < len(argv):
                found[text] = argv[at + 1]
    return found.get("log"), found.get("log-format")
