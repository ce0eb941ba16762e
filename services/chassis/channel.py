"""Connections to other services: one channel a peer, opened by the composition root.

    async with open_channel(settings.gateway, pb.DESCRIPTOR) as channel:
        stub = rpc.RegistryServiceStub(channel)
        response = await stub.GetManifest(request)      # raises LnsError, nothing else

Every call has a deadline and carries the request id on (see `calls`). Methods whose proto calls
them idempotent are tried again while the peer is unavailable; no code of ours loops.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from services.chassis import calls
from services.chassis.settings import PeerSettings
from services.chassis.tls import channel_credentials
from services.core.errors import SettingsInvalid

METADATA_BYTES = 64 * 1024
"""Room for an error that lists many problems; gRPC's own limit is 8 KiB."""

_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@contextlib.asynccontextmanager
async def open_channel(
    settings: PeerSettings, *files: FileDescriptor, default_target: str = ""
) -> AsyncIterator[grpc.aio.Channel]:
    """Yields a channel to the peer; nothing is connected before the first call.

    Args:
        settings: where the peer is and how to reach it.
        files: the protos of the services that will be called, for their retry policy.
        default_target: the address when the settings have none.

    Raises:
        SettingsInvalid: there is no address, or a TLS file cannot be read.
    """
    target = settings.target or default_target
    if not target:
        raise SettingsInvalid("a peer has no `target`")
    options = [
        ("grpc.service_config", service_config(files)),
        ("grpc.enable_http_proxy", 0),  # services meet directly, whatever the environment says
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ]
    if settings.tls is None:
        inner = grpc.aio.insecure_channel(target, options=options)
    else:
        inner = grpc.aio.secure_channel(target, channel_credentials(settings.tls), options=options)
    async with inner:
        yield _Channel(
            inner,
            calls.Options(
                target=target,
                timeout=settings.timeout,
                stream_timeout=settings.stream_timeout,
            ),
        )


def service_config(files: tuple[FileDescriptor, ...]) -> str:
    """Returns gRPC's service config: which methods are tried again when a peer is unavailable.

    Those whose `idempotency_level` says that twice is as good as once.
    """
    names = [
        {"service": service.full_name, "method": method.name}
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if is_idempotent(method)
    ]
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if names:
        config["methodConfig"] = [{"name": names, "retryPolicy": _RETRY_POLICY}]
    return json.dumps(config)


def is_idempotent(method: MethodDescriptor) -> bool:
    """Says whether the method's proto declares it free of side effects or idempotent."""
    level = method.GetOptions().idempotency_level
    return bool(level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN)


class _Channel(grpc.aio.Channel):
    """A grpc channel whose callables are those of `calls`."""

    def __init__(self, inner: grpc.aio.Channel, options: calls.Options) -> None:
        self._inner = inner
        self._options = options

    async def __aenter__(self) -> "_Channel":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return calls.UnaryUnary(self._inner.unary_unary(*args, **kwargs), self._options)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return calls.UnaryStream(self._inner.unary_stream(*args, **kwargs), self._options)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return calls.StreamUnary(self._inner.stream_unary(*args, **kwargs), self._options)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return calls.StreamStream(self._inner.stream_stream(*args, **kwargs), self._options)
