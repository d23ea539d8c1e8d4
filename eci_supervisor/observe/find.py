"""Reading the audit log again, those included that were put away."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from eci_supervisor.observe import audit
from eci_supervisor.observe.audit import Record

if TYPE_CHECKING:
    from collections.abc import Iterator


def logs(directory: str) -> list[str]:
    """Return the files of the log, newest first, as `audit.log` and `audit.log-20261130.gz`."""
    found = []
    for path in glob.glob(f"{glob.escape(directory)}/{audit.NAME}*"):
        try:
            found.append((os.stat(path).st_mtime_ns, path))
        except FileNotFoundError:
            continue
    return [path for _, path in sorted(found, reverse=True)]


def _open(path: str) -> BinaryIO | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File:
    match os.path.splitext(path)[1]:
        case ".gz":
            return gzip.GzipFile(path)
        case ".xz":
            return lzma.LZMAFile(path)
        case ".bz2":
            return bz2.BZ2File(path)
    return open(path, "rb")


def records(path: str, text: str = "") -> Iterator[Record]:
    """Give the records of one file, oldest first, in whose lines `text` stands.

    What is no record (half a line of a disk that was full) is passed over.  OSError, EOFError and
    lzma.LZMAError where the file cannot be read to its end.
    """
    wanted = text.encode()
    with _open(path) as file:
        for line in file:
            if wanted in line:
                try:
                    yield msgspec.json.decode(line, type=Record)
                except msgspec.DecodeError:
                    continue
