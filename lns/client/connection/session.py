"""Connections of one invocation to the services that it needs.

    async with open_session(context, Peer.RESOLVER, Peer.VM_RUNNER) as session:
        response = await session.resolver.Resolve(request)     # raises only LnsError

A service whose endpoint is configured is called there; the others are in the suite. That is started
if it does not live, except by clients that have an endpoint configured. All calls of one invocation
carry one request id. Generated code is imported for the services that are asked for, since each
takes its time.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor

from lns.client.connection import suite_process
from lns.client.connection.caller import Caller
from lns.client.connection.config import config_path, load_config
from lns.client.connection.suite_process import Suite, SuiteFiles
from services.chassis import caller_environment
from services.chassis import context as calls
from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings, TlsSettings, state_directory
from services.chassis.settings_values import parse_duration
from services.core.errors import ServiceUnavailable, SettingsInvalid
from services.core.version import VERSION

if TYPE_CHECKING:
    from lns.egress.v1.credential_service_pb2_grpc import CredentialServiceStub
    from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub
    from lns.materializer.v1.materializer_service_pb2_grpc import MaterializerServiceStub
    from lns.process.v1.process_service_pb2_grpc import ProcessServiceStub
    from lns.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
    from lns.resolver.v1.resolver_service_pb2_grpc import ResolverServiceStub
    from lns.vm.v1.vm_service_pb2_grpc import VmServiceStub

    from lns.client.connection.endpoints import EndpointState


_REVIVE_SECONDS = 0.1
_RECONNECT = "2m"
_CONNECT_SECONDS = 15.0  # more than the longest pause between two attempts of a channel


class Peer(StrEnum):
    """The four services, by the name of their configuration key."""

    REGISTRY_GATEWAY = "endpoint-registry-gateway"
    RESOLVER = "endpoint-resolver"
    MATERIALIZER = "endpoint-materializer"
    VM_RUNNER = "endpoint-vm-runner"


class Session:
    """Open channels, and a stub for each service that was asked for.

    Args:
        channels: by the services that were asked for.
        revive: makes services that were lost answer again, as far as this client can.
        targets: the addresses of those services.
    """

    def __init__(
        self,
        channels: Mapping[Peer, grpc.aio.Channel],
        revive: Callable[[], Awaitable[None]],
        targets: Mapping[Peer, str],
    ) -> None:
        self._channels = channels
        self._targets = targets
        self.revive = revive

    def elsewhere(self, peer: Peer) -> str:
        """Returns the address of a service on another machine; empty for one of this machine."""
        return self._targets[peer] if is_elsewhere(self._targets[peer]) else ""

    @property
    def registry(self) -> "RegistryServiceStub":
        """The registry gateway."""
        from lns.registry.v1 import registry_service_pb2_grpc as rpc  # noqa: PLC0415 - see above

        return rpc.RegistryServiceStub(self._channels[Peer.REGISTRY_GATEWAY])

    @property
    def resolver(self) -> "ResolverServiceStub":
        """The resolver."""
        from lns.resolver.v1 import resolver_service_pb2_grpc as rpc  # noqa: PLC0415 - see above

        return rpc.ResolverServiceStub(self._channels[Peer.RESOLVER])

    @property
    def materializer(self) -> "MaterializerServiceStub":
        """The materializer."""
        from lns.materializer.v1 import materializer_service_pb2_grpc as rpc  # noqa: PLC0415 - same

        return rpc.MaterializerServiceStub(self._channels[Peer.MATERIALIZER])

    @property
    def vm(self) -> "VmServiceStub":
        """The VM runner."""
        from lns.vm.v1 import vm_service_pb2_grpc as rpc  # noqa: PLC0415 - see above

        return rpc.VmServiceStub(self._channels[Peer.VM_RUNNER])

    @property
    def egress(self) -> "EgressServiceStub":
        """What runs reach, which the VM runner decides."""
        from lns.egress.v1 import egress_service_pb2_grpc as rpc  # noqa: PLC0415 - see above

        return rpc.EgressServiceStub(self._channels[Peer.VM_RUNNER])

    @property
    def credentials(self) -> "CredentialServiceStub":
        """The credentials that the VM runner keeps."""
        from lns.egress.v1 import credential_service_pb2_grpc as rpc  # noqa: PLC0415 - see above

        return rpc.CredentialServiceStub(self._channels[Peer.VM_RUNNER])

    def process(self, peer: Peer) -> "ProcessServiceStub":
        """The process that has one of the services."""
        from lns.process.v1 import process_service_pb2_grpc as rpc  # noqa: PLC0415 - see above

        return rpc.ProcessServiceStub(self._channels[peer])


@contextlib.asynccontextmanager
async def open_session(context: Caller, *peers: Peer) -> AsyncIterator[Session]:
    """Yields a session with the services `peers`; starts the suite where nothing is configured.

    Raises:
        ServiceUnavailable: the suite could not be started, or may not be.
        SettingsInvalid: the client's configuration cannot be used.
    """
    context.request_id = calls.request_id() or calls.new_request_id()
    calls.set_request_id(context.request_id)
    calls.set_environment(caller_environment.encode(context.environment, directory=Path.cwd()))
    config = load_config(context)
    targets = {peer: config.get(peer, "") for peer in peers}
    uses_suite = not all(targets.values())
    is_remote = any(config.get(peer) for peer in Peer)
    if uses_suite:
        if is_remote:
            _check_suite_lives(context, [peer for peer in peers if not targets[peer]])
        suite = await reach_suite(context)
        sockets = {
            peer: suite.socket if peer is Peer.VM_RUNNER else suite.content_socket for peer in peers
        }
        targets = {peer: target or f"unix:{sockets[peer]}" for peer, target in targets.items()}
        if suite.content_pid is None and f"unix:{suite.content_socket}" in targets.values():
            await asyncio.to_thread(suite_process.wait_for_content, suite_files(context))
    tls = tls_of(config)
    async with contextlib.AsyncExitStack() as stack:
        channels: dict[str, grpc.aio.Channel] = {}
        for target in sorted(set(targets.values())):
            files = [_descriptor(peer) for peer in peers if targets[peer] == target]
            settings = PeerSettings(target=target, tls=None if _is_local(target) else tls)
            channels[target] = await stack.enter_async_context(open_channel(settings, *files))

        async def revive() -> None:
            if is_remote:
                from lns.client.connection import endpoints  # noqa: PLC0415 - seldom needed

                seconds = reconnect_seconds(config)
                await endpoints.wait_until_serving(channels, seconds=seconds, note=context.note)
                return
            await revive_suite(context)
            await _connected(channels.values())

        by_peer = {peer: channels[target] for peer, target in targets.items()}
        yield Session(by_peer, revive, targets)


def _check_suite_lives(context: Caller, without: Sequence[Peer]) -> None:
    """Makes sure that a client of configured services finds a suite for the others.

    Such a client starts nothing: its runs and images would be in two places.

    Raises:
        ServiceUnavailable: none runs.
    """
    if suite_process.find_suite(suite_files(context)) is None:
        raise ServiceUnavailable(
            f"{without[0]} is not configured, other services are, and none run on this machine",
            hint=f"`lns config set {without[0]} HOST:PORT`, or `lns service start`",
        )


def reconnect_seconds(config: Mapping[str, str]) -> float:
    """Returns how long to wait for configured services that were lost."""
    return parse_duration(config.get("reconnect-time", _RECONNECT))


async def _connected(channels: Iterable[grpc.aio.Channel]) -> None:
    """Waits until channels are connected again, though not for long.

    One that could not connect for a while tries again only every few seconds, and calls fail at
    once meanwhile.
    """

    async def connected(channel: grpc.aio.Channel) -> None:
        channel.get_state(try_to_connect=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(channel.channel_ready(), _CONNECT_SECONDS)

    await asyncio.gather(*map(connected, channels))


def suite_files(context: Caller) -> SuiteFiles:
    """Returns where this invocation's suite is."""
    return SuiteFiles(home=state_directory(context.environment))


