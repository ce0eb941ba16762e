"""Services whose addresses are configured: whether they answer, and waiting until they do."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.core.errors import LnsError, ServiceUnavailable

_CHECK_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """What a service at a configured address says of itself.

    Attributes:
        service: its name.
        target: its address.
        is_serving: whether it takes calls.
        why: why not, and what to do about it; empty where it serves.
    """

    service: str
    target: str
    is_serving: bool
    why: str = ""
    remedy: str = ""


async def look(service: str, target: str, channel: grpc.aio.Channel) -> EndpointState:
    """Asks the health service at an address."""
    failure = await _failure(channel)
    if failure is None:
        return EndpointState(service=service, target=target, is_serving=True)
    why = failure.message.replace("grpc.health.v1.Health", service)
    return EndpointState(
        service=service, target=target, is_serving=False, why=why, remedy=failure.hint
    )


async def wait_until_serving(
    channels: Mapping[str, grpc.aio.Channel], *, seconds: float, note: Callable[[str], None]
) -> None:
    """Returns when every service takes calls: one that restarts is back within seconds.

    Args:
        channels: by the address, for messages.
        seconds: how long to wait in all.
        note: shows a line to the user who waits.

    Raises:
        ServiceUnavailable: one does not come back in time; as it was found last.
    """
    deadline = time.monotonic() + seconds
    for target, channel in channels.items():
        pause, is_said = _PAUSE_SECONDS, False
        while (failure := await _failure(channel)) is not None:
            if time.monotonic() + pause > deadline:
                raise failure
            if not is_said:
                note(f"lns: lost the services at {target}; waiting up to {seconds:g} s for them")
                is_said = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _failure(channel: grpc.aio.Channel) -> LnsError | None:
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_CHECK_SECONDS)
    except LnsError as error:
        return error
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return ServiceUnavailable(
        "it ends: calls under way may finish, and no new ones are taken",
        hint="try again when it is back",
    )
