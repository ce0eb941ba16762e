"""The end of a process: health says so, calls may finish, what was opened is closed in reverse."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.interceptors import is_taken_up_again
from services.chassis.server import running_server, serve
from services.chassis.settings import PeerSettings, ServerSettings
from services.core import errors
from tests.support.echo import DESCRIPTOR, EchoStub, echo_service, text
from tests.support.processes import serving, started


@contextlib.asynccontextmanager
async def echo_process(
    home: Path, grace: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, PeerSettings]]:
    """A served echo process with its state in `home`."""
    environment = {"LNS_HOME": str(home), "LNS_SERVER__GRACE": grace}
    peer = PeerSettings(target=f"unix:{home}/run/echo.sock")
    async with started("tests.support.echo_process", environment=environment) as process:
        await serving(peer)
        yield process, peer


async def refused(echo: EchoStub) -> None:
    """Returns when new calls are refused.

    One that comes right behind the signal may be served; and grpc may hold one that meets the
    shutdown itself until the grace period is over.
    """
    async with asyncio.timeout(10):
        while True:
            try:
                await echo.Echo(text(""), timeout=1)
            except errors.ServiceUnavailable:
                return
            except errors.DeadlineExceeded:
                continue


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_flight_finishes_before_the_process_ends(
    short_directory: Path, number: signal.Signals
) -> None:
    go_on = short_directory / "go-on"

    async with echo_process(short_directory, "20s") as (process, peer):
        async with open_channel(peer, DESCRIPTOR) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            call = EchoStub(channel).Count(text(str(go_on)))
            assert (await call.read()).value == "began"

            process.send_signal(number)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await refused(EchoStub(channel))
            go_on.touch()

            assert [message.value async for message in call] == ["ended"]
        output, log = await process.communicate()

    assert process.returncode == 0
    assert output.decode().splitlines() == [
        *("first opened", "second opened", "call began", "call ended"),
        *("second closed", "first closed"),
    ]
    assert not (short_directory / "run" / "echo.sock").exists()
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert [event for event in events if event != "rpc_finished"] == [
        *("serving", "draining", "drained"),
    ]


async def test_a_call_that_outlives_the_grace_period_is_cancelled(short_directory: Path) -> None:
    async with echo_process(short_directory, "100ms") as (process, peer):
        async with open_channel(peer, DESCRIPTOR) as channel:
            call = EchoStub(channel).Count(text(""))
            await call.read()

            process.terminate()

            with pytest.raises(errors.ServiceUnavailable, match="the service is shutting down"):
                await call.read()
        output, _ = await process.communicate()

    assert process.returncode == 0
    assert output.decode().splitlines()[-3:] == ["call ended", "second closed", "first closed"]


async def test_a_stream_that_its_caller_takes_up_again_does_not_hold_up_the_end(
    short_directory: Path,
) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=30)

    async def stay(_: Any, __: Any) -> AsyncIterator[Any]:
        is_taken_up_again()
        yield text("here")
        await asyncio.Event().wait()

    async with open_channel(PeerSettings(target=settings.listen[0]), DESCRIPTOR) as channel:
        async with asyncio.timeout(20):
            async with running_server(settings, [echo_service(Count=stay)]):
                call = EchoStub(channel).Count(text(""))
                await call.read()
        with pytest.raises(errors.ServiceUnavailable, match="the service is shutting down"):
            await call.read()


async def test_a_watched_health_does_not_hold_up_the_end(short_directory: Path) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=30)

    async with open_channel(PeerSettings(target=settings.listen[0])) as channel:
        async with asyncio.timeout(20):
            async with running_server(settings, [echo_service()]):
                stub = health_pb2_grpc.HealthStub(channel)
                watch = stub.Watch(health_pb2.HealthCheckRequest(service="lns.test.v1.EchoService"))
                seen = [(await watch.read()).status]
        seen += [message.status async for message in watch]

    assert seen == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    ]


async def test_serving_ends_when_the_caller_says_so(short_directory: Path) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=1)
    stop = asyncio.Event()
    addresses: list[str] = []

    def ready(bound: Sequence[str]) -> None:
        addresses.extend(bound)
        stop.set()

    await serve(settings, [echo_service()], ready=ready, stop=stop)

    assert addresses == list(settings.listen)
