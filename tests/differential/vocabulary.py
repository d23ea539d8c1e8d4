"""What scripts are made of, as strategies.

Each call is a line for `tests/support/sequence.c`.  Most calls are near to something that works,
since a call that fails leaves the state as it was and the next ones show nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.differential.sides import KINDS, PRIVILEGED, PROGRAMS, Script

if TYPE_CHECKING:
    from collections.abc import Iterable

# -- paths ------------------------------------------------------------------------------------

OWN = """
    /mnt /mnt/a /mnt/b /mnt/c /mnt/d /mnt/a/x /mnt/b/x /mnt/d/in a b c d a/x ./b . a/.. ../mnt/c
    a/../b /mnt//c// /mnt/a/. la lb lb/ la/x up/up/mnt/c mg lo up wk p
    /proc/self/cwd/a /proc/self/cwd /proc/self/root/mnt/b /proc/thread-self/root/mnt/a
    /proc/thread-self/cwd/c /proc/1/root/mnt /proc/1/cwd/mnt /proc/self/task/../root/mnt/d
    /proc/self/fd/100 /proc/self/fd/101 /proc/thread-self/fd/100/x /proc/self/fd/100/..
    /proc/self/fd/100/../b /proc/self/fd/101/. /dev/../mnt/b
""".split()
FILES = "f a/g lf /mnt/f /proc/self/cwd/f /proc/self/fd/102 lo/g /vol/file /w/file /n/file".split()
ODD = """
    .. / loop gone missing /mnt/missing a/missing f/ f/. f/.. f/x a/g/x lf/ lf/. loop/x gone/x
    la/. la/.. /proc/self /proc/self/ /proc/thread-self /proc/self/exe /proc/self/fd /proc/self/fd/
    /proc/self/fd/200 /proc/self/fd/107 /proc/self/ns/mnt /proc/self/root /proc/1/root /proc/2/cwd
    /proc/self/fd/0 /proc/1/fd/0 /proc/self/cwd/ /proc/self/cwd/.. /proc/self/root/.
    /proc/self/fd/100/ /proc/self/fd/102/ /proc/self/fd/102/x
    {255:n} {256:n} a/{255:n} {2047:./}a {2046:./}a/. {2048:./}a {4095:/} {4096:/} {4097:/}
    /mnt/{2030:../mnt/}a {3000:a/../}b /{4094:n} {19:lb/../}a {41:lb/../}a
    a%20b a%0a a%ff%fe %2e a,b a=b a:b
""".split()
# The kernel allows 40 links in a path.  When a mount anywhere on the machine makes it look the path
# up again, it goes on counting: so a path has less than half of that, or more than all.
PROTECTED = """
    /vol /vol/sub /vol/. /vol/sub/.. /w /w/in /w/in/. /w/. /w/sub /w/in/.. /n /n/sub
    /proc /proc/. /proc/timer_list /proc/keys /proc/sys /proc/sys/kernel /proc/bus /proc/acpi
    /sys /sys/firmware /sys/kernel /sys/fs/cgroup /dev /dev/pts /dev/null /dev/zero
    a/in a/sub b/in c/in a/timer_list b/sys c/firmware a/vol a/w/in a/proc a/proc/timer_list a/mnt
    b/sys/firmware c/file /proc/self/root/w/in /proc/1/root/w/in /proc/1/root/proc/sys
