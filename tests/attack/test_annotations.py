"""An annotation of the bundle makes the runtime do other than the bundle says."""

from __future__ import annotations

import base64
import struct
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import make_spec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engines import Bundles
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

# BPF_RET | BPF_K, SECCOMP_RET_ALLOW: <linux/bpf_common.h>, <linux/seccomp.h>.
ALLOW_ALL = base64.b64encode(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)).decode()
FILTER = {"run.oci.seccomp_bpf_data": ALLOW_ALL}
# EPERM of the profile, as it comes before the kernel looks for the path.
CALL = ["mnt", "umount2", "/not-there", "-"]
Run = Callable[[dict[str, str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(bundles: Bundles, runtimes: dict[str, Path]) -> Run:
    """Runs the call in a container with annotations, by eci-runtime on crun."""

    def run(annotations: dict[str, str]) -> subprocess.CompletedProcess[str]:
        name = bundles.name()
        runtime = bundles.runtime(runtimes["eci-crun"])
        bundles.expect(runtime, name)
        spec = make_spec(CALL, cgroup=bundles.cgroup(name)) | {"annotations": annotations}
        return runtime.call("run", "--bundle", str(bundles.write(spec)), name, check=False)

    return run


def test_filter_is_replaced_without_protection(
    run: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = place.directory("set") / "settings.json"
    settings.write_text('{"enhancedContainerIsolation": {"value": false}}')
    monkeypatch.setenv("ECI_SETTINGS", str(settings))
    assert run({}).stdout.split() == ["EPERM"]
    assert run(FILTER).stdout.split() == ["ENOENT"]


@pytest.mark.parametrize(
    "annotations",
    [
        FILTER,
        {"run.oci.seccomp.plugins": "/tmp/plugin.so"},
        {"run.oci.keep_original_groups": "1"},
        {"run.oci.handler": "krun"},
        {"run.oci.systemd.subgroup": "../../system.slice/sshd.service"},
        {"run.oci.systemd.subgroup": ".."},
        {"org.systemd.property.PIDs": "[uint32 1]"},
        {"org.systemd.property.SuccessAction": "'reboot-force'"},
        {"org.criu.config": "/tmp/criu.conf"},
        {"bundle": "/elsewhere"},
    ],
)
def test_is_refused(run: Run, annotations: dict[str, str]) -> None:
    (name,) = annotations
    done = run(annotations)
    assert done.returncode != 0
    assert f"eci containers can't have the annotation {name} (" in done.stderr
    assert done.stderr.count("\n") == 1


def test_others_are_none_of_its_business(run: Run) -> None:
    others = {
        "run.oci.systemd.subgroup": "",
        "org.systemd.property.TimeoutStopUSec": "uint64 10000000",
        "io.kubernetes.pod.name": "x",
        "org.example": "y",
    }
    assert run(others).stdout.split() == ["EPERM"]
