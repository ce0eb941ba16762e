"""Bytes between two guests: real agents, real sockets, and the host that carries between them."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.session import GuestSession, open_session
from services.vm_runner.machines import MachineSpec
from services.vm_runner.network.outgoing import carry
from tests.fakes.hypervisor import FakeHost, FakeHypervisor, FakeMachine
from tests.support.guest_agent import agent_session, require_agent

pytestmark = pytest.mark.integration

Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Ends:
    """The two ends of a carried connection."""

    def __init__(self, one: Socket, other: Socket, carrying: "asyncio.Task[None]") -> None:
        (self.read, self.write), (self.far_read, self.far_write) = one, other
        self.carrying = carrying


@contextlib.asynccontextmanager
async def accepting(session: GuestSession) -> AsyncIterator[tuple[object, Socket]]:
    """Yields a stream of a guest and the socket that its agent connected."""
    arrived: asyncio.Queue[Socket] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda reader, writer: arrived.put_nowait((reader, writer)), "127.0.0.1", 0
    )
    async with server:
        stream = await session.connections.connect(server.sockets[0].getsockname()[1])
        socket = await arrived.get()
        try:
            yield stream, socket
        finally:
            socket[1].transport.abort()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with (
        agent_session() as one,
        agent_session() as other,
        accepting(one) as (near, near_socket),
        accepting(other) as (far, far_socket),
    ):
        carrying = asyncio.create_task(carry(near, far))  # type: ignore[arg-type]  # streams
        try:
            yield Ends(near_socket, far_socket, carrying)
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)


@pytest.fixture
async def machine() -> AsyncIterator[FakeMachine]:
    host = FakeHost(require_agent())
    spec = MachineSpec(run_id="r", directory=Path("/"), vcpus=1, memory_mib=64, disks=())
    machine = await FakeHypervisor(host).start(spec)
    assert isinstance(machine, FakeMachine)
    yield machine
    await host.close()


async def test_bytes_arrive_in_both_ways_at_once(ends: Ends) -> None:
    there, back = os.urandom(3_000_000), os.urandom(2_000_000)

    async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(send(ends.write, there))
        group.create_task(send(ends.far_write, back))
        arrived = group.create_task(ends.far_read.read(-1))
        returned = group.create_task(ends.read.read(-1))

    assert hashlib.sha256(arrived.result()).digest() == hashlib.sha256(there).digest()
    assert hashlib.sha256(returned.result()).digest() == hashlib.sha256(back).digest()
    await asyncio.wait_for(ends.carrying, 10)


async def test_one_way_may_end_before_the_other(ends: Ends) -> None:
    ends.write.write(b"question")
    ends.write.write_eof()
    assert await ends.far_read.read(-1) == b"question"

    ends.far_write.write(b"a late answer")
    ends.far_write.write_eof()

    assert await ends.read.read(-1) == b"a late answer"


async def test_an_answer_arrives_although_the_question_is_not_read_to_its_end(ends: Ends) -> None:
    ends.write.write(os.urandom(1_000_000))
    assert await ends.far_read.readexactly(10)
    ends.far_write.write(b"enough")
    await ends.far_write.drain()
    ends.far_write.close()

    assert await ends.read.readexactly(6) == b"enough"


async def test_a_peer_that_stands_still_holds_its_own_connection_only(ends: Ends) -> None:
    ends.far_read._transport.pause_reading()  # type: ignore[attr-defined]  # it takes nothing
    ends.write.write(bytes(20_000_000))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ends.write.drain(), 0.5)

    ends.far_write.write(b"still talking")
    assert await ends.read.readexactly(13) == b"still talking"


async def test_a_connection_that_is_given_up_is_reset_at_both_ends(ends: Ends) -> None:
    ends.write.write(b"x")
    await ends.far_read.readexactly(1)

    ends.carrying.cancel()

    for reader in (ends.read, ends.far_read):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 10)


async def test_a_guest_that_goes_away_resets_the_connection() -> None:
    async with agent_session() as one, accepting(one) as (near, (reader, _)):
        async with agent_session() as other, accepting(other) as (far, _):
            carrying = asyncio.create_task(carry(near, far))  # type: ignore[arg-type]  # streams
        with pytest.raises(GuestUnreachable):
            await carrying
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 10)


async def test_a_connection_that_a_guest_makes_too_late_is_given_up(machine: FakeMachine) -> None:
    arrived: asyncio.Queue[Socket] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda reader, writer: arrived.put_nowait((reader, writer)), "127.0.0.1", 0
    )
    async with server, open_session(await machine.connect(), answer_seconds=10) as session:
        await machine.pause()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                session.connections.connect(server.sockets[0].getsockname()[1]), 0.1
            )
        await machine.resume()

        reader, writer = await asyncio.wait_for(arrived.get(), 10)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 10)
        writer.close()
