"""Why something is refused, in words: one text for each reason code.

The codes of mount calls are those of `kernel.reasons`; the others are refusals of whole containers
and of commands on a restricted engine socket, and have their code from who raises them.  Every
code that the program uses has its text here; tests hold it so.
"""

from __future__ import annotations

import msgspec


class Text(msgspec.Struct, frozen=True):
    """What is to be said of one reason code."""

    rule: str
    """The rule that said no, as a sentence."""
    setting: str | None
    """The key of the settings file that would allow it; None where none does."""
    advice: str
    """What to do if it is wanted all the same."""


CONTAINER_SPEC = "refused:container-spec"
HOST_NAMESPACE = "refused:host-namespace"
MOUNT_NAMESPACE = "refused:mount-namespace"
HOST_ROOT = "refused:host-root"
SECCOMP_PROFILE = "refused:seccomp-profile"
FOREIGN_NAMESPACES = "refused:foreign-namespaces"
HOST_MOUNT = "refused:host-mount"
ENGINE_SOCKET = "refused:engine-socket"
COMMAND = "refused:command"
INSECURE_BUILD = "refused:insecure-build"
REQUEST = "refused:request"
BAD_SETTINGS = "refused:bad-settings"

TEXTS: dict[str, Text] = {
    "refused:no-loosening": Text(
        rule="A mount that was given to the container with a flag (read-only, nosuid, nodev, "
        "noexec) keeps it, and so does every copy of that mount.",
        setting=None,
        advice="Give the volume without the flag when the container is created: "
        "`-v SRC:DST` instead of `-v SRC:DST:ro`.",
    ),
    "refused:no-uncovering": Text(
        rule="A mount stays where it is if it masks a path, is read-only over something writable, "
        "or buries another mount that the container was given.",
        setting=None,
        advice="Create the container without the mount or the mask, for instance with "
        "`--security-opt systempaths=unconfined`.",
    ),
    "refused:kernel-fs-busy": Text(
        rule="The container's first /proc and /sys are in use as long as it runs, and are neither "
        "unmounted nor moved.",
        setting=None,
        advice="Mount another one elsewhere: `mount -t proc proc /mnt`.",
    ),
    "refused:host-protected-path": Text(
        rule="No mount call of a container reaches a host-protected path, or what lies above one.",
        setting="vm.protectedPaths",
        advice="Take the path out of vm.protectedPaths and create the container anew.",
    ),
    "refused:new-kernel-fs": Text(
        rule="A new procfs or sysfs has to have the masks and read-only paths of the container's "
        "own, and one of these could not be covered.",
        setting=None,
        advice="Create the container without masks, for instance with "
        "`--security-opt systempaths=unconfined`, or with masks that have no symbolic link in "
        "their paths.",
    ),
    "refused:unknown-call": Text(
        rule="A call that the supervisor does not know is not made.",
        setting=None,
        advice="Nothing allows it; a newer version of eci-supervisor may know it.",
    ),
    "refused:internal": Text(
        rule="The supervisor could not find out what the call is about, and then says no.",
        setting=None,
        advice="Nothing allows it.  If it comes again, please report it, with a trace.",
    ),
    "refused:mount-memory": Text(
        rule="The mounts of one container take no more of the kernel's memory than the settings "
        "say.",
        setting="vm.mountMemory",
        advice="Unmount something, or set vm.mountMemory higher and create the container anew.",
    ),
    CONTAINER_SPEC: Text(
        rule="The container asks for what no protected container gets.",
        setting=None,
        advice="Create it without what the message names.",
    ),
    HOST_NAMESPACE: Text(
        rule="A container has a user namespace of its own, and namespaces of the host belong to "
        "another one.",
        setting=None,
        advice="Create it without `--pid=host`, `--ipc=host`, `--uts=host`, `--network=host`.",
    ),
    MOUNT_NAMESPACE: Text(
        rule="A container's mount namespace is made for it, and is no one else's.",
        setting=None,
        advice="Create it without a path for its mount namespace.",
    ),
    HOST_ROOT: Text(
        rule="Id 0 of the host is in no container's user namespace.",
        setting=None,
        advice="Give the engine subordinate ids above 65535.",
    ),
    SECCOMP_PROFILE: Text(
        rule="The supervisor sees the container's mount calls through its seccomp profile, so the "
        "profile must leave room for that.",
        setting=None,
        advice="Take what the message names out of the profile.",
    ),
    FOREIGN_NAMESPACES: Text(
        rule="A container has one user namespace, so it joins namespaces of one container only.",
        setting=None,
        advice="Join the namespaces of one container.",
    ),
    HOST_MOUNT: Text(
        rule="A host-protected directory, and what lies in or above it, is not mounted into a "
        "container.",
        setting="vm.sharedPaths",
        advice="Add the directory to vm.sharedPaths, or take it out of vm.protectedPaths.  What is "
        "listed with `:ro` may be had read-only: `-v SRC:DST:ro`.",
    ),
    ENGINE_SOCKET: Text(
        rule="Who has an engine's socket has the host, so no container gets one, but for images "
        "that the administrator has listed.",
        setting="enhancedContainerIsolation.dockerSocketMount.imageList",
        advice="Add the image to imageList.images: by its name if it was pulled, and as NAME@ID "
        "(`docker image inspect -f '{{.Id}}' IMAGE`) if it was made on this machine.",
    ),
    COMMAND: Text(
        rule="A container with an engine's socket may use the commands that the administrator "
        "allows.",
        setting="enhancedContainerIsolation.dockerSocketMount.commandList",
        advice="With type `deny`, take the command out of commandList.commands; with `allow`, add "
        "it.",
    ),
    REQUEST: Text(
        rule="A request on a restricted socket that would give its container the host, or that is "
        "none of the Engine API's, does not get to the engine.",
        setting=None,
        advice="Make the request without what the message names.",
    ),
    INSECURE_BUILD: Text(
        rule="A step of a build has the rights of a container without `--privileged`.",
        setting=None,
        advice="Build without `RUN --security=insecure`.",
    ),
    BAD_SETTINGS: Text(
        rule="No container starts while the settings cannot be read: never silently unprotected.",
        setting=None,
        advice="Mend the settings file; `eci settings check` says what is wrong in it.",
    ),
}
"""Reason code -> text, for each refusal there is."""

UNKNOWN = Text(
    rule="Another version of eci-supervisor has refused it.",
    setting=None,
    advice="Ask that version.",
)
"""Of a code that is not in the table: an audit log may be older or newer than this program."""


def text_of(reason: str) -> Text:
    """Return the text of a reason code.  Pure."""
    return TEXTS.get(reason, UNKNOWN)
