"""What is nested, and where: mounts[] in, the plan out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eci_supervisor.runtime.nesting import Entry, plan, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

RW, RO = "rw", "ro"


def entry(destination: str, *words: str, runtime: bool = False, whole: bool = True) -> Entry:
    return Entry(destination, words, staged=not runtime, whole=whole, readonly=RO in words)


PROC = entry("/proc", runtime=True)


def planned(
    *entries: Entry,
    links: dict[str, str] | None = None,
    root_readonly: bool = False,
    unreachable: tuple[str, ...] = (),
) -> dict[str, tuple[str | None, str]]:
    """Plan, and tell it by destinations: what is nested → in what, at which path there."""
    asked: dict[str, tuple[str | None, str]] = {}

    def reach(index: int, parent: int | None, path: str) -> bool:
        above = None if parent is None else entries[parent].destination
        asked[entries[index].destination] = above, path
        return entries[index].destination not in unreachable

    nested = plan(entries, root_readonly=root_readonly, link=(links or {}).get, reach=reach)
    assert nested == sorted(nested)
    return {name: asked[name] for name in (entries[index].destination for index in nested)}


def test_read_only_over_what_is_writable_is_nested_with_what_it_lies_in() -> None:
    assert planned(PROC, entry("/w"), entry("/other"), entry("/w/a/in", RO)) == {
        "/w": (None, "w"),
        "/w/a/in": ("/w", "a/in"),
    }
    assert planned(PROC, entry("/vol", RO)) == {"/vol": (None, "vol")}


def test_what_hides_nothing_is_not() -> None:
    assert planned(PROC, entry("/w"), entry("/w/in"), entry("/etc/hosts")) == {}
    assert planned(entry("/vol", RO), root_readonly=True) == {}
    # Read-only in read-only: what lies below could not be written to either.
    assert planned(entry("/vol", RO), entry("/vol/in", RO)) == {"/vol": (None, "vol")}


def test_what_lies_in_a_mount_of_the_runtimes_is_not() -> None:
    tmpfs = entry("/t", runtime=True)
    assert planned(tmpfs, entry("/t/in", RO)) == {}
    assert planned(tmpfs, entry("/t/w"), entry("/t/w/in", RO)) == {}
    assert planned(entry("/proc", runtime=True), entry("/proc/x", RO)) == {}


def test_a_neighbour_by_name_is_no_parent() -> None:
    assert planned(entry("/w"), entry("/w2", RO)) == {"/w2": (None, "w2")}


def test_what_buries_another_bind_is_nested_with_it() -> None:
    assert planned(entry("/data/a"), entry("/data"), entry("/data/a/b")) == {
        "/data/a": (None, "data/a"),
        "/data": (None, "data"),
    }
    assert planned(entry("/data", RO), entry("/./data")) == {
        "/data": (None, "data"),
        "/./data": ("/data", "."),
    }


def test_what_would_come_before_a_mount_that_it_buries_is_not() -> None:
    tmpfs = entry("/data/t", runtime=True)
    assert planned(tmpfs, entry("/data", RO)) == {}
    assert planned(tmpfs, entry("/data/a"), entry("/data", RO)) == {}
    assert planned(entry("/data", runtime=True), entry("/data", RO)) == {}
    # A mount that was buried before by what it lies in is in nobody's way.
    assert planned(entry("/w/in/t"), entry("/w"), entry("/w/in", RO)) == {
        "/w/in/t": (None, "w/in/t"),
        "/w": (None, "w"),
        "/w/in": ("/w", "in"),
    }


def test_the_last_mount_above_counts() -> None:
    assert planned(entry("/w"), entry("/w/a"), entry("/w"), entry("/w/a/in", RO))["/w/a/in"] == (
        "/w",
        "a/in",
    )


@pytest.mark.parametrize("word", ["shared", "rshared", "unbindable", "runbindable"])
def test_what_only_the_runtime_can_arrange_is_not(word: str) -> None:
    assert planned(entry("/vol", RO, word)) == {}
    assert planned(entry("/w", word), entry("/w/in", RO)) == {}


def test_a_tree_that_is_put_together_later_carries_nothing() -> None:
    assert planned(entry("/w", whole=False), entry("/w/in", RO)) == {"/w": (None, "w")}


def test_what_cannot_be_reached_is_left_and_so_is_what_lies_in_it() -> None:
    assert planned(entry("/w"), entry("/w/in", RO), unreachable=("/w/in",)) == {"/w": (None, "w")}
    assert planned(entry("/w"), entry("/w/in", RO), unreachable=("/w",)) == {}
    # Then the runtime mounts it: on top of what is nested, so that may not be on top of it.
    burying = entry("/data/a", RO), entry("/data", RO)
    assert planned(*burying, unreachable=("/data/a",)) == {}


def test_the_root_directory_is_nothing_to_mount_on() -> None:
    assert planned(entry("/", RO)) == {}
    assert planned(entry("/a/..", RO), entry("/vol", RO)) == {}


def test_links_of_the_root_file_system_are_followed() -> None:
    links = {"var/run": "/run", "run/me": "../srv/./me", "data": "one/two"}
    assert planned(entry("/var/run/secret", RO), links=links) == {
        "/var/run/secret": (None, "run/secret")
    }
    assert planned(entry("var/run/me/x", RO), links=links) == {"var/run/me/x": (None, "srv/me/x")}
    assert planned(entry("/data", RO), links=links) == {"/data": (None, "one/two")}
    # A mount hides the links that lie below it.
    run = entry("/run", runtime=True)
    assert planned(run, entry("/var/run/secret", RO), links=links) == {}
    assert planned(entry("/run"), entry("/var/run/me/x", RO), links=links) == {
        "/run": (None, "run"),
        "/var/run/me/x": ("/run", "me/x"),
    }


def test_links_never_lead_out_and_loops_end() -> None:
    none: Callable[[str], str | None] = {"up": "../../..", "a": "b", "b": "/a"}.get
    assert resolve("/up/../../x/./y/..", [], none) == ("x",)
    assert resolve("/a/x", [], none) is None
    loop = {"a": "b", "b": "a"}
    assert planned(entry("/x", RO), entry("/a"), entry("/y", RO), links=loop) == {"/x": (None, "x")}
