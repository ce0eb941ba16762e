"""What grpc.aio does that nobody expects, and what the chassis makes of it.

Each test is named for a trap that was found by probing. Some show the trap itself: should a
version of grpc do away with it, the test says so.
"""

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.interceptors import Wrapper
from services.chassis.scopes import standard_scopes
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.chassis.streams import CHUNK_BYTES, MAX_CHUNK_BYTES, check_chunk
from services.core import errors
from tests.behaviour.chassis.conftest import Serving
from tests.support.echo import echo_service, text
from tests.support.eventually import eventually

KILLED_CLIENT = """
import asyncio, sys
from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from tests.support.echo import EchoStub, text

async def main():
    async with open_channel(PeerSettings(target=sys.argv[1])) as channel:
        call = getattr(EchoStub(channel), sys.argv[2])()
        await call.write(text("first"))
        print("written", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


class Recorder:
    """A handler that notes how the stream of requests ended for it."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.endings: list[str] = []
        self.cancelled_at_end: bool | None = None
        self.left = False

    async def read(self, requests: Any, context: Any) -> None:
        try:
            async for request in requests:
                self.received.append(request.value)
            self.endings.append("end of stream")
            self.cancelled_at_end = context.cancelled()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.endings.append("cancelled")
            raise
        finally:
            self.left = True

    async def sum(self, requests: Any, context: Any) -> Any:
        await self.read(requests, context)
        return text("")

    async def chat(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await self.read(requests, context)
        yield text("")


@pytest.mark.parametrize("method", ["Sum", "Chat"])
async def test_trap_1_a_cancelled_client_ends_the_stream_of_requests_normally(
    echo: Serving, method: str
) -> None:
    """Hence explicit `commit` and `stdin_closed` messages: the end of a stream says nothing."""
    recorder = Recorder()

    async with echo(Sum=recorder.sum, Chat=recorder.chat) as stub:
        call = getattr(stub, method)()
        await call.write(text("first"))
        await eventually(lambda: recorder.received == ["first"])
        call.cancel()
        await eventually(lambda: recorder.left)

    assert recorder.endings[0] == "end of stream"
    assert recorder.cancelled_at_end is False


@pytest.mark.parametrize("method", ["Sum", "Chat"])
async def test_trap_1_a_killed_client_ends_the_stream_of_requests_normally(
    short_directory: Path, method: str
) -> None:
    recorder = Recorder()
    address = f"unix:{short_directory}/s"
    service = echo_service(Sum=recorder.sum, Chat=recorder.chat)

    async with running_server(ServerSettings(listen=(address,), grace=0.2), [service]):
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED_CLIENT, address, method),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": ".:protos/gen"},
        )
        assert client.stdout is not None
        assert await client.stdout.readline() == b"written\n"
        await eventually(lambda: recorder.received == ["first"])
        client.send_signal(signal.SIGKILL)
        await client.wait()
        await eventually(lambda: recorder.left)

    assert recorder.endings[0] == "end of stream"
    assert recorder.cancelled_at_end is False


async def test_trap_2_a_wrapped_generator_is_still_a_stream(echo: Serving) -> None:
    """grpc.aio alone looks at the function, and fails with `object is not iterable`."""

    async def count(prefix: str, request: Any, _: Any) -> AsyncIterator[Any]:
        yield text(f"{prefix}{request.value}1")
        yield text(f"{prefix}{request.value}2")

    wrapped = functools.partial(count, "p")
    returned = lambda request, context: count("l", request, context)  # noqa: E731  # the trap

    for behaviour, prefix in ((wrapped, "p"), (returned, "l")):
        async with echo(Count=behaviour) as stub:
            received = [message.value async for message in stub.Count(text("x"))]

        assert received == [f"{prefix}x1", f"{prefix}x2"]


async def test_trap_5_a_chunk_of_four_mebibytes_does_not_fit_a_message(echo: Serving) -> None:
    async def count(request: Any, _: Any) -> AsyncIterator[Any]:
        yield text("x" * int(request.value))

    async with echo(Count=count) as stub:
        for size in (CHUNK_BYTES, MAX_CHUNK_BYTES):
            (message,) = [m async for m in stub.Count(text(str(size)))]
            assert len(message.value) == size
        with pytest.raises(errors.LimitExceeded):
            await anext(stub.Count(text(str(4 << 20))))


def test_trap_5_receivers_refuse_chunks_that_no_sender_of_ours_makes() -> None:
    check_chunk(bytes(MAX_CHUNK_BYTES))

    with pytest.raises(errors.LimitExceeded):
        check_chunk(bytes(MAX_CHUNK_BYTES + 1))


async def test_trap_6_a_second_server_cannot_share_a_tcp_port() -> None:
    first = ServerSettings(listen=("127.0.0.1:0",), plaintext_tcp=True, grace=0.1)

    async with running_server(first, []) as (address,):
        second = ServerSettings(listen=(address,), plaintext_tcp=True)
        with pytest.raises(errors.InUse) as caught:
            async with running_server(second, []):
                pass

    assert caught.value.metadata["address"] == address


@pytest.mark.parametrize("leaf", errors.LEAVES.values(), ids=lambda leaf: leaf.reason)
async def test_trap_7_errors_pass_through_context_managers(leaf: type[errors.LnsError]) -> None:
    """A frozen dataclass would raise FrozenInstanceError when its traceback is set."""

    @contextlib.contextmanager
    def outer() -> Iterator[None]:
        yield

    @contextlib.asynccontextmanager
    async def inner() -> AsyncIterator[None]:
        yield

    with pytest.raises(leaf), outer():
        async with inner():
            raise leaf("x")


async def test_trap_8_a_handler_may_write_to_the_context_instead_of_yielding(
    echo: Serving, log_entries: list[dict[str, object]]
) -> None:
    async def count(_: Any, context: Any) -> None:
        await context.write(text("1"))
        await context.write(text("2"))

    async with echo(Count=count) as stub:
        assert [message.value async for message in stub.Count(text(""))] == ["1", "2"]

    (line,) = [entry for entry in log_entries if entry["event"] == "rpc_finished"]
    assert (line["messages_out"], line["code"]) == (2, "OK")


async def test_trap_8_the_official_health_servicer_can_be_watched(short_directory: Path) -> None:
    """Its `Watch` writes to the context; an interceptor that expects a generator breaks it."""
    official = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in its __all__
    scopes = standard_scopes(allow={}, unary_limit=600)
    server = grpc.aio.server(interceptors=[Wrapper(scopes)])
    health_pb2_grpc.add_HealthServicer_to_server(official, server)
    address = f"unix:{short_directory}/s"
    server.add_insecure_port(address)
    await server.start()

    async with open_channel(PeerSettings(target=address)) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        first = await watch.read()
        await official.enter_graceful_shutdown()
        second = await watch.read()
        watch.cancel()
    await server.stop(None)

    assert first.status == health_pb2.HealthCheckResponse.SERVING
    assert second.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_cancelled_stream_cleans_up_in_the_task_that_began_it(echo: Serving) -> None:
    """grpc/grpc#42295: left to the garbage collector, a generator ends in another context."""
    tasks: list[Any] = []

    async def count(_: Any, __: Any) -> AsyncIterator[Any]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield text("x" * 100_000)
        finally:
            tasks.append(asyncio.current_task())

    async with echo(Count=count) as stub:
        call = stub.Count(text(""))
        await anext(call)
        call.cancel()
        await eventually(lambda: len(tasks) == 2)

    assert tasks[0] is tasks[1]
