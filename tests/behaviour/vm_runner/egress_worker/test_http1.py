"""HTTP/1 that is looked into, in the clear and under TLS: what passes as it is."""

import asyncio
import contextlib

import pytest

from services.vm_runner.egress_worker.orders import (
    Mode,
    UpstreamTrust,
)
from services.vm_runner.egress_worker.reports import (
    Closed,
    Reason,
    RequestDecided,
)
from tests.fakes.egress_agent import Reset
from tests.support.egress_world import EgressWorld
from tests.support.http1_world import (
    UPSTREAM_CA,
    Client,
    Origin,
    inspected,
    reply,
    request,
    rules,
    served,
)


async def test_bodies_of_all_kinds_pass_both_ways(world: EgressWorld, origin: Origin) -> None:
    big = bytes(range(256)) * 4096
    origin.answer = lambda head, body: reply(body)
    async with inspected(world, origin) as connect:
        client = await connect()
        length = f"Content-Length: {len(big)}"
        assert await client.ask(request("/", length, method="PUT") + big) == (200, big)
        chunked = b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n"
        data = request("/", "Transfer-Encoding: chunked", method="POST") + chunked
        status, body = await client.ask(data)
        assert (status, body) == (200, chunked.removesuffix(b"\r\n"))


async def test_expect_continue_is_answered_by_the_host(world: EgressWorld, origin: Origin) -> None:
    async with inspected(world, origin) as connect:
        client = await connect()
        await client.send(request("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        assert (await client.response())[0] == 100
        await client.send(b"ok")
        assert (await client.response())[0] == 200
    assert origin.requests[0][1] == b"ok"


async def test_events_reach_the_program_as_they_come(world: EgressWorld, origin: Origin) -> None:
    going_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await writer.drain()
            await going_on.wait()
            going_on.clear()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin) as connect:
        client = await connect()
        await client.send(request())
        data = b""
        for number in range(3):
            while b"data: %d\n\n" % number not in data:
                data += await client.receive()
            going_on.set()
        assert await client.receive() == b""


async def test_a_websocket_is_opaque_after_its_101(world: EgressWorld, origin: Origin) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\n\r\nfirst"
        )
        while data := await reader.read(1000):
            writer.write(data[::-1])
            await writer.drain()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin, rules=rules(("GET", "/ws"))) as connect:
        client = await connect()
        await client.send(request("/ws", "Upgrade: websocket", "Connection: Upgrade"))
        data = b""
        while b"first" not in data:
            data += await client.receive()
        for frame in (b"\x81\x05hello", b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"):
            await client.send(frame)
            assert await client.receive() == frame[::-1]


async def test_an_early_reply_does_not_wait_for_the_body(
    world: EgressWorld, origin: Origin
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"too large", b"connection: close", status=b"413 Too Large"))
        await writer.drain()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request("/", "Content-Length: 1000000", method="POST") + b"x")
        status, _, body = await client.response()
    assert (status, body) == (413, b"too large")


async def test_a_program_that_hangs_up_ends_its_request_at_the_host(
    world: EgressWorld, origin: Origin
) -> None:
    gone = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request())
        await world.runner.wait_for(RequestDecided)
        client._connection.reset()
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_a_reply_that_is_invalid_is_not_passed_on(
    world: EgressWorld, origin: Origin, answer: bytes
) -> None:
    origin.answer = lambda head, body: answer
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request())
        with contextlib.suppress(Reset, EOFError):
            status, _, _ = await client.response()
            assert status in (101, 502)
        client.finish()
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.UPSTREAM_PROTOCOL


async def test_the_other_end_is_verified_by_the_name(world: EgressWorld, origin: Origin) -> None:
    async with served(origin, name="other.test") as target:
        ca = UPSTREAM_CA.cert_pem.bytes().decode()
        world.runner.add(
            "api.test", target=target, mode=Mode.INSPECT, upstream=UpstreamTrust(ca=ca)
        )
        client = await Client.over_tls(world, "api.test")
        status, denial = await client.ask(request())

    assert status == 502
    assert isinstance(denial, dict)
    assert "certificate is not valid" in denial["error"]
    assert origin.requests == []


async def test_a_private_ca_counts_only_where_it_is_named(
    world: EgressWorld, origin: Origin
) -> None:
    async with served(origin, name="api.test") as target:
        world.runner.add("api.test", target=target, mode=Mode.INSPECT)
        client = await Client.over_tls(world, "api.test")
        assert (await client.ask(request()))[0] == 502
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.UPSTREAM_TLS


async def test_a_client_without_alpn_is_served(world: EgressWorld, origin: Origin) -> None:
    async with inspected(world, origin):
        client = await Client.over_tls(world, "api.test", protocols=())
        assert await client.ask(request()) == (200, b"hello")


async def test_a_large_upload_and_download_under_tls(world: EgressWorld, origin: Origin) -> None:
    size = 8 << 20
    origin.answer = lambda head, body: reply(body)
    async with inspected(world, origin) as connect:
        client = await connect()
        body = b"\xab" * size
        sending = asyncio.create_task(
            client.send(request("/", f"Content-Length: {size}", method="POST") + body)
        )
        status, _, received = await client.response()
        await sending
    assert (status, len(received), received == body) == (200, size, True)
