"""Protected and shared paths: which of them decides."""

from __future__ import annotations

import posixpath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.policy.paths import (
    Access,
    Found,
    HostPaths,
    Inner,
    Named,
    Place,
    compile_table,
    host_paths,
    offender,
    shared,
    split,
)

PROTECTED, READ_ONLY, SHARED = Access.PROTECTED, Access.READ_ONLY, Access.SHARED
INODES: dict[str, int] = {}


def inode(path: str) -> tuple[int, int]:
    """An identity for each path of a host with one file system."""
    return 1, INODES.setdefault(path, len(INODES) + 1)


def line(path: str) -> list[str]:
    """The path, and what it lies in."""
    found = [path]
    while path != "/":
        path = posixpath.dirname(path)
        found.append(path)
    return found


def place(path: str) -> Place:
    return Place(b"8:1", path.encode())


def named(access: Access, path: str) -> Named:
    chain = [inode(one) for one in line(path)]
    return Named(access, chain[0], tuple(chain[1:]), place(path))


def source(path: str, **options: object) -> Found:
    chain = tuple(inode(one) for one in line(path))
    known = {
        "chain": chain,
        "place": place(path),
        "root": len(chain) - 1,
        "kernel": False,
        "device": False,
        "read_only": False,
        "read_only_within": False,
    }
    return Found(**(known | options))  # type: ignore[arg-type]


def allowed(names: list[tuple[Access, str]], found: Found) -> bool:
    return offender(compile_table(named(*one) for one in names), found) is None


HOST = [
    (SHARED, "/"),
    (PROTECTED, "/etc"),
    (READ_ONLY, "/etc/ssl"),
    (READ_ONLY, "/usr"),
    (PROTECTED, "/srv/a"),
    (SHARED, "/srv/a/b"),
    (PROTECTED, "/srv/a/b/c"),
    (PROTECTED, "/both"),
    (SHARED, "/both"),
]


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/home/x", "ww"),
        ("/etc", "--"),
        ("/etc/passwd", "--"),
        ("/etcetera", "ww"),
        ("/etc/ssl", "-r"),
        ("/etc/ssl/certs/a", "-r"),
        ("/usr/share", "-r"),
        ("/", "--"),
        ("/srv", "--"),
        ("/srv/a/other", "--"),
        ("/srv/a/b", "--"),
        ("/srv/a/b/d", "ww"),
        ("/srv/a/b/c/d", "--"),
        ("/both", "--"),
        ("/both/x", "--"),
    ],
)
def test_the_deepest_named_path_decides(path: str, answers: str) -> None:
    assert allowed(HOST, source(path)) == (answers[0] == "w")
    assert allowed(HOST, source(path, read_only=True)) == (answers[1] in "wr")


def test_what_is_named_nowhere_is_nobodys() -> None:
    names = [(SHARED, "/srv"), (PROTECTED, "/srv/x")]
    assert allowed(names, source("/srv/y"))
    assert not allowed(names, source("/home"))
    assert not allowed([], source("/home"))


def test_a_copy_of_a_protected_directory_is_known_by_its_place() -> None:
    """/mnt/copy is a bind of /etc/ssh: no directory above is that of the original."""
    copy = source("/mnt/copy", place=place("/etc/ssh"), root=0)
    assert not allowed(HOST, copy)
    assert not allowed(HOST, source("/mnt/copy", place=place("/srv"), root=0))
    assert allowed(HOST, source("/mnt/copy", place=place("/home/x"), root=0))
    assert allowed(HOST, source("/mnt/copy", place=Place(b"8:2", b"/etc/ssh"), root=0))


def test_what_a_protected_path_lies_in_is_known_over_mounts_too() -> None:
    """/srv/disk is a file system of its own."""
    secret = msgspec.structs.replace(
        named(PROTECTED, "/srv/disk/secret"), place=Place(b"8:2", b"/secret")
    )
    table = compile_table([named(SHARED, "/"), secret])
    assert offender(table, source("/srv")) is not None
    assert offender(table, source("/srv/other")) is None


def test_a_kernel_file_system_is_shared_only_by_a_name_in_it() -> None:
    names = [(SHARED, "/"), (SHARED, "/sys/fs/bpf/x")]
    assert not allowed(names, source("/sys/fs", kernel=True, root=1))
    assert not allowed(names, source("/copy", kernel=True, root=0))
    assert allowed(names, source("/sys/fs/bpf/x/y", kernel=True, root=3))
    assert allowed([(SHARED, "/sys")], source("/sys/fs", kernel=True, root=1))


def test_a_device_is_shared_only_by_its_own_name() -> None:
    names = [(SHARED, "/"), (SHARED, "/srv/disk"), (PROTECTED, "/dev")]
    assert not allowed(names, source("/srv/other", device=True))
    assert allowed(names, source("/srv/disk", device=True))
    assert not allowed(names, source("/dev/sda", device=True))
    assert not allowed([*names, (PROTECTED, "/srv/disk")], source("/srv/disk", device=True))


