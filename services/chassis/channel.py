"""Connections to other services: one channel a peer, opened by the composition root.

    async with open_channel(settings.gateway, pb.DESCRIPTOR) as channel:
        stub = rpc.RegistryServiceStub(channel)
        response = await stub.GetManifest(request)      # raises only LnsError

Every call has a deadline and carries the request id on (see `calls`). Methods whose proto calls
them idempotent are tried again while the peer is unavailable; no code of ours loops.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from services.chassis import calls
from services.chassis.keepalive import KEEPALIVE, Keepalive
from services.chassis.settings import PeerSettings
from services.chassis.tls import TlsFiles
from services.core.errors import SettingsInvalid

METADATA_BYTES = 64 * 1024
"""Room for an error that lists many problems; gRPC's own limit is 8 KiB."""

OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # services meet directly, whatever the environment says
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
)
"""Options of every channel beside its retry policy and those of its keepalive."""

_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@contextlib.asynccontextmanager
async def open_channel(
    settings: PeerSettings,
    *files: FileDescriptor,
    default_target: str = "",
    keepalive: Keepalive = KEEPALIVE,
) -> AsyncIterator[grpc.aio.Channel]:
    """Yields a channel to the peer; nothing is connected before the first call.

    Args:
        settings: where the peer is and how to reach it.
        files: the protos of the services that will be called, for their retry policy.
        default_target: the address when the settings have none.
        keepalive: when the peer counts as gone.

    Raises:
        SettingsInvalid: there is no address, or a TLS file cannot be read.
    """
    target = settings.target or default_target
    if not target:
        raise SettingsInvalid("a peer has no `target`")
    options = [
        ("grpc.service_config", service_config(files)),
        *OPTIONS,
        *keepalive.client_options(),
    ]
    tls = None if settings.tls is None else TlsFiles(settings.tls)

    def connect() -> grpc.aio.Channel:
        if tls is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, tls.channel_credentials(), options=options)

    limits = calls.Options(
        target=target,
        timeout=settings.timeout,
        stream_timeout=settings.stream_timeout,
        tls=settings.tls,
    )
    async with _Channel(connect, tls, limits) as channel:
        yield channel


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
    """A grpc channel whose callables are those of `calls`.

    Credentials of a channel cannot be exchanged, so calls that begin after the certificates were
    renewed use a new one. The former ones stay open for the calls that they carry.
    """

    def __init__(
        self,
        connect: Callable[[], grpc.aio.Channel],
        tls: TlsFiles | None,
        options: calls.Options,
    ) -> None:
        self._connect = connect
        self._tls = tls
        self._options = options
        self._opened = [connect()]

    def _current(self) -> grpc.aio.Channel:
        if self._tls is not None and self._tls.renewed():
            self._opened.append(self._connect())
        return self._opened[-1]

    def _callable(self, kind: str, arguments: Any, options: Any) -> Callable[[], Any]:
        """Returns what makes grpc's callable of a method, once for each channel."""
        made: list[Any] = [None, None]

        def current() -> Any:
            channel = self._current()
            if made[0] is not channel:
                made[:] = [channel, getattr(channel, kind)(*arguments, **options)]
            return made[1]

        return current

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
        for channel in self._opened:
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._current().channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return calls.UnaryUnary(self._callable("unary_unary", args, kwargs), self._options, args[0])

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return calls.UnaryStream(
            self._callable("unary_stream", args, kwargs), self._options, args[0]
        )

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return calls.StreamUnary(
            self._callable("stream_unary", args, kwargs), self._options, args[0]
        )

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return calls.StreamStream(
            self._callable("stream_stream", args, kwargs), self._options, args[0]
        )
