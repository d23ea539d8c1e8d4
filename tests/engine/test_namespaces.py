"""Mount namespaces beside the container's own: of its user namespace, and of those below it.

In a namespace of the same owner the supervisor holds the grants.  In one that a descendant owns the
kernel has locked what was copied, and the supervisor lets the calls pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bundle import Runtime, bind, make_spec
from tests.support.engines import Bundles
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.place import Place

pytestmark = [pytest.mark.root, pytest.mark.engine]

LOOSEN = "mount - /vol - MS_REMOUNT|MS_BIND -"
NESTED = "unshare CLONE_NEWUSER|CLONE_NEWNS , map 0"


class Side:
    """A running container with a read-only volume on /vol, under a runtime."""

    def __init__(
        self,
        bundles: Bundles,
        runtime: Runtime,
        volume: Path,
        trace: Path,
        *,
        privileged: bool = False,
    ) -> None:
        self.runtime = runtime
        self.volume = volume
        self._trace = trace
        self.name = bundles.name()
        bundles.expect(runtime, self.name)
        spec = make_spec(
            ["sleep", "1000"],
            cgroup=bundles.cgroup(self.name),
            privileged=privileged,
            cap_add=["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"],
            mounts=[bind(volume, "/vol", "ro")],
            identity_userns=runtime.program == "runc",
        )
        runtime.call("create", "--bundle", str(bundles.write(spec)), self.name)
        runtime.start(self.name)

    def run(self, *commands: str, script: str = '"$@"', program: str = "mnt") -> list[str]:
        """Run the commands of `mnt`, by a shell script; returns the lines."""
        words = " , ".join(commands).split()
        argv = ["sh", "-c", script, "sh", program, *words]
        return self.runtime.call("exec", self.name, *argv).stdout.splitlines()

    def expect_reason(self, call: str, reason: str) -> None:
        """Fail if the trace does not give this reason; its lines come after the answers.

        `call`: its name, or its name and what follows, as the trace has it.
        """

        def is_given() -> bool:
            lines = self._trace.read_text().splitlines()
            began = call if "(" in call else f"{call}("
            return any(began in line and f"<{reason}>" in line for line in lines)

        wait_until(is_given, f"{call}: {reason}", 10)


@pytest.fixture(scope="module", params=["eci", "eci-crun"])
def side(
    request: pytest.FixtureRequest,
    place: Place,
    runtimes: dict[str, Path],
    bundle_root: Path,
) -> Iterator[Side]:
    """Return the protected container, on each runtime."""
    bundles = Bundles(place, bundle_root)
    trace = place.directory("t") / "trace"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECI_TRACE", str(trace))
        yield Side(bundles, bundles.runtime(runtimes[request.param]), place.directory("v"), trace)
    bundles.close()


@pytest.fixture(scope="module")
def bare(place: Place, bundle_root: Path) -> Iterator[Side]:
    """Return the same container in a plain user namespace, under runc."""
    bundles = Bundles(place, bundle_root)
    yield Side(bundles, bundles.runtime("runc"), place.directory("v"), place.root)
    bundles.close()


SAME_OWNER = {
    "own": (("unshare CLONE_NEWNS", LOOSEN), '"$@"'),
    "joined": (
        ("join_mounts PID", LOOSEN),
        'unshare -m sleep 5 & sleep 0.3; set -- $(echo "$@" | sed s/PID/$!/); "$@"; kill $!',
    ),
    "pivoted": (
        (
            "unshare CLONE_NEWNS",
            "mount / /mnt - MS_BIND|MS_REC -",
            "hold /",
            "chdir /mnt",
            "pivot_root . .",
            "back",
            "umount2 . MNT_DETACH",
            "chdir /",
            LOOSEN,
        ),
        '"$@"',
    ),
}


@pytest.mark.parametrize("name", SAME_OWNER)
def test_grants_hold_in_a_namespace_of_the_same_owner(side: Side, bare: Side, name: str) -> None:
    commands, script = SAME_OWNER[name]
    for one, expected in ((bare, "0"), (side, "EPERM")):
        seen = one.run(*commands, script=script)
        assert seen == ["0"] * (len(commands) - 1) + [expected], one.runtime.program
    side.expect_reason("mount", "refused:no-loosening")


MOUNT = "mount /tmp /mnt - MS_BIND -"
CLEAR = ("umount2 /mnt -",) * 2
THERE = {
    "by_kind": "setns 9 CLONE_NEWNS",
    "by_no_kind": "setns 9 -",
    # An int: the upper half is nobody's.
    "by_no_kind_and_more": "setns 9 0x500000000",
}


@pytest.mark.parametrize(
    ("there", "program"),
    [(there, "mnt") for there in THERE] + [("by_kind", "mnt32"), ("by_no_kind", "mnt32")],
)
def test_who_has_called_before_calls_from_elsewhere(
    side: Side, bare: Side, there: str, program: str
) -> None:
    """What is known of a caller's namespaces is so until it changes them, in both ways."""
    home = ("setns /proc/1/ns/mnt CLONE_NEWNS", MOUNT, "mounts /mnt")
    commands = (
        "unshare CLONE_NEWNS", "keep_ns 9", *home, THERE[there], MOUNT, "mounts /mnt",
        *home, "unshare CLONE_NEWNS", MOUNT, "mounts /mnt",
        "unshare CLONE_NEWUSER|CLONE_NEWNS", "umount2 /mnt -", "umount2 / -",
    )  # fmt: skip
    expected = "0 0 0 0 1 0 0 1 0 0 2 0 0 3 0 EINVAL EINVAL".split()
    for one in (bare, side):
        assert one.run(*commands, program=program) == expected, one.runtime.program
        assert one.run(*CLEAR, "mounts /mnt") == ["0", "0", "0"], one.runtime.program


