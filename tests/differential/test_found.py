"""What random calls have found, each difference once, as short as it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.sides import KINDS, PRIVILEGED, SYS_ADMIN, Script

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


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/.", "/proc/sys/kernel/../kernel/.", "/sys/firmware/../kernel/."]
)
@pytest.mark.parametrize("flags", ["0", "8", "2"])
def test_umount_of_a_directory_does_not_remove_the_mount_that_it_is_in(
    sides: Sides, path: str, flags: str
) -> None:
    """A path without a name at its end was judged as what it is, and then its mount was removed."""
    same(sides, f". umount2 ={path} {flags}", kind=SYS_ADMIN)


@pytest.mark.parametrize("path", ["/mnt/a/.", "/proc/self/fd/100", "/proc/self/fd/100/x/..", "/"])
def test_umount_of_what_is_no_mount_by_a_path_without_name(sides: Sides, path: str) -> None:
    same(sides, ". hold 0 =/mnt/a 200000", f". umount2 ={path} 0")


def test_umount_of_what_lies_on_the_working_directory(sides: Sides) -> None:
    """The last step of umount2 looks down, however the path ends."""
    mounted = [". chdir =/mnt/a", ". mount =none =/mnt/a =tmpfs 0 -"]
    for path in (".", "/proc/self/cwd", "/proc/self/fd/100", "x/.."):
        same(sides, ". hold 0 =/mnt/a 200000", *mounted, f". umount2 ={path} 0")
        same(sides, ". hold 0 =/mnt/a 200000", *mounted * 2, f". umount2 ={path} 2")


@pytest.mark.parametrize("path", [".", "/proc/self/cwd", "/proc/self/fd/100"])
@pytest.mark.parametrize("flags", ["0", "2", "8"])
def test_umount_of_what_lies_on_the_working_directory_where_one_above_is_covered(
    sides: Sides, path: str, flags: str
) -> None:
    """The name that the kernel has for a covered place leads elsewhere."""
    for kind in KINDS:
        for last in ("=none =/mnt =tmpfs 0 -", "=/w =/mnt - 1000 -"):
            first = (". hold 0 =/mnt/a 200000", ". chdir =/mnt/a")
            cover, umount = f". mount {last}", f". umount2 ={path} {flags}"
            mount = ". mount =none =/mnt/a =tmpfs 0 -"
            same(sides, *first, cover, umount, kind=kind)
            same(sides, *first, mount, cover, umount, umount, kind=kind)
            same(sides, *first, mount, mount, cover, umount, umount, umount, kind=kind)
            same(sides, mount, *first, cover, umount, kind=kind)
            same(sides, *first, ". mount =/w =/mnt/a - 5000 -", cover, umount, umount, kind=kind)


@pytest.mark.parametrize("path", ["=", "*1", "=/mnt/missing", "!a", "=/w/in"])
def test_unknown_flags_of_umount_count_before_its_path(sides: Sides, path: str) -> None:
    same(sides, *(f". umount2 {path} {flags}" for flags in ("10", "ffffffff", "80000000")))


def test_remount_in_another_mount_namespace(sides: Sides) -> None:
    flags = ("20", "1020", "102e")
    same(sides, *(f". mount - =/proc/1/root/mnt - {one} -" for one in flags))


def test_symlinks_of_a_mount_that_forbids_them(sides: Sides) -> None:
    same(
        sides,
        ". mount - =/mnt - 1120 -",
        ". mount =none =la =tmpfs 0 -",
        ". mount =none =/mnt/la/x =tmpfs 0 -",
        ". umount2 =la 8",
        ". mount =lb =/mnt/c - 1000 -",
    )


@pytest.mark.parametrize("flags", ["80001000", "100001000", "8000000000001020", "80002000"])
def test_flags_that_are_the_kernels_own_count_before_the_source(sides: Sides, flags: str) -> None:
    magic = f"{int(flags, 16) & 0xFFFFFFFF0000FFFF | 0xC0ED0000:x}"
    for one in (flags, magic):
        for target in ("/mnt/a", "/vol", "/mnt/missing"):
            same(sides, f". mount =loop ={target} =tmpfs {one} -")


@pytest.mark.parametrize("first", ["fsuid 3e8", "caps 6", "caps 40000", "fsgid 3e8"])
def test_own_links_in_proc_whatever_the_caller_gave_up(sides: Sides, first: str) -> None:
    """A thread may follow the links of its own /proc entry; the worker was denied to."""
    for mode in ".tT":
        same(
            sides,
            ". hold 0 =/mnt/a 200000",
            f". {first}",
            *(
                f"{mode} mount =none ={path} =tmpfs 0 -"
                for path in (
                    "/proc/self/fd/100",
                    "/proc/self/cwd/b",
                    "/proc/thread-self/root/mnt/c",
                    "/proc/thread-self/fd/100/",
                    "/proc/self/fd/100/..",
                    "/proc/self/fd/102",
                    "/proc/self/exe",
                    "/proc/1/cwd",
                    "/proc/1/fd/0",
                )
            ),
            kind=SYS_ADMIN,
        )


@pytest.mark.parametrize("flags", ["102e", "112e"])
def test_own_links_from_the_working_directory(sides: Sides, flags: str) -> None:
    """With and without symbolic links on the procfs."""
    same(sides, ". hold 0 =/mnt/a 200000", ". chdir =/proc/self",
         f". mount - =/proc - {flags} -",
         ". fsuid 3e8", ". mount =none =fd/100 =tmpfs 0 -", ". mount =none =cwd =tmpfs 0 -",
         ". umount2 =fd/100 8", kind=SYS_ADMIN)  # fmt: skip


def test_an_own_link_that_is_not_followed_whatever_the_caller_gave_up(sides: Sides) -> None:
    path = "=/proc/self/fd/100"
    same(sides, ". hold 0 =/mnt/a 200000", ". fsuid 3e8", f". umount2 {path} 8",
         f". move_mount c {path} c =x 0", f". mount_setattr c {path} 100 =1 20",
         f". umount2 {path}/ 8", ". umount2 =/proc/self/fd/107 8", kind=SYS_ADMIN)  # fmt: skip


@pytest.mark.parametrize("first", ["fsuid 3e8", "caps 6"])
def test_descriptors_whatever_the_caller_gave_up(sides: Sides, first: str) -> None:
    same(
        sides,
        ". hold 0 =/mnt/a 200000",
        ". open_tree 1 c =/mnt/b 1",
        ". fsopen 2 =tmpfs 1",
        ". fsconfig 2 6 - - 0",
        f". {first}",
        ". move_mount 1 = 0 =x 4",
        ". mount_setattr 0 =x 0 =1 20",
        ". fsmount 3 2 1 0",
        kind=SYS_ADMIN,
    )


@pytest.mark.parametrize("path", ["/mnt/a/.", "/proc/self/fd/100", "/mnt/a/x/.."])
@pytest.mark.parametrize("what", ["/w/in", "/sys", "/proc"])
def test_move_of_a_bind_by_a_path_without_name(sides: Sides, path: str, what: str) -> None:
    """What the mount covers was not looked up, so it was taken for the initial one."""
    same(
        sides,
        f". mount ={what} =/mnt/a - 5000 -",
        ". hold 0 =/mnt/a 200000",
        f". mount ={path} =/mnt/b - 2000 -",
    )


def test_move_mount_looks_up_its_target_before_it_reads_the_source(sides: Sides) -> None:
    for source in ("!a", "*1", "=", "=/mnt/missing"):
        same(sides, f". move_mount c {source} c =/mnt/missing 0", f". move_mount 3 {source} b =c 0",
             f". move_mount c {source} c =/mnt/a 0")  # fmt: skip


def test_fsmount_looks_at_flags_before_the_descriptor(sides: Sides) -> None:
    for kind in KINDS:
        same(sides, ". fsmount 0 b 2 0", ". fsmount 0 c 0 1000", ". fsmount 0 c ffffffff ffffffff",
             ". fsmount 0 3 0 0", kind=kind)  # fmt: skip


@pytest.mark.parametrize("call", ["mount =/proc/self/fd/102 {} - 1000 -", "umount2 {} 0",
                                  "umount2 {} 8", "mount_setattr c {} 0 =1 20"])  # fmt: skip
def test_a_magic_link_to_a_file_with_a_slash_at_its_end(sides: Sides, call: str) -> None:
    same(sides, ". hold 0 =/vol/file 0", ". " + call.format("=/proc/self/fd/100/"))


def test_umount_of_a_tmpfs_that_shows_itself_is_busy(sides: Sides) -> None:
    """A bind on its own file system was taken for a mask that goes along with a procfs."""
    for flags in ("0", "8"):
        same(sides, ". mount =none =a =tmpfs 0 -", ". mount =/mnt/a =/mnt/b - 1000 -",
             ". chdir =/mnt/b", ". mount =/mnt/a =. - 1000 -", ". mount =/mnt/a =/mnt/b - 1000 -",
             ". chdir =/", f". umount2 =/mnt/b {flags}", kind=SYS_ADMIN)  # fmt: skip
    same(sides, ". hold 0 =/mnt/a 200000", "T mount =/mnt/c =/mnt/a - 1000 -", "n umount2 =/mnt 0",
         kind=SYS_ADMIN)  # fmt: skip


def test_attributes_of_a_detached_tree_whatever_the_caller_gave_up(sides: Sides) -> None:
    for path in ("/mnt/a", "/mnt/f", "/w/in", "/n/file"):
        same(sides, f". open_tree 0 c ={path} 1", ". fsgid 3e8", ". mount_setattr 0 = 1000 =0,1 20",
             ". mount_setattr 0 = 1000 =0,4 20", ". mount_setattr 0 = 1000 =1,8 20",
             kind=SYS_ADMIN)  # fmt: skip


@pytest.mark.parametrize("kind", ["cgroup2", "mqueue", "proc", "sysfs"])
def test_file_systems_that_show_namespaces_whatever_the_caller_gave_up(
    sides: Sides, kind: str
) -> None:
    same(sides, ". fsuid 3e8", f". mount =none =a ={kind} 0 -", kind=SYS_ADMIN)
    same(sides, ". fsuid 3e8", f". mount =none =a ={kind} 0 -")


@pytest.mark.parametrize("data", ["=nonsense", "-", "*1"])
def test_a_file_is_no_place_for_a_file_system_whose_options_are_in_order(
    sides: Sides, data: str
) -> None:
    for kind in ("cgroup2", "mqueue"):
        same(sides, f". mount =none =/mnt/f ={kind} 0 {data}", kind=SYS_ADMIN)


def test_a_root_in_another_mount_namespace(sides: Sides) -> None:
    """The worker acted where the caller's root was, and changed the namespace of others."""
    same(
        sides,
        ". hold 1 =/proc/1/cwd/mnt 200000",
        ". fchdir 1",
        ". chdir =..",
        ". chroot =.",
        ". mount =none =/mnt =tmpfs 0 -",
        ". mount =none =/mnt =proc 0 -",
        ". mount =/n =/mnt - 1000 -",
        ". umount2 =/vol 0",
    )


