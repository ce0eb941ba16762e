"""Serving: one way for a single service, for the suite, and for tests inside a process.

    async with open_things(settings) as servicer:
        service = Service(add_to_server=rpc.add_XServicer_to_server, servicer=servicer,
                          full_name=pb.DESCRIPTOR.services_by_name["XService"].full_name)
        await serve(settings.server, [service])

`serve` returns when the process was asked to end (SIGTERM, SIGINT) and its calls have ended; what
the caller opened around it is closed after that, in reverse. Things are opened before serving
begins, so health says SERVING from the first answer on.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from lns.process.v1 import process_service_pb2_grpc as process_rpc

from services.chassis.channel import METADATA_BYTES
from services.chassis.interceptors import Wrapper
from services.chassis.keepalive import KEEPALIVE, Keepalive
from services.chassis.locks import owner_lock
from services.chassis.probes import HEALTH_SERVICE_NAME, Probes
from services.chassis.process_servicer import PROCESS_SERVICE_NAME, ProcessServicer
from services.chassis.revocation import RevocationList
from services.chassis.scopes import standard_scopes
from services.chassis.settings import ServerSettings, check_unix_address, split_tcp_address
from services.chassis.tls import server_credentials
from services.core.errors import InUse, SettingsInvalid

log = structlog.get_logger()

OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second server shares the port silently
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
)
"""Options of every server beside those of its keepalive."""

_CLEAN_UP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One gRPC service, ready to be served.

    Attributes:
        add_to_server: the generated `add_…Servicer_to_server`.
        servicer: its implementation.
        full_name: `package.Service`, for health and reflection.
    """

    add_to_server: Callable[[Any, Any], None]
    servicer: Any
    full_name: str


async def serve(
    settings: ServerSettings,
    services: Sequence[Service],
    *,
    ready: Callable[[Sequence[str]], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until SIGTERM, SIGINT or `stop`, then drains.

    Args:
        settings: where and how.
        services: what.
        ready: called with the bound addresses once calls are answered.
        stop: ends serving when set, for processes that end for reasons of their own.

    Raises:
        SettingsInvalid: an address or a TLS file cannot be used.
        InUse: another process serves at an address.
    """
    stop = stop or asyncio.Event()
    with _signals_set(stop):
        async with running_server(settings, services) as addresses:
            log.info("serving", addresses=addresses, services=[s.full_name for s in services])
            if ready is not None:
                ready(addresses)
            await stop.wait()
            log.info("draining", grace_seconds=settings.grace)
    log.info("drained")


@contextlib.asynccontextmanager
async def running_server(
    settings: ServerSettings, services: Sequence[Service], *, keepalive: Keepalive = KEEPALIVE
) -> AsyncIterator[Sequence[str]]:
    """Yields the bound addresses while the services are served, then drains.

    Draining: health says NOT_SERVING, new calls are refused, calls in flight get
    `settings.grace` seconds, then their handlers are cancelled and answer ServiceUnavailable. So
    are streams that their callers take up again, at once.

    Raises:
        SettingsInvalid: an address or a TLS file cannot be used.
        InUse: another process serves at an address.
    """
    allow = None if settings.tls is None else settings.allow
    revoked = None if settings.revoked is None else RevocationList(settings.revoked)
    scopes = standard_scopes(allow=allow, unary_limit=settings.unary_limit, revoked=revoked)
    wrapper = Wrapper(scopes)
    server = grpc.aio.server(
        interceptors=[wrapper],
        options=[*OPTIONS, *keepalive.server_options()],
        maximum_concurrent_rpcs=settings.concurrent_calls,
    )
    for service in services:
        service.add_to_server(service.servicer, server)
    names = [service.full_name for service in services]
    probes = Probes(names)
    health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    process_rpc.add_ProcessServiceServicer_to_server(
        ProcessServicer(authorized=allow is not None), server
    )
    if settings.reflection:
        reflection.enable_server_reflection(
            [*names, PROCESS_SERVICE_NAME, HEALTH_SERVICE_NAME, reflection.SERVICE_NAME], server
        )
    with contextlib.ExitStack() as sockets:
        addresses = [_bind(server, address, settings, sockets) for address in settings.listen]
        await server.start()
        try:
            yield addresses
        finally:
            probes.drain()
            await _stop(server, wrapper, settings.grace)


async def _stop(server: grpc.aio.Server, wrapper: Wrapper, grace: float) -> None:
    """Ends serving, and lets handlers end before what they use is closed.

    grpc refuses new calls from here on, and gets more time than the calls have: those that outlive
    the grace period still answer why.
    """
    stopping = asyncio.ensure_future(server.stop(grace + _CLEAN_UP_SECONDS))
    wrapper.end_streams()
    if not await _idle(wrapper, grace):
        wrapper.end_calls()
        if not await _idle(wrapper, _CLEAN_UP_SECONDS):
            log.error("calls_still_running", waited_seconds=_CLEAN_UP_SECONDS)
    await stopping


async def _idle(wrapper: Wrapper, seconds: float) -> bool:
    try:
        await asyncio.wait_for(wrapper.idle(), seconds)
    except TimeoutError:
        return False
    return True


def _bind(
    server: grpc.aio.Server, address: str, settings: ServerSettings, stack: contextlib.ExitStack
) -> str:
    """Makes `server` listen at `address` and returns it with the port that was bound."""
    if address.startswith("unix:"):
        path = check_unix_address(address)
        stack.enter_context(_socket_place(path))
        with _umask(0o177):  # never a moment in which others could connect
            _add_port(address, lambda: server.add_insecure_port(address))
        return address
    host, _ = split_tcp_address(address)
    if settings.tls is not None:
        credentials = server_credentials(settings.tls)
        port = _add_port(address, lambda: server.add_secure_port(address, credentials))
    else:
        log.warning("listening_without_tls", address=address)
        port = _add_port(address, lambda: server.add_insecure_port(address))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _add_port(address: str, add: Callable[[], int]) -> int:
    try:
        return add()
    except RuntimeError as error:  # all that grpc says
        raise InUse(
            f"cannot listen at {address}",
            hint="another process may listen there; `server.listen` sets the address",
            metadata={"address": address, "cause": str(error)},
        ) from error


@contextlib.contextmanager
def _socket_place(path: Path) -> Iterator[None]:
    """Owns the place of a unix socket: grpc would replace that of a living server."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = path.with_name(f"{path.name}.lock")
            stack.enter_context(owner_lock(lock, what=f"the socket {path}"))
            path.unlink(missing_ok=True)  # left by a process that was killed
        except OSError as error:
            raise SettingsInvalid(
                f"{path} cannot be a socket: {error.strerror}", metadata={"path": str(path)}
            ) from error
        stack.callback(path.unlink, missing_ok=True)
        yield


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _signals_set(event: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, event.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
