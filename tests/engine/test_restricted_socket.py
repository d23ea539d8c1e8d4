"""The restricted engine socket before a real dockerd, by docker's own client and by raw HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.docker import SLEEP
from tests.support.restricted import Restricted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.docker import Dockerd
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def open_socket(place: Place, dockerd: Dockerd) -> Iterator[Restricted]:
    """A restricted socket without any command denied by the settings."""
    made = Restricted(place, dockerd.socket)
    yield made
    made.close()


def test_docker_run_brings_stdin_to_the_container_and_its_output_back(
    open_socket: Restricted,
) -> None:
    done = open_socket.docker("run", "--rm", "-i", "box", "cat", stdin="to and fro\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "to and fro\n", "")
