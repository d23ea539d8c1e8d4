"""A small root file system: busybox, two users, some files of theirs, the test programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BUSYBOX = "/bin/busybox"
USER = 1000
"""The unprivileged user of the tree, uid and gid."""


def build_root(top: Path, programs: Iterable[Path] = ()) -> Path:
    """Fill the new directory `top`, mode 0755, and return it.

    Below it: busybox with its applets, /etc/passwd with root and `user`, /home/user and
    /home/user/mine owned by `USER`, and `programs` in /bin.  All else is owned by root.
    """
    top.mkdir(mode=0o755)
    top.chmod(0o755)
    for name in ("bin", "dev", "etc", "home", "home/user", "proc", "root", "sys", "var", "mnt"):
        (top / name).mkdir(mode=0o755)
    for name in ("tmp", "var/tmp"):
        (top / name).mkdir()
        (top / name).chmod(0o1777)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    # One symbolic link with many names: for a new inode ext4 passes over each that was removed in
    # the last minutes, which with some hundred of these trees takes a millisecond.
    link = top / "bin/sh"
    link.symlink_to("busybox")
    for applet in applets.stdout.split():
        if applet not in ("busybox", "sh"):
            os.link(link, top / "bin" / applet, follow_symlinks=False)
    for program in programs:
        shutil.copy(program, top / "bin" / program.name)
    (top / "etc/passwd").write_text(
        f"root:x:0:0:root:/root:/bin/sh\nuser:x:{USER}:{USER}:user:/home/user:/bin/sh\n"
    )
    (top / "etc/group").write_text(f"root:x:0:\nuser:x:{USER}:\n")
    (top / "home/user/mine").write_text("mine\n")
    for name in ("home/user", "home/user/mine"):
        os.chown(top / name, USER, USER)
    return top