def test_id_mapping_by_a_descriptor_that_the_caller_has_not(sides: Sides) -> None:
    """The number was looked up among the worker's own descriptors."""
    for path in ("=/mnt/missing", "!a"):
        same(sides, *(f". mount_setattr c {path} 0 =100000,0,0,{number:x} 20"
                      for number in range(3, 48)))  # fmt: skip
    same(sides, ". hold 0 =/proc/self/ns/user 0",
         *(f". mount_setattr c =/mnt/missing 0 =100000,0,0,{number} 20" for number in
           ("64", "65", "7fffffff", "80000000", "ffffffff")))  # fmt: skip


def test_no_path_is_no_empty_path_to_mount_setattr(sides: Sides) -> None:
    same(sides, ". hold 2 =/mnt/a 200000", *(f". mount_setattr {dfd} {path} {flags} =10,70,40000 20"
         for dfd in "2cb" for path in "-=" for flags in ("0", "1000", "9000")))  # fmt: skip


@pytest.mark.parametrize("what", ["/sys", "/w", "/mnt/a"])
def test_old_move_of_a_detached_tree(sides: Sides, what: str) -> None:
    """What moved was taken for the initial mount, whose storage it shows."""
    for kind in KINDS:
        same(sides, f". open_tree 0 c ={what} 8001", ". mount =/proc/self/fd/100 =/mnt/b - 2000 -",
             ". umount2 =/mnt/b 2", kind=kind)  # fmt: skip