""".split()


def words(names: Iterable[str]) -> st.SearchStrategy[str]:
    """One of these texts, now and then right before an unmapped page."""
    names = list(names)
    return st.sampled_from([f"={name}" for name in names] * 7 + [f">{name}" for name in names])


EMPTY = st.sampled_from(["=", ">"])
WILD = st.sampled_from(
    "*1 *fff *fffff000 *ffffffff *7ffffffff000 *800000000000 *8000000000000000 *ffff800000000000"
    " *ffffffffffffffff *fffffffffffff000 -".split()
)
ENDLESS = st.sampled_from(["!/mnt/a", "!a", "!", "!{4095:/}", "!{4096:/}", "!tmpfs", "!{8000:n}"])
BROKEN = WILD | ENDLESS | EMPTY
own = words(OWN)
files = words(FILES)
odd = words(ODD)
protected = words(PROTECTED)
anywhere = st.one_of(own, own, files, odd, protected, BROKEN)

# -- flags ------------------------------------------------------------------------------------

PLAIN = (1, 2, 4, 8, 16, 64, 128, 256, 0x400, 0x800, 0x8000, 1 << 21, 1 << 24, 1 << 25)
FORMS = (0x20, 0x1000, 0x2000, 0x4000, 1 << 17, 1 << 18, 1 << 19, 1 << 20)
UNKNOWN = (1 << 9, 1 << 16, 1 << 22, 1 << 23, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30,
           1 << 31, 1 << 32, 1 << 40, 1 << 63, 0xC0ED0000, 0xC0ED0000 << 32)  # fmt: skip
PROPAGATION = (1 << 17, 1 << 18, 1 << 19, 1 << 20)


def _union(bits: Iterable[int], most: int) -> st.SearchStrategy[int]:
    def join(some: list[int]) -> int:
        flags = 0
        for bit in some:
            flags |= bit
        return flags

    return st.lists(st.sampled_from(list(bits)), max_size=most).map(join)


plain_flags = st.sampled_from((0, 0, 0, *PLAIN)) | _union(PLAIN, 4)
any_flags = _union((*PLAIN, *FORMS, *UNKNOWN), 5) | st.integers(0, (1 << 64) - 1)
umount_flags = st.sampled_from([0, 0, 0, 2, 2, 8, 0xA, 1, 3])
odd_umount_flags = st.sampled_from([4 | 1, 4 | 2, 0xF, 0x10, 0x100, 1 << 31, 0xFFFFFFFF]) | (
    st.integers(0, (1 << 64) - 1).filter(lambda flags: flags & 7 != 4)
)

# -- file systems -----------------------------------------------------------------------------

ORDINARY_TYPES = "tmpfs tmpfs tmpfs ramfs".split()
TYPES = "proc sysfs mqueue devpts cgroup2 cgroup overlay bpf fuse ext4 devtmpfs hugetlbfs".split()
ODD_TYPES = "nonsense tmpfs.x fuse.x proc.x {4095:t} {4096:t} TMPFS tmpfs%20 ,".split()
# The number of a user id that lies in the host's range means the same to both only by chance.
DATA = """
    size=64k size=1m,mode=700 mode=711,uid=0,gid=0 uid=1000,gid=1000 nr_inodes=10 huge=never
    ,,mode=755,, size=0
""".split()
ODD_DATA = """
    size=nonsense size nonsense nonsense=1 mode=99 uid=-1 uid=4294967295 uid=70000 gid=x
    size=64k,size=32k mode=755,nonsense, , = =x size=64k%ff {4095:,} {4096:,} {8000:,} {4094:n}
    lowerdir=/mnt/lo ro rw nosuid noexec,nodev newinstance,ptmxmode=0666 hidepid=2 fd=0
""".split()
OVERLAYS = """
    lowerdir=/mnt/lo lowerdir=/mnt/lo:/mnt/a lowerdir=/mnt/lo,upperdir=/mnt/up,workdir=/mnt/wk
    lowerdir=/mnt/lo:/mnt/a,upperdir=/mnt/up,workdir=/mnt/wk,userxattr
    lowerdir=/mnt/lo::/mnt/a lowerdir=/mnt/missing lowerdir=/mnt/lo,upperdir=/mnt/up lowerdir=
    lowerdir=/mnt/f upperdir=/mnt/up,workdir=/mnt/wk lowerdir=/mnt/lo,nonsense=1
    lowerdir=/mnt/a%5C:b lowerdir=/mnt/lo:/mnt/lo lowerdir=/vol:/mnt/lo lowerdir=/mnt/lo,xino=off
    lowerdir=/mnt/lo,index=off,metacopy=off lowerdir=/mnt/up,upperdir=/mnt/up,workdir=/mnt/wk
