"""Published ports: the host listens, the guest answers."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import InUse, RequestInvalid, RunStateConflict
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
Port = run_plan_pb2.PortMapping

SERVER = """
import asyncio, sys
async def serve(reader, writer):
    data = await reader.read()
    writer.write(str(len(data)).encode() + b" " + data[:100].upper())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@asynccontextmanager
async def a_server(vm: VmClient, *ports: Port) -> AsyncIterator[tuple[Run, int]]:
    """A run that answers on a port of its loopback, which is the host's own here."""
    run = await vm.create(sys.executable, "-c", SERVER, ports=ports)
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        guest_port = int(await terminal.until(b"\n"))
    yield run, guest_port


async def publish(vm: VmClient, run: Run, guest_port: int, host_port: int = 0) -> Port:
    port = Port(host_port=host_port, container_port=guest_port)
    return (await vm.stub.PublishPort(pb.PublishPortRequest(run=run.run_id, port=port))).port


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_connection_reaches_the_guest_and_closes_by_halves(vm: VmClient) -> None:
    async with a_server(vm) as (run, guest_port):
        port = await publish(vm, run, guest_port)

        assert port.host_ip == "127.0.0.1"
        assert await ask(port.host_port, b"hello") == b"5 HELLO"
        assert await ask(port.host_port, b"x" * 3_000_000) == b"3000000 " + b"X" * 100


SLOW = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.sendall(b"bye")
connection.shutdown(socket.SHUT_WR)
count = 0
while data := connection.recv(20_000):
    count += len(data)
    time.sleep(0.001)
print("got", count, flush=True)
"""


async def test_a_server_that_answers_before_it_reads_gets_everything_all_the_same(
    vm: VmClient,
) -> None:
    run = await vm.create(sys.executable, "-c", SLOW)
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        guest_port = int(await terminal.until(b"\n"))
        port = await publish(vm, run, guest_port)
        assert await ask(port.host_port, b"x" * 2_000_000) == b"bye"
        assert b"got 2000000\n" in await terminal.until(b"\n")


async def test_two_hundred_connections_at_once_are_served(vm: VmClient) -> None:
    async with a_server(vm) as (run, guest_port):
        port = (await publish(vm, run, guest_port)).host_port
        answers = await asyncio.gather(*(ask(port, b"%d" % n) for n in range(200)))

    assert answers == [b"%d %d" % (len(b"%d" % n), n) for n in range(200)]


async def test_a_port_of_the_plan_is_published_from_the_start_to_the_end(vm: VmClient) -> None:
    wanted = Port(host_port=0, container_port=9)
    run = await vm.create("sh", "-c", "read x", ports=[wanted], options=run_pb2.RunOptions())
    (port,) = run.ports
    assert port.host_port > 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port.host_port)
    assert await reader.read() == b""  # nobody listens inside
    writer.close()

    await vm.ended(run.run_id)
    await eventually(lambda: is_free(port.host_port))


async def test_a_port_that_is_taken_is_an_error_before_anything_is_recorded(
    vm: VmClient, world: VmWorld
) -> None:
    async with a_server(vm) as (run, guest_port):
        taken = await publish(vm, run, guest_port)
        with pytest.raises(InUse, match=str(taken.host_port)):
            await vm.create("true", ports=[Port(host_port=taken.host_port, container_port=1)])
        with pytest.raises(InUse):
            await publish(vm, run, guest_port + 1, taken.host_port)

        runs = (await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True))).runs
        assert [one.run_id for one in runs] == [run.run_id]
        assert list(world.images.leased) == [run.run_id]


async def test_of_several_ports_all_are_published_or_none(vm: VmClient) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [
            Port(host_port=first, container_port=1),
            Port(host_port=taken.getsockname()[1], container_port=2),
        ]
        with pytest.raises(InUse):
            await vm.create("true", ports=ports)

    with pytest.raises(ConnectionRefusedError):
        await ask(first, b"")


async def test_publishing_twice_is_publishing_once(vm: VmClient) -> None:
    async with a_server(vm) as (run, guest_port):
        first = await publish(vm, run, guest_port)

        assert await publish(vm, run, guest_port, first.host_port) == first
        assert list((await vm.get(run.run_id)).ports) == [first]


async def test_a_port_is_taken_back(vm: VmClient) -> None:
    async with a_server(vm) as (run, guest_port):
        port = await publish(vm, run, guest_port)
        await vm.stub.UnpublishPort(pb.UnpublishPortRequest(run=run.run_id, port=port))

        with pytest.raises(ConnectionRefusedError):
            await ask(port.host_port, b"")
        assert not (await vm.get(run.run_id)).ports


async def test_an_ended_run_publishes_nothing(vm: VmClient) -> None:
    run = await vm.shell("true")
    await vm.ended(run.run_id)
    with pytest.raises(RunStateConflict):
        await publish(vm, run, 80)


@pytest.mark.parametrize(
    "port",
    [
        Port(host_ip="203.0.113.1", container_port=80),
        Port(host_ip="nonsense", container_port=80),
        Port(container_port=0),
        Port(container_port=70_000),
        Port(host_port=-1, container_port=80),
        Port(container_port=80, protocol="udp"),
    ],
)
async def test_what_cannot_be_published_is_refused(vm: VmClient, port: Port) -> None:
    with pytest.raises(RequestInvalid):
        await vm.create("true", ports=[port])


async def test_connections_end_with_the_run(vm: VmClient) -> None:
    async with a_server(vm) as (run, guest_port):
        port = await publish(vm, run, guest_port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port.host_port)
        writer.write(b"waiting")
        await vm.stub.KillRun(pb.KillRunRequest(run=run.run_id))

        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_goes_away_leaves_nothing(vm: VmClient, world: VmWorld) -> None:
    async with a_server(vm) as (run, guest_port):
        port = await publish(vm, run, guest_port)
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", port.host_port)
            writer.write(b"x" * 100_000)
            writer.transport.abort()
        published = world.runner.register.find(run.run_id).holdings.ports

        await eventually(lambda: not published._connections)
        assert await ask(port.host_port, b"still") == b"5 STILL"


async def test_ports_are_published_again_by_the_next_service(world: VmWorld) -> None:
    async with vm_service(world) as vm, a_server(vm) as (run, guest_port):
        port = await publish(vm, run, guest_port)
    async with vm_service(world) as vm:
        assert list((await vm.get(run.run_id)).ports) == [port]
        await vm.until(run.run_id, Run.STATE_RUNNING)
        assert await ask(port.host_port, b"again") == b"5 AGAIN"


async def test_a_port_that_was_taken_meanwhile_is_given_up_with_a_notice(world: VmWorld) -> None:
    async with vm_service(world) as vm, a_server(vm) as (run, guest_port):
        port = await publish(vm, run, guest_port)
    with socket.create_server(("127.0.0.1", port.host_port)):
        async with vm_service(world) as vm:
            assert not (await vm.get(run.run_id)).ports
            await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
            notices = [event.notice for event in await vm.events(run.run_id)]

    assert any(str(port.host_port) in notice for notice in notices)
