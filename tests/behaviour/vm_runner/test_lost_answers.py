"""Calls whose answers are lost: asked again with the same id, they have the same answer."""

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import NameTaken, RunStateConflict, RunUnknown, VolumeUnknown
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_start_whose_answer_was_lost_has_started_the_run_once(
    world: VmWorld, restarted: bool
) -> None:
    async with vm_service(world) as vm:
        run = await vm.create("sh", "-c", "exit 3", start=False)
        request = pb.StartRunRequest(run=run.run_id, request_id="start-1")
        await vm.stub.StartRun(request)
        await vm.ended(run.run_id)
        if not restarted:
            again = (await vm.stub.StartRun(request)).run
    if restarted:
        async with vm_service(world) as vm:
            again = (await vm.stub.StartRun(request)).run
    assert (again.state, again.exit.code) == (Run.STATE_EXITED, 3)


async def test_another_start_is_another_request(vm: VmClient) -> None:
    run = await vm.create("sleep", "1000", start=False)
    await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id, request_id="start-1"))
    with pytest.raises(RunStateConflict):
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id, request_id="start-2"))
    with pytest.raises(RunStateConflict):
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_removal_whose_answer_was_lost_says_what_was_removed(
    world: VmWorld, restarted: bool
) -> None:
    async with vm_service(world) as vm:
        run = await vm.create("true", start=False)
        request = pb.RemoveRunRequest(run=run.name, request_id="remove-1")
        await vm.stub.RemoveRun(request)
        if not restarted:
            again = await vm.stub.RemoveRun(request)
    if restarted:
        async with vm_service(world) as vm:
            again = await vm.stub.RemoveRun(request)
            with pytest.raises(RunUnknown):
                await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.name, request_id="other"))
    assert again.run_id == run.run_id


async def test_a_removal_that_a_crash_came_before_is_done_when_asked_again(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.create("true", start=False)
        await world.runner._around.answered.keep("remove-1", run.run_id)
    async with vm_service(world) as vm:
        await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, request_id="remove-1"))
        with pytest.raises(RunUnknown):
            await vm.get(run.run_id)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_volume_whose_answer_was_lost_is_made_and_removed_once(
    world: VmWorld, restarted: bool
) -> None:
    create = pb.CreateVolumeRequest(name="data", request_id="create-1")
    remove = pb.RemoveVolumeRequest(name="data", request_id="remove-1")
    async with vm_service(world) as vm:
        first = (await vm.stub.CreateVolume(create)).volume
        if not restarted:
            assert (await vm.stub.CreateVolume(create)).volume.create_time == first.create_time
            await vm.stub.RemoveVolume(remove)
            await vm.stub.RemoveVolume(remove)
    if restarted:
        async with vm_service(world) as vm:
            assert (await vm.stub.CreateVolume(create)).volume.create_time == first.create_time
            with pytest.raises(NameTaken):
                await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="data", request_id="c-2"))
            await vm.stub.RemoveVolume(remove)
        async with vm_service(world) as vm:
            await vm.stub.RemoveVolume(remove)
            with pytest.raises(VolumeUnknown):
                await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="data", request_id="r-2"))


async def test_a_request_that_removed_a_volume_does_not_remove_the_next_of_its_name(
    vm: VmClient,
) -> None:
    remove = pb.RemoveVolumeRequest(name="data", request_id="remove-1")
    await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="data"))
    await vm.stub.RemoveVolume(remove)
    await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="data"))
    await vm.stub.RemoveVolume(remove)
    assert (await vm.stub.GetVolume(pb.GetVolumeRequest(name="data"))).volume.name == "data"
