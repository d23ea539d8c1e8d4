"""What status and doctor make of what they find."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from eci_supervisor.engines import checks, processes, recreate
from eci_supervisor.engines.files import Tree
from eci_supervisor.engines.plan import Where
from eci_supervisor.kernel import features

if TYPE_CHECKING:
    from pathlib import Path

ECI = os.path.join(os.path.dirname(sys.executable), "eci")

CONFIG: dict[str, Any] = {
    "Name": "/web",
    "ID": "0123456789abcdef",
    "Config": {
        "Image": "nginx:1",
        "Env": ["A=1 2"],
        "Entrypoint": ["/entry", "-x"],
        "Cmd": ["serve", "it's"],
        "User": "www",
        "Labels": {"team": "a b"},
    },
}
HOST: dict[str, Any] = {
    "Binds": ["/srv/a b:/data:ro"],
    "Privileged": True,
    "Memory": 1048576,
    "NanoCpus": 1500000000,
    "NetworkMode": "default",
    "IpcMode": "private",
    "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
    "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "ReadOnly": True}],
}


def test_a_restart_is_enough_where_every_start_is_protected() -> None:
    assert recreate.docker(CONFIG, HOST, restart=True) == "docker restart web"
    # One that is removed when it stops has to be run again.
    again = recreate.docker(CONFIG, HOST | {"AutoRemove": True}, restart=True)
    assert again.startswith("docker rm -f web && docker run ")


def test_else_the_container_is_made_anew_with_its_flags() -> None:
    remove, _, run = recreate.docker(CONFIG, HOST, restart=False).partition(" && ")
    assert remove == "docker rm -f web"
    words = shlex.split(run)
    assert words[:5] == ["docker", "run", "-d", "--name", "web"]
    assert words[words.index("nginx:1") :] == ["nginx:1", "-x", "serve", "it's"]
    for pair in (
        ["--volume", "/srv/a b:/data:ro"],
        ["--memory", "1048576"],
        ["--cpus", "1.5"],
        ["--publish", "127.0.0.1:8080:80/tcp"],
        ["--restart", "on-failure:3"],
        ["--mount", "type=volume,source=v,target=/v,readonly"],
        ["--env", "A=1 2"],
        ["--label", "team=a b"],
        ["--user", "www"],
        ["--entrypoint", "/entry"],
    ):
        assert pair == words[(at := words.index(pair[0])) : at + 2]
    assert "--privileged" in words
    assert "--ipc" not in words
    assert "--network" not in words


def test_a_service_of_compose_is_made_anew_by_compose() -> None:
    labels = {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": "web",
        "com.docker.compose.project.config_files": "/srv/shop/compose.yaml",
    }
    config = CONFIG | {"Config": CONFIG["Config"] | {"Labels": labels}}
    assert shlex.split(recreate.docker(config, HOST, restart=False)) == [
        *("docker", "compose", "--project-name", "shop", "--file", "/srv/shop/compose.yaml"),
        *("up", "-d", "--force-recreate", "web"),
    ]


def test_a_pod_is_deleted_so_that_it_comes_again() -> None:
    notes = {
        "io.kubernetes.cri.sandbox-name": "dns-1",
        "io.kubernetes.cri.sandbox-namespace": "kube-system",
    }
    words = recreate.containerd("k8s.io", "abc", notes)
    assert words == "kubectl --namespace kube-system delete pod dns-1"
    assert recreate.containerd("default", "abc", {}).startswith("ctr --namespace default task kill")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["dockerd", "--config-file=/a"], "/a"),
        (["dockerd", "--config-file", "/a"], "/a"),
        (["dockerd", "--config-file"], "usual"),
        (["dockerd", "--other=/a"], "usual"),
    ],
)
def test_flags_are_read_in_both_spellings(words: list[str], value: str) -> None:
    assert processes.value_of(words, "--config-file", default="usual") == value


def test_an_id_range_that_users_of_the_host_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/subuid").write_text("# x\nalice:100000:65536\nbob:1:5\n")
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:\neve:x:200000:1::/:\n")
    (check,) = checks.ids(Where(tree=Tree(str(tmp_path))))
    assert check.result == checks.LESS
    assert check.found == "/etc/subuid: alice has 100000-165535; /etc/passwd: eve is 200000"
    (tmp_path / "etc/subuid").unlink()
    (tmp_path / "etc/passwd").unlink()
    (check,) = checks.ids(Where(tree=Tree(str(tmp_path))))
    assert check.result == checks.OK


def test_an_old_kernel_lacks_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    old = os.uname_result((real.sysname, real.nodename, "6.1.0-9", real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: old)
    found = {check.name: check.result for check in checks.kernel()}
    assert found["STATX_MNT_ID_UNIQUE"] == checks.MISSING
    assert found["overlay on ID-mapped layers"] == checks.OK
    assert len(found) == len(features.REQUIRED) + 1


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `eci doctor` to its end."""
    return subprocess.run(
        [ECI, "doctor", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.root
@pytest.mark.engine
def test_doctor_finds_a_host_fit_and_says_what_it_lacks() -> None:
    done = doctor("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fit"] is True
    results = {check["name"]: check["result"] for check in found["checks"]}
    assert results["our own programs"] == "ok"
    assert results["runc"] == "ok"
    assert results["ID-mapped mounts for docker"] == "ok"
    assert set(results.values()) <= {"ok", "less"}


@pytest.mark.root
def test_doctor_fails_where_no_container_would_start(tmp_path: Path) -> None:
    broken = tmp_path / "settings.json"
    broken.write_text('{\n"vm": 1}')
    done = doctor("--json", ECI_SETTINGS=str(broken))
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["settings"]["result"] == "missing"
    assert found["settings"]["found"].startswith(f"{broken}: line 2: vm: ")
    done = doctor(ECI_SETTINGS=str(broken))
    assert done.returncode == 1
    assert "NO CONTAINER STARTS" in done.stdout


@pytest.mark.root
def test_a_file_system_that_cannot_be_mapped_is_named() -> None:
    assert checks.can_idmap("/proc") != ""
    assert checks.can_idmap("/dev/shm") == ""