@pytest.mark.parametrize("path", ["fd/102", "fd/104", "cwd", "exe"])
def test_a_link_of_its_own_that_is_not_followed(sides: Sides, path: str) -> None:
    """It was refused before the kernel had looked at the rest of the call."""
    link = f"c =/proc/self/{path}"
    held = (". fsuid 3e8", ". hold 2 =/proc/self/ns/user 0", ". mount =/mnt =/mnt =tmpfs 0 -")
    for kind in KINDS:
        for flags in ("0", "200", "100"):
            same(sides, *held, f". move_mount c =/mnt/a {link} {flags}", kind=kind)
            same(sides, *held, f". move_mount {link} c =/mnt/a {flags}", kind=kind)
            same(sides, *held, f". move_mount c =/mnt {link} {flags}", kind=kind)
            same(sides, *held, f". move_mount {link} c =/mnt {flags}", kind=kind)
        same(sides, *held, f". umount2 =/proc/self/{path} 8", kind=kind)
        same(sides, *held, f". mount_setattr {link} 100 =1,0 20", kind=kind)
        same(sides, *held, f". mount_setattr {link} 8100 =1,0 20", kind=kind)


@pytest.mark.parametrize("flags", ["0", "1", "2", "8"])
def test_umount_of_what_is_above_the_root(sides: Sides, flags: str) -> None:
    """What cannot be reached from the root is called "/" as well, and was taken for the root.

    So what lies on the root was unmounted instead, where the kernel says EINVAL.
    """
    pivot, umount = ". pivot_root =/mnt =/mnt/a", f". umount2 =. {flags}"
    tmpfs = ". mount =none =/ =tmpfs 0 -"
    for kind in KINDS:
        same(sides, pivot, ". chroot =a", umount, kind=kind)
        same(sides, pivot, ". chroot =b", umount, tmpfs, umount, kind=kind)
        same(sides, ". chdir =/", ". chroot =/mnt", tmpfs, umount, tmpfs, umount, kind=kind)


