"""What stays the container's own beside a host-protected path that a volume shows (rule 3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import appearing, bind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

OVERLAY = "mount overlay /mnt overlay -"


@pytest.fixture
def run(
    bundles: Bundles,
    place: Place,
    runtimes: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, str], list[str]]:
    """Runs calls in a new container with the volume; returns what each is answered."""

    def run(runtime: str, calls: str) -> list[str]:
        volume = place.directory("v")
        for name in ("own/m", "own/s"):
            (volume / name).mkdir(parents=True)
        hidden = place.directory("hidden")
        settings = place.directory("s") / "settings.json"
        protected = {"protectedPaths": [str(volume / "secret")]}
        settings.write_text(json.dumps({"configurationFileVersion": 2, "vm": protected}))
        monkeypatch.setenv("ECI_SETTINGS", str(settings))
        return bundles.answers(
            runtimes[runtime],
            ["mnt", *calls.split()],
            privileged=True,
            mounts=[bind(volume, "/v")],
            hooks=appearing(hidden, volume / "secret"),
        )

    return run


def test_layers_beside_a_protected_path_are_the_containers_own(
    run: Callable[[str, str], list[str]], runtime: str
) -> None:
    layers = "lowerdir=/bin:/v/own/m,upperdir=/v/own/s,workdir=/v/own/w"
    calls = f"mkdir /v/own/w , {OVERLAY} {layers} , mkdir /mnt/upper , umount2 /mnt -"
    assert run(runtime, calls) == ["0", "0", "0", "0"]


def test_overlay_of_the_new_api_is_refused_where_its_layers_are_not_known(
    run: Callable[[str, str], list[str]], runtime: str
) -> None:
    assert run(runtime, "fsmount tmpfs /mnt , fsoverlay /tmp:/v/own/m /mnt") == ["0", "EPERM"]