TO_OWN_USERNS = {
    "unshare": ("unshare CLONE_NEWUSER",),
    "setns": ("leave_one CLONE_NEWUSER", "join_left user CLONE_NEWUSER"),
    "setns_by_no_kind": ("leave_one CLONE_NEWUSER", "join_left user -"),
}


@pytest.mark.parametrize("program", ["mnt", "mnt32"])
@pytest.mark.parametrize("way", TO_OWN_USERNS)
def test_who_has_become_root_of_its_own_is_not_the_containers(
    side: Side, bare: Side, way: str, program: str
) -> None:
    """It is known to be in the container's user namespace, and now has all capabilities."""
    *before, moves = TO_OWN_USERNS[way]
    commands = ("setuid 1000", *before, MOUNT, moves, MOUNT, "umount2 /vol MNT_DETACH", LOOSEN)
    expected = ["0"] * len(commands)
    for denied in (-5, -3, -2, -1):
        expected[denied] = "EPERM"
    for one in (bare, side):
        answers = one.run(*commands, program=program)
        assert answers == expected, one.runtime.program


@pytest.mark.parametrize("thread", ["thread_leaves", "thread_apart"])
@pytest.mark.parametrize("program", ["mnt", "mnt32"])
def test_a_thread_elsewhere_takes_over_the_number_of_one_that_is_known(
    side: Side, bare: Side, thread: str, program: str
) -> None:
    """By an exec.  It has left, or was made elsewhere; the first thread was in the container's."""
    commands = (MOUNT, f"{thread} CLONE_NEWNS", MOUNT, "exec_there /mnt")
    for one in (bare, side):
        # In the thread's namespace, the copy of the first mount, and its own upon that.
        answers = one.run(*commands, program=program)
        assert answers == ["0", "0", "0", "0", "2"], one.runtime.program
        assert one.run("mounts /mnt", *CLEAR) == ["2", "0", "0"], one.runtime.program


@pytest.mark.parametrize("depth", [1, 2])
def test_kernel_holds_in_a_namespace_of_a_descendant(side: Side, depth: int) -> None:
    """The kernel's answers alone, so that there is nothing to compare with."""
    seen = side.run(
        *[NESTED] * depth,
        LOOSEN,
        "umount2 /vol MNT_DETACH",
        "umount2 /proc/timer_list -",
        "mount / /mnt - MS_BIND -",
        "mount none /mnt tmpfs - -",
        "umount2 /mnt -",
    )
    held = ["EPERM", "EINVAL", "EINVAL", "EINVAL"]
    assert seen == ["0"] * (2 * depth) + [*held, "0", "0"]
    side.expect_reason("mount", "passed:other-user-namespace")
    side.expect_reason("umount2", "passed:other-user-namespace")
    assert list(side.volume.iterdir()) == []


