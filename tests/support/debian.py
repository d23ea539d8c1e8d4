"""Root file systems of Debian with real programs, made once per machine by mmdebstrap and kept.

One of the machine's own release, one with its C compiler, and a small one of a later release,
whose mount(8) makes the new mount calls.

What is made depends on the recipe here and on the machine's apt sources, and both are in the name
of the directory below `CACHE`; so a changed recipe is made anew, and nothing is ever changed in
place.  No registry and no image of anybody else's is involved: packages come from where the
machine's own apt gets them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = Path("/var/tmp/eci-debian")
"""A place of which containers may have something: tests bind what is here."""
UNUSED_SECONDS = 30 * 24 * 3600
"""What nobody has used for so long is removed when something is made."""
MAKE_SECONDS = 900
"""A slow network is no failure, a dead one is."""

# docker.io and podman bring in containerd, runc and crun.
PACKAGES = (
    "bubblewrap busybox-static crun debootstrap docker.io fuse-overlayfs fuse3 iproute2 iptables "
    "iputils-ping mount netavark podman procps systemd-sysv uidmap usr-is-merged"
).split()

# Documentation, and programs of a dozen megabytes each that dockerd and containerd do not call.
LEFT_OUT = (
    "/usr/share/doc/* /usr/share/info/* /usr/share/locale/* /usr/share/man/* "
    "/usr/bin/containerd-shim /usr/bin/containerd-shim-runc-v1 /usr/bin/ctr /usr/bin/dnet "
    "/usr/sbin/ovrouter"
).split()

# systemd has enough to do without them; tests start what they need.
SERVICES = (
    "containerd.service docker.service docker.socket podman-auto-update.service "
    "podman-auto-update.timer podman-restart.service podman.service podman.socket"
).split()

USER = 1000
"""The unprivileged user `user` of the tree, with subordinate ids that fit into a container."""

# What debootstrap needs in any target, with what that depends on; a whole minbase takes a minute.
TINY = (
    "base-files base-passwd coreutils dash debconf debianutils diffutils dpkg grep gzip libc-bin "
    "libc6 mawk mount perl-base sed tar usr-is-merged"
).split()
TINY_SUITE = "tiny"
TINY_SCRIPT = "/usr/share/debootstrap/scripts/sid"

COMPILER_PACKAGES = ["gcc", "libc6-dev"]

# util-linux 2.39 and later prefer fsopen(2) and its like to mount(2).
CURRENT_SUITE = "trixie"
CURRENT_PACKAGES = ["mount", "util-linux"]


class NotMadeError(RuntimeError):
    """The machine cannot make a root file system; the text says why."""


@dataclass(frozen=True, slots=True)
class Debian:
    """What is kept of one recipe."""

    directory: Path

    @property
    def archive(self) -> Path:
        """The root file system, a tar archive without compression."""
        return self.directory / "root.tar"

    @property
    def repository(self) -> Path:
        """A package repository with a suite `TINY_SUITE`, unsigned, complete for `TINY`."""
        return self.directory / "repository"

    @property
    def stamp(self) -> Path:
        """JSON: when it was made, in how many seconds, from which sources, which packages."""
        return self.directory / "stamp.json"


def debian() -> Debian:
    """Return the root file system of this recipe, made if there is none yet (about a minute).

    Its packages are as old as the directory: remove that for newer ones.
    """
    sources = _sources()
    recipe = [*sources, *_words(CACHE), *TINY]
    return _kept("debian", recipe, lambda directory: _make(directory, sources))


def compiler() -> Debian:
    """Return a small root file system with apt and `COMPILER_PACKAGES`, as `debian` does.

    It has no repository.
    """
    variant = ["--variant=apt", f"--include={','.join(COMPILER_PACKAGES)}"]
    return _small("debian-compiler", "-", _sources(), variant)


def current() -> Debian:
    """Return a small root file system of `CURRENT_SUITE`, as `debian` does (about 20 seconds).

    It has no repository.
    """
    sources = [f"deb {_own_mirror()} {CURRENT_SUITE} main"]
    variant = ["--variant=essential", f"--include={','.join(CURRENT_PACKAGES)}"]
    return _small(f"debian-{CURRENT_SUITE}", CURRENT_SUITE, sources, variant)


def _small(name: str, suite: str, sources: list[str], variant: list[str]) -> Debian:
    """Return what is kept of a recipe without steps of its own."""

    def words(directory: Path) -> list[str]:
        return _small_words(directory, suite, variant)

    recipe = [*sources, *words(CACHE)]
    return _kept(name, recipe, lambda directory: _bootstrap(directory, sources, words(directory)))


def _kept(name: str, recipe: list[str], make: Callable[[Path], None]) -> Debian:
    """Return what is kept of `recipe`; `make` fills a new directory with it."""
    digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()
    made = Debian(CACHE / f"{name}-{digest[:16]}")
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.stamp.exists():
            _remove_unused()
            with TemporaryDirectory(prefix="making-", dir=CACHE) as scratch:
                os.chmod(scratch, 0o755)
                make(Path(scratch))
                # The stamp is written last, and the name is given at once: complete or not there.
                os.rename(scratch, made.directory)
        os.utime(made.stamp)
    return made


def _remove_unused() -> None:
    for stamp in CACHE.glob("debian-*/stamp.json"):
        if time.time() - stamp.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(stamp.parent)


def _targets() -> tuple[str, list[list[str]]]:
    """Return the machine's release, and where its apt gets packages: address, suite, component."""
    os_release = Path("/etc/os-release").read_text()
    found = re.search(r'^VERSION_CODENAME="?([^"\n]+)', os_release, re.MULTILINE)
    if not found:
        raise NotMadeError("the machine does not say which release it is")
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    words = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return found[1], [words for line in lines if (words := line.split())[2] == "main"]