async def reach_suite(context: Caller, *, config: Path | None = None) -> Suite:
    """Returns the living suite, started if need be; says so when it is of another version.

    Args:
        context: the invocation.
        config: settings for a suite that is started; by default `services.yaml` beside the
            client's own configuration, where there is one.
    """
    files = suite_files(context)
    suite = suite_process.find_suite(files)
    if suite is None:
        context.note("lns: starting the services in the background")
        suite = await _ensure_suite(context, files, config)
    if suite_process.is_other_version(suite):
        context.note(
            f"lns: the services that run are version {suite.version}, this is {VERSION};"
            " `lns service restart` brings them up to date"
        )
    return suite


async def revive_suite(context: Caller) -> None:
    """Returns when a suite serves: one that ends is waited for, one that is gone started.

    Another command may be restarting it: there is one starter at a time, and who waits for it finds
    the suite running.

    Raises:
        ServiceUnavailable: none serves in time.
    """
    files = suite_files(context)
    deadline = time.monotonic() + suite_process.START_SECONDS
    while (suite := suite_process.find_suite(files)) is not None:
        if await asyncio.to_thread(is_serving, suite.socket) or time.monotonic() > deadline:
            return  # one that hangs is reported by the call that is tried next
        await asyncio.sleep(_REVIVE_SECONDS)
    await _ensure_suite(context, files, None)


