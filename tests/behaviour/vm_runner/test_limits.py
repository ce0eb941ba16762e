"""Limits of what a run may have of its service, whatever its clients and programs do."""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.vm_runner.network.published_ports import CONNECTIONS_MAX
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld

pb = vm_service_pb2
Run = run_pb2.Run
EXECS = 2_500  # more than a channel may have streams at once
AT_ONCE = 16
ENOUGH = 64 << 20

HOLDS = """
import asyncio
async def hold(reader, writer):
    writer.write(b"held")
    await reader.read()
    writer.close()
async def main():
    server = await asyncio.start_server(hold, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children(pid: int) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def a_run(vm: VmClient) -> Run:
    run = await vm.shell("exec tail -f /dev/null")
    return await vm.until(run.run_id, Run.STATE_RUNNING)


@pytest.mark.timeout(200)
async def test_thousands_of_execs_leave_nothing_behind(vm: VmClient, world: VmWorld) -> None:
    run = await a_run(vm)
    agent = world.host.machines[run.run_id].pid
    session = world.runner.register.find(run.run_id).guest()

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            out, _, status = await vm.execute(run.run_id, "/bin/echo", str(number))
            assert (out, status.code) == (b"%d\n" % number, 0)

    async def soak(count: int) -> None:
        numbers = iter(range(count))
        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_ONCE):
                workers.create_task(work(numbers))

    await soak(100)
    before = descriptors(os.getpid()), descriptors(agent)
    await soak(EXECS)

    gc.collect()
    await eventually(lambda: len(session._processes) == 1)  # the workload
    assert len(session._streams) == len(session.channel._streams) == 2
    await eventually(lambda: descriptors(os.getpid()) <= before[0])
    await eventually(lambda: descriptors(agent) <= before[1])
    await eventually(lambda: children(agent) == 1)
    assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING


async def test_input_that_nobody_reads_waits_with_its_client(vm: VmClient, world: VmWorld) -> None:
    """The service and the guest hold a window of it; the other run is served meanwhile."""
    run, other = await a_run(vm), await a_run(vm)
    start = pb.AttachStart(run=run.run_id, exec=pb.ExecSpec(argv=["sleep", "100"]), stdin=True)
    sent = 0

    async def flood(terminal: object) -> None:
        nonlocal sent
        while sent < ENOUGH:
            await terminal.send(stdin=bytes(1 << 16))  # type: ignore[attr-defined]  # a Terminal
            sent += 1 << 16

    async with vm.attach(start) as terminal:
        flooding = asyncio.create_task(flood(terminal))
        await eventually(lambda: sent > 1 << 18)
        for number in range(20):
            out, _, _ = await vm.execute(other.run_id, "echo", str(number))
            assert out == b"%d\n" % number
        session = world.runner.register.find(run.run_id).guest()
        owed = [
            stream.output.end - stream.output.acked for stream in session.channel._streams.values()
        ]
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding

    assert sent < 16 << 20  # the rest of it is with the client
    assert max(owed) <= 256 << 10


async def test_connections_beyond_the_limit_are_refused_and_the_run_goes_on(
    vm: VmClient, world: VmWorld
) -> None:
    run = await vm.create(sys.executable, "-c", HOLDS)
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        inside = int(await terminal.until(b"\n"))
    wanted = run_plan_pb2.PortMapping(host_port=0, container_port=inside)
    request = pb.PublishPortRequest(run=run.run_id, port=wanted)
    port = (await vm.stub.PublishPort(request)).port.host_port

    async def hold() -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await reader.read(4), writer
        except ConnectionError:
            return b"", writer

    held = await asyncio.gather(*(hold() for _ in range(CONNECTIONS_MAX)))
    beyond = await asyncio.gather(*(hold() for _ in range(20)))
    out, _, _ = await vm.execute(run.run_id, "echo", "fine")
    for _, writer in (*held, *beyond):
        writer.close()
    published = world.runner.register.find(run.run_id).holdings.ports
    await eventually(lambda: not published._connections, within=20)
    again, writer = await hold()
    writer.close()

    assert {said for said, _ in held} == {b"held"}
    assert {said for said, _ in beyond} == {b""}
    assert (out, again) == (b"fine\n", b"held")