def test_names_after_a_chroot_out_of_the_root(sides: Sides) -> None:
    """The test itself lost count of where the root was, and took /w/file for /mnt/w/file."""
    for kind in KINDS:
        same(sides, ". chdir =/", ". chroot =/mnt", ". chroot =.", ". chdir =/mnt",
             ". mount =/w/file =f - 1000 -", ". mount =/w =a - 1000 -", kind=kind)  # fmt: skip
        same(sides, ". hold 0 =/w/in 200000", ". hold 1 =/w/file 0", ". chroot =/mnt",
             ". mount =/proc/self/fd/100 =/a - 1000 -", ". mount =/proc/self/fd/101 =/f - 1000 -",
             kind=kind)  # fmt: skip


def test_a_file_system_that_another_script_has_made_read_only(sides: Sides) -> None:
    """The oracle took it for a mount of the runtime's that hides something."""
    for kind in KINDS:
        same(sides, ". mount - =/dev - 23 -", kind=kind)
        same(sides, ". mount =/dev =/mnt - 2000 -", kind=kind)


# The layers of an overlay that could be made would be listed by other names.
@pytest.mark.parametrize("path", ["", "missing", "100", "100/g", "102", "104", "..", ".", "../cwd"])
def test_paths_from_its_own_descriptors_whatever_the_caller_gave_up(
    sides: Sides, path: str
) -> None:
    """A thread may search its own /proc/self/fd; the worker was denied to."""
    first = (". hold 0 =/mnt/lo 200000", ". hold 1 =/proc/self/fd 200000", ". hold 2 =/mnt/f 0",
             ". fsuid 3e8", ". fchdir 1")  # fmt: skip
    for kind in KINDS:
        same(sides, *first, f". mount =o =/mnt/mg =overlay 0 =lowerdir={path}", kind=kind)
        same(sides, *first, f". mount =none ={path} =tmpfs 0 -", kind=kind)
        same(sides, *first, f". umount2 ={path} 0", f". umount2 ={path} 8", kind=kind)
        same(sides, *first, f". mount_setattr c ={path} 0 =1 20", kind=kind)
        same(sides, *first, f". move_mount 1 ={path} c =/mnt/b 0", kind=kind)