def is_serving(socket: Path, timeout: float = 1.0) -> bool:
    """Asks the health service at a socket whether everything there serves; blocks."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - seldom needed

    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _descriptor(peer: Peer) -> FileDescriptor:
    """Returns the proto of a service, for the channel's retry policy."""
    if peer is Peer.REGISTRY_GATEWAY:
        from lns.registry.v1 import registry_service_pb2  # noqa: PLC0415 - see above

        return registry_service_pb2.DESCRIPTOR
    if peer is Peer.RESOLVER:
        from lns.resolver.v1 import resolver_service_pb2  # noqa: PLC0415 - see above

        return resolver_service_pb2.DESCRIPTOR
    if peer is Peer.MATERIALIZER:
        from lns.materializer.v1 import materializer_service_pb2  # noqa: PLC0415 - see above

        return materializer_service_pb2.DESCRIPTOR
    from lns.vm.v1 import vm_service_pb2  # noqa: PLC0415 - see above

    return vm_service_pb2.DESCRIPTOR


async def _ensure_suite(context: Caller, files: SuiteFiles, config: Path | None) -> Suite:
    return await asyncio.to_thread(
        suite_process.ensure_suite,
        files,
        is_ready=lambda: is_serving(files.socket),
        environment=context.environment,
        arguments=suite_arguments(context, config),
    )


def suite_arguments(context: Caller, config: Path | None) -> list[str]:
    """Returns the arguments of a suite with the settings of a file, by default the user's."""
    return _arguments(config or config_path(context).with_name("services.yaml"))


def _arguments(config: Path) -> list[str]:
    return ["--config", str(config.absolute())] if config.exists() else []


def tls_of(config: Mapping[str, str]) -> TlsSettings | None:
    """Returns the certificates towards configured services, or None.

    Raises:
        SettingsInvalid: some of the three files are configured and others not.
    """
    names = ("tls-authority", "tls-certificate", "tls-key")
    given = [name for name in names if name in config]
    if not given:
        return None
    if len(given) < len(names):
        missing = next(name for name in names if name not in config)
        raise SettingsInvalid(
            f"{given[0]} is configured without {missing}",
            hint=f"set all of {', '.join(names)}, or none",
        )
    return TlsSettings(
        authority=Path(config["tls-authority"]),
        certificate=Path(config["tls-certificate"]),
        key=Path(config["tls-key"]),
    )


def _is_local(target: str) -> bool:
    return target.startswith("unix:")


def is_elsewhere(target: str) -> bool:
    """Says whether an address is another machine's: neither a socket nor a loopback address."""
    host = target.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    return not _is_local(target) and not (
        host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localhost")
    )


async def look_at_endpoints(config: Mapping[str, str]) -> list["EndpointState"]:
    """Returns what the services say whose addresses are configured."""
    from lns.client.connection.endpoints import look  # noqa: PLC0415 - seldom needed

    async def state(peer: Peer, target: str) -> "EndpointState":
        service = peer.removeprefix("endpoint-").replace("-", "_")
        settings = PeerSettings(target=target, tls=None if _is_local(target) else tls_of(config))
        async with open_channel(settings) as channel:
            return await look(service, target, channel)

    return await asyncio.gather(*(state(peer, config[peer]) for peer in Peer if config.get(peer)))
