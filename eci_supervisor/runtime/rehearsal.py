"""A create without a container, for the fork server: what runs first is slow, and not its children.

The interpreter adapts code that has run some times, and its libraries keep what they compiled for
a type, a pattern or a search: all of that is in memory that children inherit.  Nothing is taken,
changed or kept here; what a create finds on the host is read, and forgotten.
"""

from __future__ import annotations

import contextlib
import os
import tempfile

import msgspec

from eci_supervisor.kernel import features
from eci_supervisor.policy import settings as policy
from eci_supervisor.runtime import args, rewrite, seccomp, state
from eci_supervisor.runtime import spec as oci
from eci_supervisor.runtime.request import read_request
from eci_supervisor.supervisor import cgroups
from eci_supervisor.supervisor.charge import Charge
from eci_supervisor.supervisor.intake import hook_state

ROUNDS = 12
"""An instruction of CPython 3.11 is adapted after eight (PEP 659)."""
_MASKED = ["/proc/acpi", "/proc/kcore", "/sys/firmware"]
_KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_SPEC: oci.Spec = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "process": {
        "args": ["true"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/etc/hosts", "type": "bind", "source": "hosts", "options": ["rbind"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in _KINDS],
        "maskedPaths": _MASKED,
        "readonlyPaths": _MASKED,
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["mount", "umount2"], "action": "SCMP_ACT_ALLOW"}],
        },
    },
}


def rehearse() -> None:
    """Do all that a create does before it takes anything.  Nothing fails here."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix="eci-") as bundle:
        os.mkdir(f"{bundle}/rootfs")
        for name, text in (("config.json", oci.dumps(_SPEC)), ("hosts", b"")):
            state.write_file(f"{bundle}/{name}", text)
        for _ in range(ROUNDS):
            with contextlib.suppress(Exception):  # settings may refuse such a container, or be bad
                _read(bundle)
            _write(bundle)
            _keep()


def _read(bundle: str) -> None:
    features.require()
    call = args.parse("runc", ["--root", bundle, "create", "--bundle", bundle, "x"], bundle)
    settings = policy.load()
    msgspec.json.encode(settings)
    with read_request(call, settings):
        pass


def _write(bundle: str) -> None:
    profile = seccomp.supervise(_SPEC, "/run/x", wait_killable=True)
    charge = Charge("x", state.key_of("x", bundle), "", bundle, bundle, "runc", 0, 1, True)  # noqa: FBT003 - it goes nowhere
    msgspec.json.decode(msgspec.json.encode(charge), type=Charge)
    plan = rewrite.Plan((), (), bundle, ("x", "create", "x"), ("x", "x"), seccomp=profile)
    oci.dumps(rewrite.rewrite(_SPEC, plan))


def _keep() -> None:
    """Do what a keeper does while the runtime waits for it."""
    hook_state(b'{"ociVersion": "1.0.2", "id": "x", "status": "creating", "pid": 1, "bundle": "/"}')
    cgroups.delegate(os.getpid(), 0, 0)  # our own is not given to anybody
