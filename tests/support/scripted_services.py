"""The four services on a real server, answering what a test scripts and noting what they are asked.

    with scripted_services(directory) as services:
        services.vm["ListRuns"] = vm_pb.ListRunsResponse(runs=[…])   # or LnsError, list, function
        …  # run the client with `services.environment`
        assert services.asked("ListRuns") == [vm_pb.ListRunsRequest(…)]

The server runs in threads of its own, so that a client may run in the test's.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from lns.egress.v1 import credential_service_pb2, egress_service_pb2
from lns.materializer.v1 import materializer_service_pb2
from lns.registry.v1 import registry_service_pb2
from lns.resolver.v1 import resolver_service_pb2
from lns.vm.v1 import vm_service_pb2

from services.chassis.status import to_grpc
from services.core.errors import LnsError, Unimplemented

Answer = Message | LnsError | list[Message | LnsError] | Callable[[Any], Any]

_ENDPOINTS = {
    "RegistryService": "LNS_ENDPOINT_REGISTRY_GATEWAY",
    "ResolverService": "LNS_ENDPOINT_RESOLVER",
    "MaterializerService": "LNS_ENDPOINT_MATERIALIZER",
    "VmService": "LNS_ENDPOINT_VM_RUNNER",
}
_FILES = (
    registry_service_pb2, resolver_service_pb2, materializer_service_pb2, vm_service_pb2,
    egress_service_pb2, credential_service_pb2,
)  # fmt: skip
_MAKERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class ScriptedServices:
    """What the services answer, by the RPC's name, and what they were asked."""

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, Message]] = []
        self.socket = directory / "scripted.sock"
        self.environment = {
            "HOME": str(directory),
            **dict.fromkeys(_ENDPOINTS.values(), f"unix:{self.socket}"),
        }

    def __setitem__(self, method: str, answer: Answer) -> None:
        self.answers[method] = answer

    def asked(self, method: str) -> list[Any]:
        """Returns the requests of one RPC, in order."""
        return [request for name, request in self.requests if name == method]

    def answer(self, method: str, request: Any) -> Any:
        """Returns what is scripted for a request, or raises it."""
        answer = self.answers.get(method, Unimplemented(f"{method} is not scripted"))
        if callable(answer) and not isinstance(answer, (Message, LnsError)):
            answer = answer(request)
        if isinstance(answer, LnsError):
            raise answer
        return answer

    def add_to(self, server: grpc.Server) -> None:
        """Adds every service to a server."""
        for module in _FILES:
            (service,) = module.DESCRIPTOR.services_by_name.values()
            handlers = {method.name: self._handler(method) for method in service.methods}
            handler = grpc.method_handlers_generic_handler(service.full_name, handlers)
            server.add_generic_rpc_handlers((handler,))

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        name = method.name

        def requested(request: Any) -> Any:
            """Returns the first request of a call after noting all that come before an answer."""
            if not method.client_streaming:
                self.requests.append((name, request))
                return request
            # A conversation is answered after its first request, an upload after its last.
            wanted = itertools.islice(request, 1) if method.server_streaming else request
            received = list(wanted)
            self.requests += [(name, one) for one in received]
            return received[0]

        def one(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return self.answer(name, requested(request))
            except LnsError as error:
                context.abort_with_status(to_grpc(error))

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                for item in self.answer(name, requested(request)):
                    if isinstance(item, LnsError):
                        raise item
                    yield item
            except LnsError as error:
                context.abort_with_status(to_grpc(error))

        make = _MAKERS[method.client_streaming, method.server_streaming]
        return make(
            stream if method.server_streaming else one,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )


@contextlib.contextmanager
def scripted_services(directory: Path) -> Iterator[ScriptedServices]:
    """Yields the services while they are served at a socket in `directory`."""
    scripted = ScriptedServices(directory)
    # Not grpc.aio: its loops disturb each other when there is one in two threads.
    server = grpc.server(ThreadPoolExecutor(8))
    scripted.add_to(server)
    server.add_insecure_port(f"unix:{scripted.socket}")
    server.start()
    try:
        yield scripted
    finally:
        server.stop(None).wait(20)
