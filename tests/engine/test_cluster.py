"""The manifests for a cluster, and the DaemonSet's installer on the root directory of a node."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import eci_supervisor
from tests.support.result import require_success

if TYPE_CHECKING:
    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

FILES = Path(eci_supervisor.__path__[0], "kubernetes")
INSTALLER = FILES / "install.sh"
HANDLERS = {"eci": "eci-runtime", "eci-crun": "eci-runtime-crun"}
"""Handlers that `eci enable` makes, and the names of its links."""
ECI = Path(sys.executable).with_name("eci")
CONFIG = """\
version = 2
# Our administrator's.
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FILES / name).read_text()))


# -- manifests ----------------------------------------------------------------------------


def test_runtime_classes_name_the_handlers_that_enable_makes() -> None:
    classes = documents("runtimeclass.yaml")
    assert {one["handler"] for one in classes} == set(HANDLERS)
    for one in classes:
        assert (one["apiVersion"], one["kind"]) == ("node.k8s.io/v1", "RuntimeClass")
        assert one["metadata"] == {"name": one["handler"]}


def test_daemon_set_runs_the_installer_on_the_nodes_root() -> None:
    namespace, daemon_set = documents("daemonset.yaml")
    assert namespace["metadata"]["name"] == daemon_set["metadata"]["namespace"]
    assert (daemon_set["apiVersion"], daemon_set["kind"]) == ("apps/v1", "DaemonSet")
    template = daemon_set["spec"]["template"]
    labels = daemon_set["spec"]["selector"]["matchLabels"]
    assert labels.items() <= template["metadata"]["labels"].items()
    pod = template["spec"]
    # The installer itself has to get at the node.
    assert "runtimeClassName" not in pod
    assert pod["hostPID"] is True
    (install,) = pod["initContainers"]
    values = {entry["name"]: entry["value"] for entry in install["env"]}
    assert install["command"] == ["/bin/sh", f"{values['ECI_PREFIX']}/install.sh", "install"]
    assert os.path.basename(values["ECI_PREFIX"]) == version("eci-supervisor")
    assert install["securityContext"] == {"privileged": True}
    places = {one["name"]: one["mountPath"] for one in install["volumeMounts"]}
    (volume,) = pod["volumes"]
    assert volume["hostPath"]["path"] == "/"
    assert places == {volume["name"]: values["ECI_HOST"]}
    # What stays is not privileged, and sees nothing of the node.
    (stays,) = pod["containers"]
    assert "volumeMounts" not in stays
    assert stays["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert stays["image"] == install["image"]


# -- the installer ------------------------------------------------------------------------


@dataclass
class Node:
    """The root directory of a node, and an image's directory for it."""

    host: Path
    prefix: Path
    restarts: Path

    @property
    def config(self) -> Path:
        """Containerd's configuration."""
        return self.host / "etc/containerd/config.toml"

    @property
    def copied(self) -> Path:
        """Where the node has the project."""
        return self.host / str(self.prefix).lstrip("/")

    def install(self, word: str = "install", *, check: bool = True, pods: str = "by-class") -> str:
        """Run the installer as the DaemonSet does; returns what it printed."""
        done = subprocess.run(
            ["/bin/sh", str(INSTALLER), word],
            env={
                "PATH": os.environ["PATH"],
                "ECI_PREFIX": str(self.prefix),
                "ECI_HOST": str(self.host),
                "ECI_PODS": pods,
                "ECI_RESTART": str(self.restarts.with_name("restart")),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            require_success(done, f"install.sh {word}")
        else:
            assert done.returncode == 1, done.stdout
        return done.stdout

    def restarted(self) -> int:
        """How often containerd was started anew."""
        return len(self.restarts.read_text().splitlines()) if self.restarts.exists() else 0


@pytest.fixture
def node(place: Place) -> Node:
    """A node of a cluster, with containerd, and an image that has this very `eci`."""
    top = place.directory("node")
    made = Node(top / "host", top / "opt/eci/0", top / "restarts")
    for name in ("etc/containerd", "usr/bin", "usr/sbin", "usr/lib", "var/lib/kubelet"):
        (made.host / name).mkdir(parents=True)
    for name in ("usr/sbin/runc", "usr/bin/containerd"):
        (made.host / name).touch(0o755)
    (made.host / "usr/lib/libfuse3.so.3").touch()
    (made.host / "var/lib/kubelet/config.yaml").touch()
    made.config.write_text(CONFIG)
    (made.prefix / "bin").mkdir(parents=True)
    (made.prefix / "bin/eci").write_text(f'#!/bin/sh\nexec {ECI} "$@"\n')
    (made.prefix / "bin/eci").chmod(0o755)
    interpreter = made.prefix / "python3.0"
    interpreter.touch(0o755)
    (made.prefix / "bin/python3").symlink_to(interpreter)
    restart = top / "restart"
    restart.write_text(f"#!/bin/sh\necho x >>{made.restarts}\n")
    restart.chmod(0o755)
    return made


def handlers(node: Node) -> dict[str, Any]:
    """Return the runtime handlers, as the real containerd reads them."""
    words = ["containerd", "--config", str(node.config), "config", "dump"]
    dump = subprocess.run(words, capture_output=True, text=True, check=True)
    tables = tomllib.loads(dump.stdout)
    found: dict[str, Any] = tables["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    return found


def test_install_twice_and_remove(node: Node) -> None:
    node.install()
    assert (node.copied / "bin/eci").read_bytes() == (node.prefix / "bin/eci").read_bytes()
    found = handlers(node)
    assert found["default_runtime_name"] == "runc"
    for name, link in HANDLERS.items():
        options = found["runtimes"][name]["options"]
        # As the administrator has it for runc.
        assert options["SystemdCgroup"] is True
        target = node.host / options["BinaryName"].lstrip("/")
        assert target.name == link
        assert os.readlink(target) == f"{eci_supervisor.__path__[0]}/bin/eci-runtime"
    assert node.restarted() == 1
    before = node.config.read_bytes()

    node.install()
    assert (node.config.read_bytes(), node.restarted()) == (before, 1)

    node.install("remove")
    assert (node.config.read_text(), node.restarted()) == (CONFIG, 2)
    # Pods that were started with them are still there.
    assert (node.copied / "bin/eci").exists()


def test_all_pods(node: Node) -> None:
    node.install(pods="all")
    assert handlers(node)["default_runtime_name"] == "eci"


def test_restart_that_failed_is_made_up_for(node: Node) -> None:
    restart = node.restarts.with_name("restart")
    works = restart.read_text()
    restart.write_text("#!/bin/sh\nexit 1\n")
    node.install(check=False)
    restart.write_text(works)
    node.install()
    assert node.restarted() == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("usr/sbin/runc", "the node has neither runc nor crun"),
        ("usr/lib/libfuse3.so.3", "the node has no libfuse3.so.3: install fuse3"),
    ],
)
def test_node_that_lacks_something_stays_as_it_is(node: Node, missing: str, message: str) -> None:
    (node.host / missing).unlink()
    assert message in node.install(check=False)
    assert (node.config.read_text(), node.restarted()) == (CONFIG, 0)
    assert not node.copied.exists()


def test_interpreter_of_another_distribution(node: Node) -> None:
    python = node.prefix / "bin/python3"
    python.unlink()
    python.symlink_to("/bin/true")
    real = os.path.realpath("/bin/true")
    assert f"the node has no {real}" in node.install(check=False)
    assert node.config.read_text() == CONFIG


def test_another_build_does_not_replace_one_that_containers_use(node: Node) -> None:
    node.install()
    (node.prefix / "bin/more").write_text("more")
    assert "give each version a directory of its own" in node.install(check=False)
    assert not (node.copied / "bin/more").exists()


def test_containerd_that_is_not_understood_stays_as_it_is(node: Node) -> None:
    text = CONFIG.replace("version = 2", "version = 1")
    node.config.write_text(text)
    assert "config.toml" in node.install(check=False)
    assert (node.config.read_text(), node.restarted()) == (text, 0)
