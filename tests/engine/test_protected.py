"""Host-protected paths (rule 3): no mount call reaches one, whatever it is called.

The administrator has protected a directory of the host, and a container sees it all the same,
since a directory above it is its volume.  Each call is shown to succeed under plain runc.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import bind, make_spec
from tests.support.rootfs import build_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

# In the volume /v, `own` is the container's and `secret` is protected.
OVERLAY = "mount overlay /mnt overlay -"
CALLS = {
    "bind": "mount /v/secret /mnt - MS_BIND -",
    "bind_beneath": "mount /v/secret/in /mnt - MS_BIND -",
    "bind_above": "mount /v /mnt - MS_BIND -",
    "bind_above_recursive": "mount /v /mnt - MS_BIND|MS_REC -",
    "bind_through_a_link": "mount /v/own/link /mnt - MS_BIND -",
    "bind_renamed": "rename /v/secret /v/own/s , mount /v/own/s /mnt - MS_BIND -",
    "tmpfs": "mount none /v/secret/in tmpfs - -",
    "clone": "clone /v/secret /mnt -",
    "clone_beneath": "clone /v/secret/in /mnt -",
    "fsmount": "fsmount tmpfs /v/secret/in",
    "remount": "mount - /v - MS_REMOUNT|MS_BIND|MS_NOSUID -",
    "setattr": "mount_setattr /v - MOUNT_ATTR_NOSUID - -",
    "lower_layer": f"{OVERLAY} lowerdir=/tmp:/v/secret",
    "lower_layer_above": f"{OVERLAY} lowerdir=/v:/tmp",
    "relative_layer": f"chdir /v/secret , {OVERLAY} lowerdir=/tmp:in",
    "upper_layer": f"{OVERLAY} lowerdir=/tmp,upperdir=/v/secret/in,workdir=/v/secret/work",
    "chroot": "chroot /v/own , chdir / , mount /s /m - MS_BIND -",
}


@pytest.fixture
def run(
    bundles: Bundles,
    place: Place,
    programs: dict[str, Path],
    runtimes: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, str], list[str]]:
    """Runs calls in a new container with the volume; returns what each is answered."""

    def run(runtime: str, calls: str) -> list[str]:
        volume = place.directory("v")
        for name in ("own/m", "own/s", "secret/in", "secret/work"):
            (volume / name).mkdir(parents=True)
        (volume / "own/link").symlink_to("../secret")
        settings = place.directory("s") / "settings.json"
        protected = volume / ("own/s" if calls.startswith("chroot") else "secret")
        settings.write_text(
            json.dumps({"configurationFileVersion": 2, "vm": {"protectedPaths": [str(protected)]}})
        )
        monkeypatch.setenv("ECI_SETTINGS", str(settings))
        if "/own/s " in calls:
            (volume / "own/s").rmdir()
        name = bundles.name()
        spec = make_spec(
            ["mnt", *calls.split()],
            cgroup=bundles.cgroup(name),
            privileged=True,
            mounts=[bind(volume, "/v")],
            identity_userns=runtime == "runc",
        )
        root = build_root(place.directory("b") / "root", programs.values())
        bundle = bundles.write(spec, root)
        program = bundles.runtime(runtimes.get(runtime, "runc"))
        bundles.expect(program, name)
        return program.call("run", "--bundle", str(bundle), name).stdout.split()

    return run


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_call_succeeds_without_protection(run: Callable[[str, str], list[str]], calls: str) -> None:
    assert set(run("runc", calls)) == {"0"}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_call_reaches_no_protected_path(
    run: Callable[[str, str], list[str]], runtime: str, calls: str
) -> None:
    *first, last = run(runtime, calls)
    assert set(first) <= {"0"}
    assert last == "EPERM"


def test_layers_beside_a_protected_path_are_the_containers_own(
    run: Callable[[str, str], list[str]], runtime: str
) -> None:
    layers = "lowerdir=/tmp:/v/own/m,upperdir=/v/own/s,workdir=/v/own/w"
    calls = f"mkdir /v/own/w , {OVERLAY} {layers} , mkdir /mnt/d , umount2 /mnt -"
    assert run(runtime, calls) == ["0", "0", "0", "0"]


def test_overlay_of_the_new_api_is_refused_where_its_layers_are_not_known(
    run: Callable[[str, str], list[str]], runtime: str
) -> None:
    assert run(runtime, "fsmount tmpfs /mnt , fsoverlay /tmp:/v/own/m /mnt") == ["0", "EPERM"]