@pytest.mark.parametrize(
    ("inner", "good"),
    [
        (Inner(b"/home/x/a", place("/home/y"), kernel=False), "ww"),
        (Inner(b"/home/x/a", place("/etc/ssh"), kernel=False), "--"),
        (Inner(b"/home/x/a", place("/srv"), kernel=False), "--"),
        (Inner(b"/home/x/a", place("/usr/share"), kernel=False), "--"),
        (Inner(b"/home/x/a", Place(b"0:9", b"/"), kernel=False), "ww"),
        (Inner(b"/home/x/a", Place(b"0:9", b"/"), kernel=True), "--"),
    ],
)
def test_what_is_mounted_in_a_source_comes_along(inner: Inner, good: str) -> None:
    table = compile_table(named(*one) for one in HOST)
    for read_only, letter in zip((False, True), good, strict=True):
        found = source("/home/x", read_only=read_only, inner=(inner,))
        assert offender(table, found) == (None if letter == "w" else inner)
    whole = source("/home/x", read_only=True, read_only_within=True, inner=(inner,))
    assert (offender(table, whole) is None) == (good == "ww" or b"/usr" in inner.place.path)


def test_a_volume_made_of_another_place_is_judged_by_that_place() -> None:
    names = [(SHARED, "/srv"), (PROTECTED, "/var/lib/docker"), (SHARED, "/var/lib/docker/v/n")]

    def volume(*elsewhere: str) -> Found:
        chains = tuple(tuple(inode(one) for one in line(path)) for path in elsewhere)
        return source("/var/lib/docker/v/n/_data", place=Place(b"7:7", b"/x"), elsewhere=chains)

    assert allowed(names, volume("/srv/x"))
    assert not allowed(names, volume())
    assert not allowed(names, volume("/home/x"))
    assert not allowed(names, volume("/var/lib/docker/other"))
    assert allowed(names, volume("/var/lib/docker/v/other/_data", "/srv/x"))


def test_what_is_shared_for_one_source_opens_nothing_that_is_protected_by_name() -> None:
    """An engine's own file for its container, in the engine's directory (runtime/owned.py)."""
    names = [(SHARED, "/srv"), (PROTECTED, "/var/lib/docker"), (PROTECTED, "/var/lib/docker/x")]
    table = compile_table(named(*one) for one in names)
    file = "/var/lib/docker/containers/c/hosts"
    own = [named(SHARED, file)]
    assert offender(table, source(file)) is not None
    assert offender(table, source(file), own) is None
    assert offender(table, source("/var/lib/docker/containers/d/hosts"), own) is not None
    # Nor does it make of a device, or of the kernel's, what the settings do not share.
    for kind in ("device", "kernel"):
        assert offender(table, source(file, **{kind: True}), own) is not None
    twice = [named(SHARED, "/var/lib/docker/x")]
    assert offender(table, source("/var/lib/docker/x"), twice) is not None
    assert offender(table, source(file)) is not None, "only for that source"


@pytest.mark.parametrize(
    ("whole", "part", "answer"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a/b", "/a", False),
        ("/", "/a", True),
    ],
)
def test_a_place_holds_what_lies_in_it(whole: str, part: str, *, answer: bool) -> None:
    assert place(whole).holds(place(part)) == answer
    assert not Place(b"8:2", whole.encode()).holds(place(part))


def test_entries_say_whether_read_only_is_enough() -> None:
    assert split("/etc") == ("/etc", PROTECTED)
    assert split("/usr:ro") == ("/usr", READ_ONLY)
    assert shared(["/srv", "/opt:ro"]) == [("/srv", SHARED), ("/opt", READ_ONLY)]
    given = [("/etc", PROTECTED), ("/usr", READ_ONLY), ("/", SHARED)]
    assert host_paths(given) == HostPaths(("/etc",), ("/usr", "/"))


NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, max_size=5).map(lambda parts: "/" + "/".join(parts))
RULES = st.lists(st.tuples(st.sampled_from(list(Access)), PATHS), max_size=8)


def is_in(path: str, directory: str) -> bool:
    return directory in line(path)


@given(names=RULES, path=PATHS, read_only=st.booleans())
def test_whatever_is_named_the_deepest_wins_and_nothing_is_shown(
    names: list[tuple[Access, str]], path: str, *, read_only: bool
) -> None:
    """Told once more, by strings."""
    over = [(len(line(one)), -access, access) for access, one in names if is_in(path, one)]
    beneath = [access for access, one in names if is_in(one, path)]
    access = min([max(over)[2] if over else PROTECTED, *beneath])
    expected = access is SHARED or (access is READ_ONLY and read_only)
    assert allowed(names, source(path, read_only=read_only)) == expected


@given(RULES, PATHS, PATHS)
def test_where_a_file_system_is_mounted_makes_nothing_less_protected(
    names: list[tuple[Access, str]], path: str, other: str
) -> None:
    if allowed(names, source(other, place=place(path))):
        seen = [(len(line(one)), -access) for access, one in names if is_in(path, one)]
        assert not seen or -max(seen)[1] == SHARED
        assert not any(access is not SHARED for access, one in names if is_in(one, path))
