"""The protos of lns as descriptors with their comments, for documents and for tests.

Generated Python code has no comments; they are read from the sources, with the compiler that also
generates the code.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC as its proto declares it."""

    service: str
    """`lns.vm.v1.VmService`."""

    name: str
    idempotency: descriptor_pb2.MethodOptions.IdempotencyLevel.ValueType
    streams_requests: bool
    streams_answers: bool
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnumValue:
    """One value of an enumeration as its proto declares it."""

    name: str
    number: int
    comment: str


def read_files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Returns every file of `protos/lns`, compiled with its comments.

    Raises:
        SystemExit: the compiler found an error, which it has printed.
    """
    sources = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("lns/**/*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "set"
        arguments = [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={output}",
            *sources,
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        return list(descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file)


def iter_methods(files: list[descriptor_pb2.FileDescriptorProto]) -> Iterator[Method]:
    """Yields every RPC of the files, in their order."""
    for file in files:
        comments = _comments(file)
        for s, service in enumerate(file.service):
            for m, method in enumerate(service.method):
                yield Method(
                    service=f"{file.package}.{service.name}",
                    name=method.name,
                    idempotency=method.options.idempotency_level,
                    streams_requests=method.client_streaming,
                    streams_answers=method.server_streaming,
                    comment=comments.get((_SERVICE, s, _METHOD, m), ""),
                )


def iter_enum_values(
    files: list[descriptor_pb2.FileDescriptorProto], full_name: str
) -> Iterator[EnumValue]:
    """Yields the values of the top-level enumeration `full_name`, in their order."""
    for file in files:
        comments = _comments(file)
        for e, enum in enumerate(file.enum_type):
            if f"{file.package}.{enum.name}" != full_name:
                continue
            for v, value in enumerate(enum.value):
                yield EnumValue(
                    name=value.name,
                    number=value.number,
                    comment=comments.get((_ENUM, e, _VALUE, v), ""),
                )


# Numbers of the fields that make up a source location's path; descriptor.proto explains them.
_ENUM = descriptor_pb2.FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
_SERVICE = descriptor_pb2.FileDescriptorProto.SERVICE_FIELD_NUMBER
_METHOD = descriptor_pb2.ServiceDescriptorProto.METHOD_FIELD_NUMBER
_VALUE = descriptor_pb2.EnumDescriptorProto.VALUE_FIELD_NUMBER


def _comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }
