"""What random calls have found, each difference once, as short as it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.sides import PRIVILEGED, SYS_ADMIN, Script

if TYPE_CHECKING:
    from tests.differential.sides import Sides

pytestmark = [pytest.mark.root, pytest.mark.engine]


def same(sides: Sides, *lines: str, kind: str = PRIVILEGED) -> None:
    """Compare a script, in both sizes of words."""
    for program in ("sequence", "sequence32"):
        script = Script(kind, program, lines)
        differences = sides.run(script).differences
        assert not differences, "\n".join([*differences, str(script)])


def test_every_call_has_a_trace_line_at_once(sides: Sides) -> None:
    """The reader went to sleep without asking to be woken, when it had found something just then.

    What came next stayed in the ring, until the ring was full; refusals were not logged either.
    """
    for _ in range(10):
        same(sides, *[". umount2 =/mnt/a 0", ". mount =none =/mnt/b =tmpfs 0 -"] * 30)
