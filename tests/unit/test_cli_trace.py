"""Which container `eci trace` follows."""

from __future__ import annotations

import click
import pytest

from eci_supervisor.cli.trace import Follower
from eci_supervisor.kernel.watch import NONE
from eci_supervisor.observe.counts import Seen


def seen(name: str, *, supervised: bool = True, alive: bool = True) -> Seen:
    """Return a container of that id."""
    return Seen(
        id=name,
        key=name,
        state_dir=f"/s/{name}",
        runtime="runc",
        runtime_root="/r",
        supervised=supervised,
        spared=False,
        keeper_alive=True,
        worker_alive=alive,
        counts=NONE,
    )


THERE = {
    one.state_dir: one
    for one in (
        seen("ab"),
        seen("abc"),
        seen("b1"),
        seen("b2"),
        seen("plain", supervised=False, alive=False),
        seen("lost", alive=False),
    )
}


@pytest.mark.parametrize(("wanted", "found"), [("ab", "ab"), ("abc", "abc"), ("b1", "b1")])
def test_an_id_or_its_beginning(wanted: str, found: str) -> None:
    chosen = Follower(wanted, as_json=False)._chosen(THERE)
    assert [one.id for one in chosen.values()] == [found]


def test_a_beginning_of_one() -> None:
    chosen = Follower("a", as_json=False)._chosen({"/s/abc": THERE["/s/abc"]})
    assert list(chosen) == ["/s/abc"]


def test_all() -> None:
    assert Follower(None, as_json=False)._chosen(THERE) == THERE


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("x", "no protected container x is running"),
        ("b", "b stands for more than one container: b1, b2"),
        ("plain", "plain: its seccomp profile lets no mount call through: nothing to follow"),
        ("lost", "lost: its worker is gone: its mount calls are denied"),
    ],
)
def test_who_cannot_be_followed(wanted: str, said: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        Follower(wanted, as_json=False)._chosen(THERE)
    assert caught.value.message == said
