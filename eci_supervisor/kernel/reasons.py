"""Why a call was answered as it was: the codes of csrc/api.h and their names."""

from __future__ import annotations

from eci_supervisor._eci import lib

NAMES: dict[int, str] = {
    lib.ECI_REASON_PERFORMED: "performed",
    lib.ECI_REASON_NO_CAPABILITY: "passed:no-capability",
    lib.ECI_REASON_OTHER_USERNS: "passed:other-user-namespace",
    lib.ECI_REASON_KERNEL: "kernel",
    lib.ECI_REASON_ARGUMENT: "bad-argument",
    lib.ECI_REASON_GONE: "caller-gone",
    lib.ECI_REASON_NOTHING_COVERED: "passed:nothing-covered",
    lib.ECI_REASON_AS_IT_IS: "passed:as-it-is",
    lib.ECI_REASON_LOOSEN: "refused:no-loosening",
    lib.ECI_REASON_UNCOVER: "refused:no-uncovering",
    lib.ECI_REASON_KERNEL_FS_BUSY: "refused:kernel-fs-busy",
    lib.ECI_REASON_PROTECTED: "refused:host-protected-path",
    lib.ECI_REASON_NEW_KERNEL_FS: "refused:new-kernel-fs",
    lib.ECI_REASON_UNKNOWN_CALL: "refused:unknown-call",
    lib.ECI_REASON_INTERNAL: "refused:internal",
    lib.ECI_REASON_MEMORY: "refused:mount-memory",
}
"""Reason code -> the name that trace, log and tests use."""


def refuses(reason: int) -> bool:
    """Say whether ECI_REASON_* `reason` is a refusal by a rule, and not the kernel's own answer."""
    return bool(reason >= lib.ECI_REASON_LOOSEN)
