"""Groups: their names, their records, and which runs may reach which."""

import secrets
import sys

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import NameTaken, RequestInvalid, RunUnknown
from services.vm_runner.channel.wire import (
    Frame,
    FrameFlag,
    FrameType,
    Tag,
    encode_fields,
    encode_frame,
)
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
FOREVER = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.01; done")
SERVER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    print("reached", flush=True)
"""


def a_group(name: str = "") -> run_pb2.RunGroup:
    return run_pb2.RunGroup(id=secrets.token_hex(16), name=name, members=["web", "client"])


async def create(
    vm: VmClient, group: run_pb2.RunGroup, member: str, *argv: str, start: bool = False
) -> Run:
    return await vm.create(*(argv or FOREVER), group=group, member=member, start=start)


async def test_a_group_is_named_by_its_plan_and_its_runs_by_the_group(vm: VmClient) -> None:
    ours, theirs = a_group(), a_group()
    runs = [
        await create(vm, group, member)
        for group, member in [(ours, "web"), (theirs, "web"), (ours, "client")]
    ]

    assert [(run.group.name, run.name) for run in runs] == [
        ("team", "team-web"),
        ("team-2", "team-2-web"),
        ("team", "team-client"),
    ]
    assert list(runs[0].group.members) == ["web", "client"]


async def test_the_runs_of_a_group_are_listed_by_its_name_or_id(vm: VmClient) -> None:
    ours, theirs = a_group(), a_group()
    wanted = {(await create(vm, ours, member)).run_id for member in ("web", "client")}
    await create(vm, theirs, "web")
    await vm.create("true", start=False)

    for group in ("team", ours.id):
        request = pb.ListRunsRequest(include_ended=True, group=group)
        assert {run.run_id for run in (await vm.stub.ListRuns(request)).runs} == wanted


async def test_a_name_is_of_one_run_or_one_group(vm: VmClient) -> None:
    await create(vm, a_group("crew"), "web")
    other = await vm.create("true", start=False, options=run_pb2.RunOptions(name="solo"))

    with pytest.raises(NameTaken):
        await vm.create("true", start=False, options=run_pb2.RunOptions(name="crew"))
    for taken in ("crew", "solo"):
        with pytest.raises(NameTaken):
            await create(vm, a_group(taken), "web")
    with pytest.raises(NameTaken):
        await vm.stub.RenameRun(pb.RenameRunRequest(run=other.run_id, name="crew"))


async def test_a_group_is_no_run_even_where_its_name_looks_like_an_id(vm: VmClient) -> None:
    run = await vm.create("true", start=False)
    await create(vm, a_group(run.run_id[:8]), "web")

    with pytest.raises(RunUnknown, match="group"):
        await vm.get(run.run_id[:8])


@pytest.mark.parametrize(
    ("group", "member"),
    [
        (run_pb2.RunGroup(id="x", members=["web"]), "web"),
        (run_pb2.RunGroup(id="a" * 32, members=["web"]), "client"),
        (run_pb2.RunGroup(id="a" * 32, members=["web"], name="no name"), "web"),
        (run_pb2.RunGroup(id="a" * 32, members=["localhost 127.0.0.1"]), "web"),
    ],
)
async def test_a_group_that_cannot_be_leaves_nothing(
    vm: VmClient, world: VmWorld, group: run_pb2.RunGroup, member: str
) -> None:
    with pytest.raises(RequestInvalid):
        await create(vm, group, member)

    assert not (await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True))).runs
    assert not world.images.leased


async def test_a_member_is_one_run_and_all_know_the_same_members(vm: VmClient) -> None:
    group = a_group()
    await create(vm, group, "web")

    with pytest.raises(RequestInvalid):
        await create(vm, group, "web")
    group.members.append("further")
    with pytest.raises(RequestInvalid):
        await create(vm, group, "client")


async def test_a_group_is_recorded(world: VmWorld) -> None:
    group = a_group()
    async with vm_service(world) as vm:
        before = await create(vm, group, "web")
    async with vm_service(world) as vm:
        assert (await vm.get(before.run_id)).group == before.group
        assert (await create(vm, group, "client")).group == before.group


def opening(number: int, port: int) -> bytes:
    """The request of a guest for a connection to the first member of its group."""
    fields = encode_fields(
        [(Tag.ADDRESS, bytes(10) + b"\xff\xff\x7f\x4d\x01\x01"), (Tag.PORT, port)]
    )
    return encode_frame(Frame(type=FrameType.OPEN, id=number, flags=FrameFlag.NONE, payload=fields))


async def test_a_guest_reaches_the_runs_of_its_group_and_no_other(
    vm: VmClient, world: VmWorld
) -> None:
    group, other = a_group(), a_group()
    web = await create(vm, group, "web", sys.executable, "-c", SERVER, start=True)
    client = await create(vm, group, "client", start=True)
    stranger = await create(vm, other, "client", start=True)
    alone = await vm.create(*FOREVER)
    async with vm.attach(pb.AttachStart(run=web.run_id, replay=True)) as terminal:
        port = int(await terminal.until(b"\n"))
        for run in (client, stranger, alone):
            await vm.until(run.run_id, Run.STATE_RUNNING)
        for run in (stranger, alone):
            for number in range(1, 50):
                await world.host.machines[run.run_id].forge(opening(number, port))
            out, _, _ = await vm.execute(run.run_id, "echo", "alive")
            assert out == b"alive\n"

        await world.host.machines[client.run_id].forge(opening(1, port))
        await terminal.until(b"reached\n")

    assert (await vm.logs(web.run_id)).count(b"reached") == 1


async def test_what_a_guest_asked_for_ends_with_its_run(vm: VmClient, world: VmWorld) -> None:
    group = a_group()
    await create(vm, group, "web")  # never started
    client = await create(vm, group, "client", start=True)
    await vm.until(client.run_id, Run.STATE_RUNNING)
    for number in range(1, 20):
        await world.host.machines[client.run_id].forge(opening(number, 80))

    await vm.stub.RemoveRun(pb.RemoveRunRequest(run=client.run_id, force=True))
    await eventually(lambda: client.run_id not in world.host.machines)