UNASKED = (
    "unshare CLONE_NEWNS",
    "mount none / - MS_REC|MS_PRIVATE -",
    "mount none /mnt - MS_BIND|MS_UNBINDABLE -",
    "mount none /mnt tmpfs - -",
    "mount none /mnt - MS_UNBINDABLE -",
    "umount2 /mnt -",
)
ANSWERS = ["0", "0", "ENOENT", "0", "0", "0"]


def test_kernel_changes_propagation_itself(side: Side) -> None:
    assert side.run(*UNASKED) == ANSWERS
    side.expect_reason('mount("none", "/", NULL', "passed:as-it-is")
    # Of what type a new one is stands in memory, and of some types it has to be covered.
    side.expect_reason('mount("none", "/mnt", "tmpfs"', "performed")
    side.expect_reason('mount("none", "/mnt", NULL', "performed")


def test_kernel_makes_new_ones_itself_where_nothing_is_covered(
    place: Place, runtimes: dict[str, Path], bundle_root: Path
) -> None:
    bundles = Bundles(place, bundle_root)
    trace = place.directory("t") / "trace-of-privileged"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECI_TRACE", str(trace))
        runtime = bundles.runtime(runtimes["eci"])
        side = Side(bundles, runtime, place.directory("v"), trace, privileged=True)
    try:
        assert side.run(*UNASKED, LOOSEN) == [*ANSWERS, "EPERM"]
        side.expect_reason('mount("none", "/", NULL', "passed:as-it-is")
        side.expect_reason('mount("none", "/mnt", "tmpfs"', "passed:nothing-covered")
        side.expect_reason('mount("none", "/mnt", NULL', "performed")
        side.expect_reason("umount2", "performed")
    finally:
        bundles.close()


def test_namespace_of_a_descendant_entered_from_above(side: Side) -> None:
    """The caller's capabilities reach it; the kernel's locks hold all the same."""
    script = 'unshare -Urm sleep 5 & sleep 0.3; set -- $(echo "$@" | sed s/PID/$!/); "$@"; kill $!'
    seen = side.run(
        "join_mounts PID",
        LOOSEN,
        "umount2 /vol MNT_DETACH",
        "umount2 /proc/timer_list -",
        "mount none /mnt tmpfs - -",
        script=script,
    )
    assert seen[:1] == ["0"]
    assert set(seen[1:4]) <= {"EPERM", "EINVAL"}, seen
    assert seen[4] == "0"


def test_detached_trees_are_held(side: Side, bare: Side) -> None:
    loosen = "tree_setattr - - MOUNT_ATTR_RDONLY -"
    for one, expected in ((bare, "0"), (side, "EPERM")):
        assert one.run("tree /vol OPEN_TREE_CLONE", loosen)[1] == expected
        recursively = loosen.replace("- -", "AT_RECURSIVE -", 1)
        seen = one.run("tree / OPEN_TREE_CLONE|AT_RECURSIVE", recursively)
        assert seen[1] == expected
        # What is attached inside of a detached tree (6.15) stays as it is, too.
        seen = one.run(
            "mount none /mnt tmpfs - -",
            "mkdir /mnt/a",
            "tree /mnt OPEN_TREE_CLONE",
            "onto /vol a",
            "tree_setattr AT_RECURSIVE - MOUNT_ATTR_RDONLY -",
            "enter",
            "write a/x",
            "umount2 /mnt MNT_DETACH",
        )
        assert seen[:3] == ["0", "0", "0"]
        assert seen[3] in {"0", "EINVAL"}
        assert seen[6] == "EROFS" if one is side and seen[3] == "0" else seen[6] == "0"
    assert list(side.volume.iterdir()) == []


def test_namespace_of_a_tree_is_no_way_around(side: Side) -> None:
    """OPEN_TREE_NAMESPACE makes a namespace that the container's user namespace owns."""
    seen = side.run("namespace /", LOOSEN, "write /vol/x")
    assert seen[0] in {"0", "EINVAL"}
    assert seen[1:] == ["EPERM", "EROFS"]
