"""What bodies of requests may ask for, through a restricted socket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.socket.bodies import (
    BodyError,
    BodyRefusedError,
    host_mount,
    judge_new_container,
    judge_new_network,
    judge_new_volume,
    judge_start,
)


def create(**host: object) -> dict[str, object]:
    """Judge a new container with this HostConfig; return what is sent on."""
    body = json.dumps({"Image": "box", "HostConfig": host}).encode()
    sent = json.loads(judge_new_container(body, "eci").body)
    assert isinstance(sent, dict)
    return sent


def test_the_runtime_is_ours_whatever_was_asked_for() -> None:
    for host in ({}, {"Runtime": "runc"}, {"runtime": "/bin/sh"}, {"RUNTIME": ""}):
        sent = create(**host)["HostConfig"]
        assert isinstance(sent, dict)
        assert list(sent.values()) == ["eci"]
    for body in (b"{}", b'{"HostConfig": null}', b' {"hostconfig": {}} '):
        sent = json.loads(judge_new_container(body, "eci").body)
        assert list(sent.values()) == [{"Runtime": "eci"}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"{} {}",
        b'{"HostConfig": []}',
        b'{"HostConfig": "x"}',
        b'{"HostConfig": {}, "HostConfig": {"Runtime": "runc"}}',
        b'{"HostConfig": {}, "hostconfig": {"Runtime": "runc"}}',
        b'{"HostConfig": {"Runtime": "a", "runtime": "b"}}',
        # Go takes U+017F for s and U+212A for k; others take U+FB01 for fi.
        '{"HostConfig": {}, "Ho\u017ftconfig": {"Runtime": "runc"}}'.encode(),
        '{"HostCon\ufb01g": {}, "Devices": [{"PathOnHost": "/dev/sda"}]}'.encode(),
        '{"HostConfig": {"device\u017f": [{"PathOnHost": "/dev/sda"}]}}'.encode(),
        '{"HostConfig": {"Run\u00adtime": "runc"}}'.encode(),
        b'{"HostConfig": {"Mounts": [{"\\u017fource": "x"}]}}',
        b'{"HostConfig": {"Devices": {}}}',
        b'{"HostConfig": {"Mounts": [1]}}',
        b'{"HostConfig": {"Binds": "x"}}',
        b'{"HostConfig": {"Memory": NaN}}',
        b'{"HostConfig": {"Memory": Infinity}}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_cannot_be_judged_is_an_error(body: bytes) -> None:
    with pytest.raises(BodyError):
        judge_new_container(body, "eci")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ({"Devices": [{"PathOnHost": "/dev/sda"}]}, "Devices"),
        ({"devices": [{"PathOnHost": "/dev/sda"}]}, "Devices"),
        ({"DeviceRequests": [{}]}, "DeviceRequests"),
        ({"DeviceCgroupRules": ["a *:* rwm"]}, "DeviceCgroupRules"),
        ({"Annotations": {"run.oci.seccomp.plugins": "/x"}}, "Annotations"),
        ({"Annotations": {"RUN.oci.handler": "krun"}}, "Annotations"),
        ({"LogConfig": {"Type": "x", "Config": {"syslog-address": "unix:///x"}}}, "LogConfig"),
        ({"LogConfig": {"Type": "../x"}}, "LogConfig.Type"),
        ({"LogConfig": {"Type": "syslog"}}, "writes to the host's log"),
        ({"logconfig": {"type": "journald"}}, "writes to the host's log"),
        ({"VolumeDriver": "../../../home/x"}, "VolumeDriver"),
        ({"Mounts": [{"VolumeOptions": {"DriverConfig": {"Name": "/x"}}}]}, "may not lead"),
        ({"Mounts": [{"Type": "volume", "Target": "/x,volume-opt=device=/"}]}, "a comma"),
        ({"Mounts": [{"source": 'x"'}]}, "a comma"),
        ({"Mounts": [{"Source": "x\n"}]}, "a comma"),
        ({"LogConfig": {"Type": "x", "Config": {"y": "UNIXGRAM:///x"}}}, "LogConfig"),
        (
            {"Mounts": [{"VolumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}]},
            "driver options",
        ),
        (
            {"mounts": [{"volumeoptions": {"driverconfig": {"options": {"device": "/"}}}}]},
            "driver options",
        ),
    ],
)
def test_what_gets_to_the_host_without_a_runtime_is_refused(
    host: dict[str, object], why: str
) -> None:
    with pytest.raises(BodyRefusedError, match=why):
        create(**host)
    # The engine has the fields of a HostConfig beside it as well.
    for body in (host, host | {"HostConfig": {}}):
        with pytest.raises(BodyRefusedError, match=why):
            judge_new_container(json.dumps(body).encode(), "eci")


def test_no_field_beside_host_config_is_overlooked() -> None:
    body = {"Image": "box", "runtime": "runc", "Binds": ["a:/a"], "hostconfig": {"binds": ["b:/b"]}}
    made = judge_new_container(json.dumps(body).encode(), "eci")
    assert made.volumes == ("a", "b")
    assert json.loads(made.body) == {
        "Image": "box",
        "Binds": ["a:/a"],
        "HostConfig": {"binds": ["b:/b"], "Runtime": "eci"},
    }


def test_all_else_is_sent_on_as_it_came() -> None:
    host = {
        "Binds": ["/srv:/srv", "named:/x", "/anonymous"],
        "Devices": [],
        "DeviceRequests": None,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Annotations": {"a": "b"},
        "Memory": 2**63 - 1,
        "Privileged": True,
        "Mounts": [
            {"Type": "bind", "Source": "/srv", "Target": "/y"},
            {"Type": "volume", "Source": "other", "Target": "/z", "VolumeOptions": {}},
            {"Type": "volume", "Target": "/anonymous"},
            {"Type": "tmpfs", "Target": "/t"},
        ],
    }
    body = json.dumps({"Image": "ä\ud800", "Labels": {"a": "1", "A": "2"}, "HostConfig": host})
    made = judge_new_container(body.encode(), "eci")
    assert json.loads(made.body) == json.loads(body) | {"HostConfig": host | {"Runtime": "eci"}}
    assert made.volumes == ("named", "other")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["HostConfig", "Runtime", "Mounts", "Devices", "Binds", "x"]),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON)
def test_any_body_is_judged_or_an_error(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        sent = json.loads(judge_new_container(body, "eci").body)
    except (BodyError, BodyRefusedError):
        return
    assert sent["HostConfig"]["Runtime"] == "eci"
    assert not sent["HostConfig"].get("Devices")


def test_a_start_has_no_body() -> None:
    for body in (b"", b"{}", b" null\n"):
        assert judge_start(body) == body
    with pytest.raises(BodyRefusedError):
        judge_start(b'{"Binds": ["/:/x"]}')


def test_a_volume_has_no_driver_options() -> None:
    assert json.loads(judge_new_volume(b'{"Name": "x", "DriverOpts": {}}'))["Name"] == "x"
    assert judge_new_volume(b"") == b"{}"
    for body in (b'{"DriverOpts": {"o": "bind"}}', b'{"driveropts": {"o": "bind"}}'):
        with pytest.raises(BodyRefusedError, match="DriverOpts"):
            judge_new_volume(body)
    with pytest.raises(BodyRefusedError, match="ClusterVolumeSpec"):
        judge_new_volume(b'{"ClusterVolumeSpec": {"Group": "x"}}')
    with pytest.raises(BodyError):
        judge_new_volume(b'{"DriverOpts": {}, "DriverOpts": {"o": "bind"}}')


@pytest.mark.parametrize(
    "name",
    ["..", ".", "/x", "../x", "x/../y", "x/./y", "x//y", "x/", "./x", "x\\y", "x y", "x\ny", "x\0"],
)
def test_the_name_of_a_driver_leads_nowhere(name: str) -> None:
    for body in ({"Driver": name}, {"driver": name}):
        with pytest.raises(BodyRefusedError, match="Driver"):
            judge_new_volume(json.dumps(body).encode())
        with pytest.raises(BodyRefusedError, match="Driver"):
            judge_new_network(json.dumps(body).encode())
    with pytest.raises(BodyRefusedError, match=r"IPAM\.Driver"):
        judge_new_network(json.dumps({"IPAM": {"Driver": name}}).encode())


@pytest.mark.parametrize(
    "name", ["", "local", "bridge", "vieux/sshfs:latest", "a.b/c_d-e:1.2", None]
)
def test_the_name_of_a_driver_may_be_a_plugins(name: str | None) -> None:
    body = json.dumps({"Driver": name}).encode()
    assert json.loads(judge_new_volume(body)) == {"Driver": name}
    assert json.loads(judge_new_network(body)) == {"Driver": name}


def test_what_the_engine_would_open_for_a_copy() -> None:
    local = {"Type": "volume", "Name": "v", "Driver": "local", "Source": "/var/lib/docker/v"}

    def found(*mounts: object, options: object = None) -> str | None:
        return host_mount({"Mounts": list(mounts)}, lambda _: options)

    assert host_mount({"Mounts": None}, lambda _: None) is None
    assert found() is None
    assert found(local, {"Type": "tmpfs"}) is None
    assert found(local, {"Type": "bind", "Source": "/srv"}) == "/srv"
    assert found(local, options={"device": "/etc"}) == "/var/lib/docker/v"
    assert found(local | {"Driver": "other"}) == "/var/lib/docker/v"
    assert found({"Type": "cluster", "Name": "c"}) == "c"
    assert found({"Type": "volume", "Driver": "local", "Source": "/nameless"}) == "/nameless"
