"""Connections whose bytes pass: whoever speaks first, and what ends them."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.vm_runner.egress_worker.orders import Configure, Limits, Mode, Revoke
from services.vm_runner.egress_worker.reports import Closed, Hello, Notice, Reason
from tests.fakes.egress_agent import Refused, Reset
from tests.support.egress_world import EgressWorld

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, int]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_what_has_no_route_is_refused(world: EgressWorld) -> None:  # [1]
    with pytest.raises(Refused):
        await world.agent.connect("198.18.7.7", 443)

    (ask,) = world.runner.asks
    assert (ask.port, ask.address[-4:]) == (443, socket.inet_aton("198.18.7.7"))


async def test_bytes_pass_both_ways_and_each_end_ends_its_own(world: EgressWorld) -> None:
    payload = bytes(range(256)) * 8192  # 2 MiB: many windows
    async with serving(echo) as target:
        world.runner.add("echo.test", target=target)
        connection = await world.connect("echo.test", 7)

        async def send() -> None:
            await connection.write(payload)
            connection.finish()

        sending = asyncio.create_task(send())
        assert await connection.read_all() == payload
        await sending

        closed = await world.runner.wait_for(Closed)
    assert (closed.sent, closed.received) == (len(payload), len(payload))
    assert closed.reason is Reason.NONE


async def test_a_server_may_speak_first(world: EgressWorld) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        assert await reader.readline() == b"SSH-2.0-y\r\n"
        writer.write(b"bye")

    async with serving(greet) as target:
        world.runner.add("git.test", target=target)
        connection = await world.connect("git.test", 22)

        assert await connection.read_until(b"\n") == b"SSH-2.0-x\r\n"
        await connection.write(b"SSH-2.0-y\r\n")
        assert await connection.read_all() == b"bye"


async def test_a_request_behind_a_greeting_reaches_no_server(world: EgressWorld) -> None:
    """Whoever greets first speaks no HTTP, so nobody would judge it."""
    received = bytearray()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n")
        with contextlib.suppress(ConnectionError):
            received.extend(await reader.read())

    async with serving(greet) as target:
        world.runner.add("mail.test", target=target)
        connection = await world.connect("mail.test", 25)

        assert await connection.read_until(b"\n") == b"220 welcome\r\n"
        await connection.write(b"DELETE /all HTTP/1.1\r\nHost: mail.test\r\n\r\n")
        closed = await world.runner.wait_for(Closed)

    assert closed.reason is Reason.MALFORMED
    assert not received


async def test_a_reset_by_the_host_is_a_reset_for_the_program(world: EgressWorld) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with serving(break_off) as target:
        world.runner.add("flaky.test", target=target)
        connection = await world.connect("flaky.test", 9)
        await connection.write(b"\x00\x01")

        with pytest.raises(Reset):
            await connection.read()
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.UPSTREAM_LOST


async def test_a_revoked_connection_is_reset(world: EgressWorld) -> None:
    async with serving(echo) as target:
        world.runner.add("echo.test", target=target)
        connection = await world.connect("echo.test", 7)
        await connection.write(b"\x00")
        await connection.read()

        world.runner.say(Revoke(connection=1, reason="the policy changed"))

        with pytest.raises(Reset):
            await connection.read()
        closed = await world.runner.wait_for(Closed)
    assert (closed.reason, closed.text) == (Reason.REVOKED, "the policy changed")


async def test_more_than_the_bound_is_refused_with_a_notice(world: EgressWorld) -> None:
    world.runner.say(Configure(run="test", limits=Limits(connections=2)))
    async with serving(echo) as target:
        world.runner.add("echo.test", target=target)
        kept = [await world.connect("echo.test", 7) for _ in range(2)]

        with pytest.raises(Refused):
            await world.connect("echo.test", 7)
        notice = await world.runner.wait_for(Notice)
        assert notice.reason is Reason.LIMIT

        kept[0].finish()
        assert await kept[0].read_all() == b""
        await world.runner.wait_for(Closed)
        await world.connect("echo.test", 7)


async def test_a_worker_goes_on_without_its_runner_and_tells_the_next_one(
    world: EgressWorld,
) -> None:
    async with serving(echo) as target:
        world.runner.add("echo.test", target=target)
        connection = await world.connect("echo.test", 7)
        ended = await world.connect("echo.test", 7)
        await world.runner.disconnect()

        await connection.write(b"\x00still there")
        assert await connection.read() == b"\x00still there"
        ended.finish()
        assert await ended.read_all() == b""
        asking = asyncio.create_task(world.connect("echo.test", 7))
        await asyncio.sleep(0.05)
        world.runner.reports.clear()
        await world.runner.connect()

        hello = await world.runner.wait_for(Hello)
        assert [one.connection for one in hello.connections] == [1]
        assert hello.connections[0].name == "echo.test"
        closed = await world.runner.wait_for(Closed)
        assert closed.connection == 2
        third = await asking  # what was asked meanwhile is asked again
        await third.write(b"\x00x")
        assert await third.read() == b"\x00x"


async def test_a_connection_that_names_another_host_in_tls_ends(world: EgressWorld) -> None:  # [13]
    async with serving(echo) as target:
        world.runner.add("a.test", target=target)
        connection = await world.connect("a.test")
        await connection.write(client_hello("b.test"))

        with pytest.raises(Reset):
            await connection.read_all()
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.SNI_MISMATCH
    assert closed.sent == 0


@pytest.mark.parametrize("name", ["a.test", "A.TEST", ""])
async def test_the_same_client_hello_goes_on(world: EgressWorld, name: str) -> None:
    hello = client_hello(name)
    async with serving(echo) as target:
        world.runner.add("a.test", target=target)
        connection = await world.connect("a.test")
        for at in range(0, len(hello), 50):
            await connection.write(hello[at : at + 50])

        assert await connection.read_until(hello) == hello


async def test_an_address_has_any_name(world: EgressWorld) -> None:
    hello = client_hello("any.test")
    async with serving(echo) as target:
        world.runner.add("x", target=target, by_address="203.0.113.7")
        connection = await world.connect("x")
        await connection.write(hello)

        assert await connection.read_until(hello) == hello


async def test_nothing_else_than_http_passes_where_there_are_rules(world: EgressWorld) -> None:
    async with serving(echo) as target:
        world.runner.add("a.test", target=target, mode=Mode.INSPECT)
        connection = await world.connect("a.test", 22)
        await connection.write(b"SSH-2.0-x\r\n")

        with pytest.raises(Reset):
            await connection.read_all()
        closed = await world.runner.wait_for(Closed)
    assert (closed.reason, closed.sent) == (Reason.NOT_HTTP, 0)


def client_hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name or None)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
