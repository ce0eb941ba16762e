"""A small service of tests with every arity, whose methods are given by each test.

`lns.test.v1.EchoService` speaks `google.protobuf.StringValue`. Its descriptor is made here, with
idempotency as real protos have it: `Echo` may be repeated, the others may not.
"""

from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from google.protobuf.descriptor import FileDescriptor

from services.chassis.server import Service

FULL_NAME = "lns.test.v1.EchoService"

Text = wrappers_pb2.StringValue

# name, streamed requests, streamed answers
_METHODS = (
    ("Echo", False, False),
    ("Store", False, False),
    ("Count", False, True),
    ("Sum", True, False),
    ("Chat", True, True),
)


def _describe() -> FileDescriptor:
    file = descriptor_pb2.FileDescriptorProto(
        name="lns/test/v1/echo_service.proto",
        package="lns.test.v1",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="EchoService")
    for name, streams_requests, streams_answers in _METHODS:
        method = service.method.add(
            name=name,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=streams_requests,
            server_streaming=streams_answers,
        )
        if name == "Echo":
            method.options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(file.name)


DESCRIPTOR = _describe()


class EchoStub:
    """What protoc would generate for a client."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for name, streams_requests, streams_answers in _METHODS:
            kind = f"{_word(streams_requests)}_{_word(streams_answers)}"
            method = getattr(channel, kind)(
                f"/{FULL_NAME}/{name}", Text.SerializeToString, Text.FromString
            )
            setattr(self, name, method)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def echo_service(**behaviours: Any) -> Service:
    """Returns a service whose methods are the given functions `(request, context)`."""

    def add(_: Any, server: grpc.aio.Server) -> None:
        handlers = {}
        for name, streams_requests, streams_answers in _METHODS:
            if name in behaviours:
                kind = f"{_word(streams_requests)}_{_word(streams_answers)}_rpc_method_handler"
                handlers[name] = getattr(grpc, kind)(
                    behaviours[name], Text.FromString, Text.SerializeToString
                )
        generic = grpc.method_handlers_generic_handler(FULL_NAME, handlers)
        server.add_generic_rpc_handlers((generic,))

    return Service(add_to_server=add, servicer=None, full_name=FULL_NAME)


def text(value: str) -> Text:
    """Returns a message."""
    return Text(value=value)


def _word(streams: bool) -> str:
    return "stream" if streams else "unary"