@pytest.mark.parametrize("name", ["net", "user", "pid_for_children"])
def test_its_own_namespaces_whatever_the_caller_gave_up(sides: Sides, name: str) -> None:
    path = f"/proc/self/ns/{name}"
    for kind in KINDS:
        for first in ("fsuid 3e8", "caps 6"):
            same(sides, f". {first}", f". mount =none ={path} =tmpfs 0 -", f". umount2 ={path} 0",
                 f". mount ={path} =/mnt/f - 1000 -", f". mount_setattr c ={path} 0 =1 20",
                 f". umount2 ={path} 8", kind=kind)  # fmt: skip


@pytest.mark.parametrize(
    "path", ["a/.", "a/..", "b/..", ".", "..", "a/x/../..", "/proc/self/cwd", "/proc/self/fd/100"]
)
@pytest.mark.parametrize("flags", ["0", "1", "2", "8"])
def test_umount_without_a_name_of_what_is_covered_or_out_of_reach(
    sides: Sides, path: str, flags: str
) -> None:
    """It was looked for by the path that the kernel has for it, and else called busy."""
    umount = f". umount2 ={path} {flags}"
    tmpfs = ". mount =none ={} =tmpfs 0 -"
    first = (". hold 0 =/mnt/a 200000", ". chdir =/mnt", tmpfs.format("/mnt/a"))
    for kind in KINDS:
        same(sides, *first, tmpfs.format("/mnt"), umount, umount, umount, kind=kind)
        same(sides, *first, ". mount =/w =/mnt - 1000 -", umount, umount, kind=kind)
        same(sides, *first, ". chroot =/mnt/b", umount, umount, kind=kind)
        same(sides, *first, ". chroot =/mnt/a", umount, umount, kind=kind)
        same(sides, *first, ". chroot =/mnt/b", tmpfs.format("."), umount, umount, kind=kind)
        same(sides, *first, ". chdir =/mnt/a", tmpfs.format("/mnt"), umount, umount, kind=kind)
        same(sides, ". chdir =/mnt/a", ". chroot =/mnt/a", tmpfs.format("/"), umount, umount,
             kind=kind)  # fmt: skip


@pytest.mark.parametrize("fs", ["mqueue", "cgroup2", "tmpfs", "proc"])
@pytest.mark.parametrize("cleared", ["1", "8"])
def test_flags_of_a_file_system_that_fsmount_made(sides: Sides, fs: str, cleared: str) -> None:
    """The worker made it in a mount namespace of its own, and found no way to look at it."""
    make = [f". fsopen 1 ={fs} 1", ". fsconfig 1 6 - - 0", ". fsmount 0 1 0 0"]
    for kind in KINDS:
        same(sides, *make, f". mount_setattr 0 = 1000 =0,{cleared},0 20", kind=kind)
        same(sides, *make, f". mount_setattr 0 = 9000 =0,{cleared},0 20", kind=kind)
