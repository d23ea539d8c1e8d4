"""Bare runc and a user namespace, which a protected container is compared with.

As a program, `bare.py WORDS...` is `runc WORDS...`, but a bundle's root and volumes are ID-mapped
for the container, as this project does it: the files are the same, and so is the way to them.
That is done in a mount namespace of its own, so nothing of it is left, however it ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from eci_supervisor.kernel import syscalls
from eci_supervisor.kernel.syscalls import lib

BASE, SIZE = 1_000_000_000, 65_536
"""The ids of the containers."""
MAP = f"0 {BASE} {SIZE}\n"


def unprotected(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as this project's runtime takes it, with a user namespace in it."""
    linux = config["linux"]
    mapping = [{"containerID": 0, "hostID": BASE, "size": SIZE}]
    namespaces = [*linux["namespaces"], {"type": "user"}]
    changed = {"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping}
    return {**config, "linux": {**linux, **changed}}


def sources(config: dict[str, Any]) -> list[str]:
    """Return what of the host the container is shown: its root, and its volumes."""
    mounts = config["mounts"]
    return [config["root"]["path"], *(one["source"] for one in mounts if one["type"] == "bind")]


def shift(path: str, userns: int) -> None:
    """Mount what is at a path over itself, with the ids of the user namespace."""
    flags = lib.OPEN_TREE_CLONE | lib.AT_RECURSIVE
    tree = syscalls.open_tree(lib.AT_FDCWD, path, flags)
    set_id_map = {"attr_set": lib.MOUNT_ATTR_IDMAP, "userns_fd": userns}
    syscalls.mount_setattr(tree, "", lib.AT_EMPTY_PATH | lib.AT_RECURSIVE, **set_id_map)
    syscalls.move_mount(tree, "", lib.AT_FDCWD, path, lib.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


def main(words: list[str]) -> None:
    """Become runc."""
    if "--bundle" in words:
        bundle = words[words.index("--bundle") + 1]
        with open(os.path.join(bundle, "config.json"), encoding="utf-8") as stream:
            config = json.load(stream)
        syscalls.unshare(lib.CLONE_NEWNS)
        syscalls.mount(None, "/", None, lib.MS_REC | lib.MS_SLAVE)
        userns = syscalls.userns_create(MAP, MAP)
        for path in sources(config):
            shift(path, userns)
        os.close(userns)
    os.execvp("runc", ["runc", *words])  # noqa: S606 - there is no shell


if __name__ == "__main__":
    main(sys.argv[1:])
