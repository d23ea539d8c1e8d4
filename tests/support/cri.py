"""A client of the Container Runtime Interface, as a kubelet is one: runtime.v1 over gRPC.

The messages are described below, as far as the tests need them, with the field numbers of the
published interface; google.protobuf makes the classes from that, so no compiler of protobuf is
needed.  A field that is not described is passed over, as the encoding demands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "runtime.v1"
POD, CONTAINER, NODE, TARGET = range(4)
"""NamespaceMode: whose namespace a container is in."""
READY, NOT_READY = range(2)
"""PodSandboxState."""
CREATED, RUNNING, EXITED, UNKNOWN = range(4)
"""ContainerState."""
UNCONFINED = 1
"""SecurityProfile.profile_type; 0 is the engine's own profile, RuntimeDefault."""

# Message -> its fields, each NAME:TYPE=NUMBER; `*` after the type: any number of them; `map`: of
# strings to strings; an enumeration is an int32, which is encoded alike.
MESSAGES = {
    "VersionRequest": "version:string=1",
    "VersionResponse": "version:string=1 runtime_name:string=2 runtime_version:string=3",
    "Int64Value": "value:int64=1",
    "PodSandboxMetadata": "name:string=1 uid:string=2 namespace:string=3 attempt:uint32=4",
    "NamespaceOption": "network:int32=1 pid:int32=2 ipc:int32=3 target_id:string=4",
    "SecurityProfile": "profile_type:int32=1 localhost_ref:string=2",
    "LinuxSandboxSecurityContext": (
        "namespace_options:NamespaceOption=1 run_as_user:Int64Value=3 readonly_rootfs:bool=4 "
        "privileged:bool=6 run_as_group:Int64Value=8 seccomp:SecurityProfile=9"
    ),
    "LinuxPodSandboxConfig": (
        "cgroup_parent:string=1 security_context:LinuxSandboxSecurityContext=2 sysctls:map=3"
    ),
    "PodSandboxConfig": (
        "metadata:PodSandboxMetadata=1 hostname:string=2 log_directory:string=3 labels:map=6 "
        "annotations:map=7 linux:LinuxPodSandboxConfig=8"
    ),
    "RunPodSandboxRequest": "config:PodSandboxConfig=1 runtime_handler:string=2",
    "RunPodSandboxResponse": "pod_sandbox_id:string=1",
    "StopPodSandboxRequest": "pod_sandbox_id:string=1",
    "StopPodSandboxResponse": "",
    "RemovePodSandboxRequest": "pod_sandbox_id:string=1",
    "RemovePodSandboxResponse": "",
    "PodSandboxStatusRequest": "pod_sandbox_id:string=1 verbose:bool=2",
    "PodSandboxNetworkStatus": "ip:string=1",
    "PodSandboxStatus": (
        "id:string=1 metadata:PodSandboxMetadata=2 state:int32=3 created_at:int64=4 "
        "network:PodSandboxNetworkStatus=5 runtime_handler:string=9"
    ),
    "PodSandboxStatusResponse": "status:PodSandboxStatus=1 info:map=2",
    "PodSandbox": "id:string=1 metadata:PodSandboxMetadata=2 state:int32=3",
    "ListPodSandboxRequest": "",
    "ListPodSandboxResponse": "items:PodSandbox*=1",
    "ContainerMetadata": "name:string=1 attempt:uint32=2",
    "ImageSpec": "image:string=1",
    "KeyValue": "key:string=1 value:string=2",
    "Mount": "container_path:string=1 host_path:string=2 readonly:bool=3 propagation:int32=5",
    "Device": "container_path:string=1 host_path:string=2 permissions:string=3",
    "Capability": "add_capabilities:string*=1 drop_capabilities:string*=2",
    "LinuxContainerSecurityContext": (
        "capabilities:Capability=1 privileged:bool=2 namespace_options:NamespaceOption=3 "
        "run_as_user:Int64Value=5 readonly_rootfs:bool=7 supplemental_groups:int64*=8 "
        "no_new_privs:bool=11 run_as_group:Int64Value=12 masked_paths:string*=13 "
        "readonly_paths:string*=14 seccomp:SecurityProfile=15"
    ),
    "LinuxContainerConfig": "security_context:LinuxContainerSecurityContext=2",
    "ContainerConfig": (
        "metadata:ContainerMetadata=1 image:ImageSpec=2 command:string*=3 args:string*=4 "
        "working_dir:string=5 envs:KeyValue*=6 mounts:Mount*=7 devices:Device*=8 labels:map=9 "
        "annotations:map=10 log_path:string=11 tty:bool=14 linux:LinuxContainerConfig=15"
    ),
    "CreateContainerRequest": (
        "pod_sandbox_id:string=1 config:ContainerConfig=2 sandbox_config:PodSandboxConfig=3"
    ),
    "CreateContainerResponse": "container_id:string=1",
    "StartContainerRequest": "container_id:string=1",
    "StartContainerResponse": "",
    "StopContainerRequest": "container_id:string=1 timeout:int64=2",
    "StopContainerResponse": "",
    "RemoveContainerRequest": "container_id:string=1",
    "RemoveContainerResponse": "",
    "ContainerStatusRequest": "container_id:string=1 verbose:bool=2",
    "ContainerStatus": (
        "id:string=1 metadata:ContainerMetadata=2 state:int32=3 exit_code:int32=7 "
        "reason:string=10 message:string=11"
    ),
    "ContainerStatusResponse": "status:ContainerStatus=1 info:map=2",
    "ExecSyncRequest": "container_id:string=1 cmd:string*=2 timeout:int64=3",
    "ExecSyncResponse": "stdout:bytes=1 stderr:bytes=2 exit_code:int32=3",
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "int64": _Field.TYPE_INT64,
}


def _add_map(message: descriptor_pb2.DescriptorProto, name: str) -> str:
    """Describe the entries of a map of strings to strings; returns the name of their type."""
    entry = message.nested_type.add(name="".join(map(str.capitalize, name.split("_"))) + "Entry")
    entry.options.map_entry = True
    for number, part in enumerate(("key", "value"), 1):
        entry.field.add(name=part, number=number, type=_SCALARS["string"], label=1)
    return f".{PACKAGE}.{message.name}.{entry.name}"


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="cri", package=PACKAGE, syntax="proto3")
    for message_name, fields in MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for word in fields.split():
            name, _, rest = word.partition(":")
            kind, _, number = rest.partition("=")
            many = kind.endswith("*") or kind == "map"
            field = message.field.add(name=name, number=int(number))
            field.label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
                continue
            field.type = _Field.TYPE_MESSAGE
            field.type_name = _add_map(message, name) if kind == "map" else f".{PACKAGE}.{kind}"
    return file


def _classes() -> dict[str, type[Any]]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_describe())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in MESSAGES
    }


CLASSES = _classes()
SECONDS = 60.0


class CriError(Exception):
    """What the engine answered instead of doing what was asked."""


class Cri:
    """A connection to the CRI of an engine; a context manager."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def __enter__(self) -> Self:
        """Return itself; it connects when it is first asked."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, method: str, **fields: Any) -> Any:
        """Call a method of RuntimeService; nested messages are dicts.  CriError if it fails."""
        request = CLASSES[f"{method}Request"](**fields)
        function = self._channel.unary_unary(
            f"/{PACKAGE}.RuntimeService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=CLASSES[f"{method}Response"].FromString,
        )
        try:
            # After a restart of the engine the first attempts to connect may come too early.
            return function(request, timeout=SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CriError(f"{method}: {error.details()}") from error