""".split()
data = st.one_of(st.just("-"), words(DATA))
any_data = st.one_of(st.just("-"), words(DATA), words(ODD_DATA), words(OVERLAYS), BROKEN)
sources = st.one_of(
    words(["none", "tmpfs", "a%20b", "{4095:s}", "{4096:s}", "%0a%5c%22", "/dev/vda"]), own, BROKEN
)
types = st.one_of(words(ORDINARY_TYPES), words(TYPES), words(ODD_TYPES), BROKEN)
no_source = st.sampled_from(["-", "-", "=none", "=", "=a"])

# -- calls ------------------------------------------------------------------------------------

modes = st.sampled_from([*"." * 18, "t", "T", "f", "n", "u"])


def _call(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    fixed = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(modes, *fixed).map(" ".join)


def _own_call(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """What changes the caller: made by the one that makes the calls that follow."""
    fixed = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(st.just("."), *fixed).map(" ".join)


def _hex(flags: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    return flags.map("{:x}".format)


def _with(flags: st.SearchStrategy[int], *forms: int) -> st.SearchStrategy[str]:
    return _hex(st.tuples(flags, st.sampled_from(forms)).map(lambda pair: pair[0] | pair[1]))


few_flags = st.sampled_from((0, 0, 0, 0, *PLAIN))

new_mount = _call("mount", "=none", own, words(ORDINARY_TYPES), _hex(plain_flags), data)
other_mount = _call("mount", sources, own, types, _hex(plain_flags), any_data)
overlay = _call("mount", "=o", words(["mg", "/mnt/mg", "c"]), "=overlay", _hex(few_flags),
                words(OVERLAYS))  # fmt: skip
bind = _call("mount", own, own, "-", _with(few_flags, 0x1000, 0x1000, 0x5000), "-")
bind_file = _call("mount", files, files | own, "-", _with(few_flags, 0x1000), "-")
move = _call("mount", own, own, "-", _with(few_flags, 0x2000), "-")
propagate = _call("mount", no_source, own, "-",
                  _with(st.sampled_from([0, 0, 0x4000, 0x8000, 1]), *PROPAGATION), "-")  # fmt: skip
rebind = _call("mount", no_source, own, "-", _with(plain_flags, 0x1020), data)
remount = _call("mount", no_source, own, "-", _with(plain_flags, 0x20), any_data)
umount = _call("umount2", own, _hex(umount_flags))
old_umount = _call("umount", own)
odd_umount = _call("umount2", anywhere, _hex(umount_flags | odd_umount_flags))
expire = _call("expire", words(["/mnt/a", "b", "c", "mg", "/mnt/a/x", "/mnt", "f", "lb"]),
               st.sampled_from(["0", "0", "8"]))  # fmt: skip
anything = _call("mount", anywhere | sources, anywhere, types | st.just("-"), _hex(any_flags),
                 any_data)  # fmt: skip

# What the rules are about.
no_remount = st.sampled_from([0, 1, 2, 3, 0xE, 0xF, 0xB, 0x400])
guard_bind = _call("mount", protected, own, "-", _with(few_flags, 0x1000, 0x5000, 0x5000), "-")
guard_rebind = _call("mount", no_source, protected, "-", _with(no_remount, 0x1020), "-")
guard_move = _call("mount", protected, own | protected, "-", _with(few_flags, 0x2000), "-")
guard_umount = _call("umount2", protected, _hex(umount_flags))
guard_propagate = _call("mount", no_source, protected | st.just("=/"), "-",
                        _with(st.sampled_from([0, 0x4000]), *PROPAGATION), "-")  # fmt: skip
guard_expire = _call("expire", words(["/w/in", "/vol", "/proc/timer_list", "/sys/firmware"]), "0")
guard_cover = _call("mount", "=none", protected, words(ORDINARY_TYPES), _hex(few_flags), data)
guard_new = _call("mount", "=none", own, words(["proc", "sysfs"]), _hex(few_flags), "-")

# What happens between mount calls.
slots = st.sampled_from(["0", "1", "2"])
hold = _own_call("hold", slots, own | files, st.sampled_from(["200000", "0"]))
drop = _own_call("drop", slots)
chdir = _own_call("chdir", st.one_of(own, own, protected, words(["/", "..", "/mnt"])))
chroot = _own_call("chroot", words(["/mnt", "a", "/", ".", "c", "b", "/w"]))
fchdir = _own_call("fchdir", slots)
try_open = _own_call("open", files | protected, st.sampled_from(["0", "1", "200000"]))
unshare = _own_call("unshare", st.sampled_from(["20000", "20000", "200", "20200"]))
# CAP_SYS_ADMIN, CAP_DAC_OVERRIDE with CAP_DAC_READ_SEARCH, CAP_SYS_CHROOT; and all again.
caps = _own_call("caps", st.sampled_from(["0", "0", "0", "200000", "6", "40000"]))
fsuid = _own_call("fsuid", st.sampled_from(["0", "0", "3e8", "1"]))
fsgid = _own_call("fsgid", st.sampled_from(["0", "0", "3e8"]))
pivot_root = _own_call("pivot_root", words(["/mnt", ".", "a", "/mnt/a", "c"]),
                   words(["/mnt/a", ".", "a/x", "/mnt/a/x", "/mnt/b"]))  # fmt: skip

# -- the file-descriptor API ----------------------------------------------------------------------

fds = st.sampled_from(["c", "c", "c", "0", "1", "2", "3", "b"])
tree_fds = st.sampled_from(["0", "1", "2", "3"])
tree_flags = st.sampled_from(["1", "8001", "80001", "0", "9001", "8000", "100", "ffffffff"])
clone_flags = st.sampled_from(["1", "1", "8001"])
open_tree = _call("open_tree", tree_fds, fds, own | protected | odd | BROKEN, tree_flags)
clone = _own_call("open_tree", tree_fds, "c", own | files, clone_flags)
move_flags = st.sampled_from(
    "0 1 4 5 10 40 44 54 77 100 104 144 200 204 244 300 377 8 80 400 ffffffff".split()
)
attach = _call("move_mount", tree_fds, EMPTY, "c", own,
               st.sampled_from(["4", "4", "4", "14", "14", "204", "104"]))  # fmt: skip
move_path = _call("move_mount", "c", own, "c", own,
                  st.sampled_from(["0", "0", "11", "200", "211", "100", "111"]))  # fmt: skip
odd_move = _call("move_mount", fds, anywhere, fds, anywhere, move_flags)
fsopen = _own_call("fsopen", tree_fds, types, st.sampled_from(["0", "1", "1", "2"]))
open_ordinary = _own_call("fsopen", tree_fds, words(ORDINARY_TYPES), "1")
create = _own_call("fsconfig", tree_fds, "6", "-", "-", "0")
configure = st.one_of(
    _call("fsconfig", tree_fds, "1", words(["source", "size", "mode", "lowerdir+", "nonsense"]),
          words(["64k", "700", "/mnt/lo", "none", "{256:n}"]), "0"),
    _call("fsconfig", tree_fds, "0", words(["ro", "rw", "nonsense", "userxattr"]), "-", "0"),
    _call("fsconfig", fds, st.sampled_from("0 1 2 3 4 5 6 7 8 9".split()), anywhere, anywhere,
          tree_fds),
)  # fmt: skip
mount_attrs = _hex(_union((1, 2, 4, 8, 0x10, 0x20, 0x70, 0x80, 0x100000, 0x200000), 2))
fsmount = _own_call(
    "fsmount", tree_fds, tree_fds, st.sampled_from(["0", "1", "1", "2"]), mount_attrs
)
odd_fsmount = _call("fsmount", tree_fds, fds, st.sampled_from(["0", "1", "ffffffff"]), mount_attrs)
fspick = _call("fspick", tree_fds, fds, own | protected | odd | EMPTY,
               st.sampled_from(["0", "1", "2", "8", "9", "10"]))  # fmt: skip
at_flags = st.sampled_from("0 0 0 8000 8000 1000 9000 100 800 9900 1 ffffffff".split())
attr_bits = _union((1, 2, 4, 8, 0x10, 0x20, 0x70, 0x80, 0x200000), 2)
odd_attr_bits = _union((1, 4, 0x40, 0x70, 0x100000, 0x200000, 0x400000, 1 << 32, 1 << 63), 3)
propagation = st.sampled_from([0, 0, 0, 1 << 17, 1 << 18, 1 << 19, 1 << 20])
odd_propagation = propagation | st.sampled_from([3, 1, 3 << 18, 1 << 40, 0x4000])
ns_fds = st.sampled_from([0, 0, 64, 65, 66, 67, 0x3E7, 0xFFFFFFFF, 1 << 33, 1 << 63])


def _attributes(*numbers: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    return st.tuples(*numbers).map(lambda some: "=" + ",".join(f"{one:x}" for one in some))


attributes = _attributes(attr_bits, st.just(0) | attr_bits, propagation)
odd_attributes = st.one_of(
    _attributes(odd_attr_bits, odd_attr_bits, odd_propagation, ns_fds),
    _attributes(odd_attr_bits, st.just(0), st.just(0), ns_fds, st.sampled_from([0, 0, 1])),
    attributes.map(lambda text: ">" + text[1:]),
    st.sampled_from("*1 *fffff000 *7ffffffff000 *ffff800000000000 *ffffffffffffffff -".split()),
)
sizes = st.sampled_from("0 1 1f 20 20 20 20 21 28 30 80 fff 1000 1001 ffffffff".split())
set_attr = _call("mount_setattr", "c", own, at_flags, attributes, "20")
set_attr_detached = _call("mount_setattr", tree_fds, EMPTY, st.sampled_from(["1000", "9000"]),
                          attributes, "20")  # fmt: skip
odd_set_attr = _call("mount_setattr", fds, st.one_of(own, protected, odd, BROKEN), at_flags,
                     attributes | odd_attributes, sizes)  # fmt: skip
# Not of a mount namespace: whether it can be attached depends on which of two came first.
hold_namespace = _own_call("hold", st.sampled_from(["2", "3"]),
                           words(["/proc/self/ns/user", "/proc/self/ns/net"]), "0")  # fmt: skip
new_api = (
    open_tree, clone, clone, clone, attach, attach, attach, move_path, move_path, odd_move, fsopen,
    open_ordinary, open_ordinary, create, create, configure, fsmount, fsmount, odd_fsmount, fspick,
    set_attr, set_attr, set_attr_detached, odd_set_attr, hold_namespace,
)  # fmt: skip

# What the rules are about, by the file-descriptor API.
guard_clone = _own_call(
    "open_tree", tree_fds, "c", protected, st.sampled_from(["1", "8001", "8001"])
)
guard_move_path = _call("move_mount", "c", protected, "c", own | protected,
                        st.sampled_from(["0", "0", "11", "200", "100"]))  # fmt: skip
guard_set_attr = _call("mount_setattr", "c", protected, at_flags, attributes, "20")
guard_fsopen = _own_call("fsopen", tree_fds, words(["proc", "sysfs", "mqueue", "cgroup2"]), "1")
new_guarded = (guard_clone, guard_clone, guard_move_path, guard_set_attr, guard_set_attr,
               set_attr_detached, attach, guard_fsopen, create, fsmount)  # fmt: skip

NOTHING = ""
"""A call that was taken out: so a script becomes shorter where its length is fixed."""

own_calls = (
    new_mount, new_mount, new_mount, other_mount, overlay, bind, bind, bind_file, move, propagate,
    propagate, rebind, remount, umount, umount, umount, old_umount, odd_umount, expire, anything,
)  # fmt: skip
between = (hold, drop, chdir, chdir, try_open, unshare, caps)
rare = (chroot, fchdir, caps, fsuid, fsgid, pivot_root)
guarded = (
    guard_bind, guard_bind, guard_rebind, guard_rebind, guard_move, guard_umount, guard_umount,
    guard_propagate, guard_expire, guard_cover, guard_new,
)  # fmt: skip


LAST = 8
"""Calls at the end of a script, of which one may make what is compared no further."""


def _put_off(kind: str, lines: list[str]) -> tuple[str, ...]:
    """Leave a new procfs or sysfs, where it is covered, to the end of the script."""
    if kind != PRIVILEGED:
        early = len(lines) - LAST
        lines = [
            NOTHING if at < early and re.search(r"[=>](proc|sysfs) ", line) else line
            for at, line in enumerate(lines)
        ]
    return tuple(line for line in lines if line)


def scripts(length: int) -> st.SearchStrategy[Script]:
    """Scripts of that many calls; a part of them is about what the rules protect."""
    own_only = (*own_calls * 2, *new_api, *between)
    with_guarded = (*own_calls, *guarded * 2, *new_guarded * 2, *new_api, *between)
    lines = st.one_of(
        *(
            st.lists(st.one_of(st.just(NOTHING), *calls), min_size=length, max_size=length)
            for calls in (own_only, with_guarded, (*own_only, *rare), (*with_guarded, *rare))
        )
    )

    def build(kind: str, program: str, lines: list[str], over_proc: bool) -> Script:  # noqa: FBT001
        return Script(kind, program, _put_off(kind, lines), over_proc)

    return st.builds(
        build,
        st.sampled_from(KINDS),
        st.sampled_from(PROGRAMS),
        lines,
        st.sampled_from([False, False, False, True]),
    )
