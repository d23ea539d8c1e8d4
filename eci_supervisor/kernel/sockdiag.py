"""sock_diag(7): which Unix sockets listen in this network namespace."""

from __future__ import annotations

import os
import socket
import struct

import msgspec

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
TCP_LISTEN = 10
"""The state of a listening socket, of this family as well."""
UDIAG_SHOW_NAME, UDIAG_SHOW_VFS = 0x1, 0x2
UNIX_DIAG_NAME, UNIX_DIAG_VFS = 0, 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_VFS = struct.Struct("=II")
_BUFFER = 1 << 16
_MINOR_BITS = 20


class Listener(msgspec.Struct, frozen=True):
    """One listening socket."""

    socket: int
    """Its inode in sockfs, as in the links of /proc/PID/fd."""
    name: bytes
    """As it was bound: a path of whoever bound it, or begins with NUL (abstract), or empty."""
    device: int
    """Of the file system that its file lies on (that of the superblock, as in mountinfo)."""
    inode: int
    """Of its file, the lower 32 bits; 0 where it has none."""


def listening() -> list[Listener]:
    """Return the listening Unix sockets of this network namespace.

    OSError: ENOENT where the kernel has no unix_diag.
    """
    found: list[Listener] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS
        body = _REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << TCP_LISTEN, 0, show, 0, 0)
        flags = NLM_F_REQUEST | NLM_F_DUMP
        length = _HEADER.size + len(body)
        netlink.send(_HEADER.pack(length, SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body)
        while _take(netlink.recv(_BUFFER), found):
            pass
    return found


def _take(data: bytes, found: list[Listener]) -> bool:
    """Add what is in one datagram; False after the last one."""
    at = 0
    while at < len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind == NLMSG_DONE:
            return False
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, at + _HEADER.size)
            raise OSError(-code, f"sock_diag(AF_UNIX): {os.strerror(-code)}")
        found.append(_listener(data[at + _HEADER.size : at + length]))
        at += _aligned(length)
    return True


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _listener(message: bytes) -> Listener:
    number = _MESSAGE.unpack_from(message)[4]
    name, device, inode = b"", 0, 0
    at = _MESSAGE.size
    while at < len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        value = message[at + _ATTRIBUTE.size : at + length]
        if kind == UNIX_DIAG_NAME:
            # A path may come with the NUL that ends it; an abstract name begins with one.
            name = value if value.startswith(b"\0") else value.rstrip(b"\0")
        elif kind == UNIX_DIAG_VFS:
            inode, kernel_device = _VFS.unpack(value)
            # The kernel's own form of a device number, which is not stat(2)'s.
            mask = (1 << _MINOR_BITS) - 1
            device = os.makedev(kernel_device >> _MINOR_BITS, kernel_device & mask)
        at += _aligned(length)
    return Listener(number, name, device, inode)
