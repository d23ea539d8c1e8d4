"""Which containers are spared, and what their filters trap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.kernel import mountinfo
from eci_supervisor.kernel.protected import protected_rules
from eci_supervisor.policy.paths import Access, HostPaths, host_paths
from eci_supervisor.runtime import restricted, seccomp, spare
from eci_supervisor.runtime.nesting import Entry
from eci_supervisor.runtime.sources import HostMounts

if TYPE_CHECKING:
    from pathlib import Path

MS_REMOUNT, MS_MOVE, MGC = 32, 8192, 0xC0ED0000
MNT_DETACH = 2


def bare(*entries: Entry, links: dict[str, str] | None = None) -> bool:
    return spare.hides_nothing(entries, (links or {}).get)


def kernel(destination: str, *options: str) -> Entry:
    return Entry(destination, options)


def volume(destination: str, *options: str, readonly: bool = False) -> Entry:
    return Entry(destination, options, staged=True, readonly=readonly)


KERNEL = (kernel("/proc"), kernel("/dev"), kernel("/dev/pts"), kernel("/sys"))


def test_what_docker_gives_to_a_privileged_container_hides_nothing() -> None:
    assert bare(
        *KERNEL,
        kernel("/sys/fs/cgroup", "rw"),
        volume("/var/lib/docker", "rbind"),
        volume("/etc/hosts", "rbind", "rprivate"),
        volume("/etc/../dev/x"),
    )


@pytest.mark.parametrize(
    "entries",
    [
        (volume("/w", readonly=True),),
        (volume("/w", "ro"),),
        (kernel("/t", "ro"),),
        (volume("/w"), volume("/w")),
        (volume("/w/in"), volume("/w")),
        (volume("/w"), volume("/w/in")),
        (volume("/w"), kernel("/w/in")),
        (volume("/dev"),),
        (volume("/"),),
        (volume("/w/.."),),
        (volume("/loop"),),
        (volume("/w"), volume("/link")),
        (volume("/link/in"), volume("/w")),
    ],
)
def test_in_doubt_something_is_hidden(entries: tuple[Entry, ...]) -> None:
    assert not bare(*KERNEL, *entries, links={"link": "w", "loop": "/loop"})


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths", "seccomp"])
def test_who_has_masks_or_a_profile_is_not_spared(key: str) -> None:
    assert spare.asks_little({"linux": {key: None}})
    assert spare.asks_little({})
    assert not spare.asks_little({"linux": {key: {"a": 1} if key == "seccomp" else ["/proc/a"]}})


def test_of_hooks_only_dockers_own_is_known() -> None:
    ours: dict[str, Any] = {"path": "/proc/1/exe", "args": ["libnetwork-setkey", "x"]}
    assert spare.asks_little({"hooks": {"prestart": [ours], "poststop": [{"path": "/x"}]}})
    for kind in ("prestart", "createRuntime", "createContainer", "startContainer"):
        for other in ({"path": "/libnetwork-setkey"}, {"path": "/x", "args": ["x", ours["args"]]}):
            assert not spare.asks_little({"hooks": {kind: [ours, other]}})


def is_trapped(profile: dict[str, Any], name: str, flags: int) -> bool:
    """Judge as libseccomp does: any rule whose conditions hold."""
    for rule in profile["syscalls"]:
        if name in rule["names"] and all(
            arg["op"] == "SCMP_CMP_MASKED_EQ"
            and arg["index"] == (3 if name == "mount" else 1)
            and flags & arg["value"] == arg["valueTwo"]
            for arg in rule.get("args", [])
        ):
            return bool(rule["action"] == "SCMP_ACT_NOTIFY")
    return False


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    """The profile of a spared container."""
    made = seccomp.supervise({}, "/s/notify.sock", wait_killable=False)
    assert made is not None
    return seccomp.spare(made)


@given(flags=st.integers(0, 2**64 - 1))
def test_what_the_kernel_may_take_for_a_remount_or_a_move_is_trapped(
    profile: dict[str, Any], flags: int
) -> None:
    assert is_trapped(profile, "mount", flags) == bool(flags & (MS_REMOUNT | MS_MOVE))


def test_the_other_calls(profile: dict[str, Any]) -> None:
    assert is_trapped(profile, "mount_setattr", 0)
    assert is_trapped(profile, "move_mount", 0)
    assert not any(is_trapped(profile, name, 0) for name in ("umount", "umount2", "fsmount"))
    assert is_trapped(profile, "mount", MGC | MS_REMOUNT)
    assert is_trapped(profile, "umount2", MNT_DETACH | 8)
    assert not is_trapped(profile, "umount2", 8)
    withheld = [rule for rule in profile["syscalls"] if "open_tree_attr" in rule["names"]]
    assert [rule["action"] for rule in withheld] == ["SCMP_ACT_ERRNO"]


def test_protected_paths_are_found_by_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, secret, other = tmp_path / "s/m/0", tmp_path / "v/secret", tmp_path / "other"
    for path in (stage, secret, other):
        path.mkdir(parents=True)
    lines = b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 / %s rw - ext4 a rw\n" % bytes(stage)
    (tmp_path / "mountinfo").write_bytes(lines)
    known = mountinfo.beneath(bytes(tmp_path / "s"), str(tmp_path / "mountinfo"))
    assert [mount.mount_id for mount in known] == [2]
    monkeypatch.setattr(mountinfo, "beneath", lambda _: known)

    def seen(*paths: Path) -> bool:
        rules = protected_rules(HostPaths(tuple(map(str, paths))))
        return spare.shows_protected(str(tmp_path / "s"), rules)

    assert not seen(secret)
    assert seen(other, stage)
    assert seen(stage / "deep", stage)
    (stage / "deep").mkdir()
    assert seen(stage / "deep")
    stage.rename(tmp_path / "s/m/gone")
    assert seen(secret)


def test_protected_paths_are_the_same_by_name_and_as_found(tmp_path: Path) -> None:
    """The wrapper has them from its search for sources, the keeper looks them up itself."""
    for name in ("a/b/c", "a/b/free/x", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    named = [
        (str(tmp_path / name), access)
        for name, access in (
            ("link", Access.PROTECTED),
            ("a/b/free", Access.SHARED),
            ("a/b/free/x", Access.READ_ONLY),
            ("d", Access.SHARED),
            ("d/none", Access.PROTECTED),
            ("/", Access.PROTECTED),
        )
    ]
    for paths in (named, named[:-1]):
        found = restricted.find(HostMounts.read(), paths)
        assert restricted.rules(found) == protected_rules(host_paths(paths))
