r"""mountinfo: every byte that a path can hold comes back, ``\040`` and its like included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eci_supervisor.kernel import mountinfo

LINE = (
    rb"36 35 98:0 /a\040b /mnt\134x\011y rw,noatime shared:1 master:2 - ext3 /dev/root "
    rb"rw,errors=continue"
)
PATHS = st.binary(min_size=1).map(lambda raw: b"/" + raw.replace(b"\0", b""))


def escape(raw: bytes) -> bytes:
    """What the kernel does: fs/seq_file.c, mangle_path."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in raw)


def test_a_line_of_the_manual() -> None:
    mount = mountinfo.parse_line(LINE)
    assert (mount.mount_id, mount.parent_id, mount.device) == (36, 35, b"98:0")
    assert (mount.root, mount.target) == (b"/a b", b"/mnt\\x\ty")
    assert mount.options == (b"rw", b"noatime")
    assert mount.propagation == (b"shared:1", b"master:2")
    assert (mount.fstype, mount.source) == (b"ext3", b"/dev/root")


def test_a_line_without_optional_fields() -> None:
    mount = mountinfo.parse_line(b"1 0 0:1 / / rw - rootfs rootfs rw")
    assert mount.propagation == ()


@pytest.mark.parametrize("line", [b"", b"1 2 3", LINE.replace(b" - ", b" "), b"x " + LINE])
def test_other_lines_are_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        mountinfo.parse_line(line)


@given(PATHS)
def test_every_path_comes_back(path: bytes) -> None:
    line = b"36 35 98:0 / %s rw - ext4 none rw" % escape(path)
    assert mountinfo.parse_line(line).target == path


def test_a_backslash_that_escapes_nothing_stays() -> None:
    assert mountinfo.unescape(rb"a\b\04\x") == rb"a\b\04\x"


def test_a_comma_inside_an_option_does_not_split_it() -> None:
    found = mountinfo.split_options(rb"rw,upperdir=/a\054b,index=off")
    assert found == [(b"rw", b""), (b"upperdir", b"/a,b"), (b"index", b"off")]


def test_layers_split_at_bare_colons_only() -> None:
    assert mountinfo.split_layers(rb"/a\:b:/c:/d\\") == [b"/a:b", b"/c", b"/d\\"]


def test_our_own_root_is_found() -> None:
    first = mountinfo.read()[0]
    assert mountinfo.find(first.mount_id) == first
    assert mountinfo.find(2**31) is None