def _sources() -> list[str]:
    """Return the lines of sources.list for this Debian release, as the machine's apt has them."""
    release, targets = _targets()
    suites = {release, f"{release}-updates", f"{release}-security"}
    wanted = {" ".join(words) for words in targets if words[1] in suites}
    if not wanted:
        raise NotMadeError(f"apt has no sources for {sorted(suites)}: {targets}")
    return [f"deb {line}" for line in sorted(wanted)]


def _own_mirror() -> str:
    """Return the address of the archive that the machine's own release comes from."""
    release, targets = _targets()
    found = [words[0] for words in targets if words[1] == release]
    if not found:
        raise NotMadeError(f"apt has no source for {release}: {targets}")
    return found[0]


def _network_options() -> list[str]:
    """Return the machine's apt options that say how to get at its sources: proxies and the like."""
    words = ["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', "Acquire"]
    dump = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    kept = r"Acquire::(?:https?|ftp|Retries|Check-Valid-Until|Check-Date)\b"
    return [line for line in dump.splitlines() if re.match(kept, line)]


def _words(directory: Path) -> list[str]:
    """Return the command line that makes the root file system in `directory`."""
    made = Debian(directory)
    pool = made.repository / "pool"
    in_target = 'chroot "$1"'
    download = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download --quiet --quiet'
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=apt",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={option}" for option in _network_options()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        # At this moment the archives of everything essential are there, and nothing else.
        f'--extract-hook=cp "$1"/var/cache/apt/archives/*.deb {pool}/',
        f"--customize-hook=cd {pool} && {download} mount usr-is-merged",
        f"--customize-hook={in_target} useradd --create-home --uid {USER} --shell /bin/bash user",
        *(
            f'--customize-hook=echo user:10000:50000 > "$1"/etc/{name}'
            for name in ("subuid", "subgid")
        ),
        f"--customize-hook={in_target} systemctl --quiet disable {' '.join(SERVICES)}",
        f"--customize-hook={in_target} dpkg-query --show > {directory}/packages",
        # Nothing of this machine's apt configuration is left in it.
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        "-",
        str(made.archive),
        str(directory / "sources.list"),
    ]


def _small_words(directory: Path, suite: str, variant: list[str]) -> list[str]:
    """Return the command line that makes a small one in `directory`; suite "-": its sources'."""
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        *variant,
        *(f"--aptopt={option}" for option in _network_options()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        f'--customize-hook=chroot "$1" dpkg-query --show > {directory}/packages',
        # Nothing of this machine's apt configuration is left in it.
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        suite,
        str(Debian(directory).archive),
        str(directory / "sources.list"),
    ]


def _make(directory: Path, sources: list[str]) -> None:
    """Fill the new `directory`."""
    made = Debian(directory)
    (made.repository / "pool").mkdir(parents=True)
    _bootstrap(directory, sources, _words(directory), lambda: _write_index(made.repository))


def _bootstrap(
    directory: Path,
    sources: list[str],
    words: list[str],
    finish: Callable[[], None] = lambda: None,
) -> None:
    """Run mmdebstrap with `sources`, then `finish`, and write the stamp."""
    started = time.monotonic()
    (directory / "sources.list").write_text("\n".join(sources) + "\n")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=MAKE_SECONDS)
    if done.returncode:
        raise NotMadeError(f"mmdebstrap: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    finish()
    packages = (directory / "packages").read_text().split("\n")
    (directory / "packages").unlink()
    stamp = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 1),
        "sources": sources,
        "packages": dict(line.split("\t") for line in packages if line),
    }
    Debian(directory).stamp.write_text(json.dumps(stamp, indent=1) + "\n")


def _write_index(repository: Path) -> None:
    """Describe the archives in the pool as the suite `TINY_SUITE`."""
    paragraphs = []
    for archive in sorted((repository / "pool").glob("*.deb")):
        words = ["dpkg-deb", "--field", str(archive)]
        control = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        found = re.search(r"^Package: (\S+)$", control, re.MULTILINE)
        if not found:
            raise NotMadeError(f"{archive} has no name")
        content = archive.read_bytes()
        paragraphs.append(
            re.sub(r"^Priority: .*\n", "", control, flags=re.MULTILINE)
            + f"Priority: {'required' if found[1] in TINY else 'optional'}\n"
            f"Filename: pool/{archive.name}\n"
            f"Size: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n\n"
        )
    index = "".join(paragraphs).encode()
    words = ["dpkg", "--print-architecture"]
    arch = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    name = f"main/binary-{arch}/Packages"
    suite = repository / "dists" / TINY_SUITE
    (suite / name).parent.mkdir(parents=True)
    (suite / name).write_bytes(index)
    (suite / "Release").write_text(
        f"Suite: {TINY_SUITE}\nCodename: {TINY_SUITE}\nArchitectures: {arch}\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} {name}\n"
    )
