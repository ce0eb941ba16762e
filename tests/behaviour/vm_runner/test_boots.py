"""A microVM that is lost: before its workload it is booted once more, afterwards never."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis.status import from_status
from services.core.errors import VmFailed
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
FOREVER = "while :; do sleep 0.01; done"


async def notices(vm: VmClient, run: Run) -> list[str]:
    return [event.notice for event in await vm.events(run.run_id) if event.notice]


async def test_a_vmm_that_dies_before_the_workload_is_started_once_more(
    vm: VmClient, world: VmWorld
) -> None:
    world.hypervisor.dying = 1
    run = await vm.shell("echo once; exit 3")
    out, _, status = await vm.output(run.run_id)

    assert (out, status.code) == (b"once\n", 3)
    (notice,) = await notices(vm, run)
    assert "was killed by SIGKILL" in notice
    assert "trying once more" in notice
    assert (await vm.get(run.run_id)).restart_count == 0
    assert len(world.hypervisor.specs) == 2


async def test_a_guest_that_never_greets_is_started_once_more(world: VmWorld) -> None:
    world.limits = replace(world.limits, boot_seconds=0.5)
    world.hypervisor.mute = 1
    async with vm_service(world) as vm:
        run = await vm.shell("echo once")
        out, _, _ = await vm.output(run.run_id)
        (notice,) = await notices(vm, run)

    assert out == b"once\n"
    assert "did not answer" in notice
    assert world.host.machines.keys() <= {run.run_id}


async def test_a_second_loss_fails_the_run_with_what_is_known(vm: VmClient, world: VmWorld) -> None:
    world.hypervisor.dying = 2
    run = await vm.shell("echo never")
    failed = await vm.ended(run.run_id)

    assert failed.state == Run.STATE_FAILED
    assert "the agent was killed by SIGKILL" in failed.error.message
    assert from_status(failed.error).metadata["details"] == "the agent's console"
    assert len(world.hypervisor.specs) == 2
    assert await vm.logs(run.run_id) == b""


async def test_a_start_that_fails_for_a_reason_is_not_tried_again(
    vm: VmClient, world: VmWorld
) -> None:
    world.hypervisor.fail_next = VmFailed("QEMU does not like it")
    run = await vm.shell("true")
    failed = await vm.ended(run.run_id)

    assert failed.error.message == "QEMU does not like it"
    assert len(world.hypervisor.specs) == 1


async def test_what_may_have_begun_is_not_begun_again(
    vm: VmClient, world: VmWorld, tmp_path: Path
) -> None:
    traces = tmp_path / "traces"
    run = await vm.shell(f"echo x >> {traces}; {FOREVER}")
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.machines[run.run_id].kill()
    failed = await vm.ended(run.run_id)

    assert failed.state == Run.STATE_FAILED
    assert len(world.hypervisor.specs) == 1
    assert await notices(vm, run) == []
    assert not traces.exists() or traces.read_text() == "x\n"


async def test_a_run_that_an_earlier_service_started_is_not_begun_again(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.shell(FOREVER)
        await vm.until(run.run_id, Run.STATE_RUNNING)
    machine = world.host.machines[run.run_id]
    await machine.pause()
    async with vm_service(world) as vm:
        await machine.kill()
        failed = await vm.ended(run.run_id)

    assert failed.state == Run.STATE_FAILED
    assert len(world.hypervisor.specs) == 1


@pytest.mark.parametrize("how", ["stop", "remove"])
async def test_a_stopped_boot_is_not_tried_again(world: VmWorld, how: str) -> None:
    world.hypervisor.mute = 1
    async with vm_service(world) as vm:
        run = await vm.shell("echo never")
        async with asyncio.timeout(5):
            if how == "stop":
                await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
            else:
                await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))

    assert len(world.hypervisor.specs) <= 1
    assert not world.host.machines


@pytest.fixture
def one_by_one(world: VmWorld) -> VmWorld:
    """A world in which one machine boots at a time, and the first one hangs."""
    world.limits = replace(world.limits, boots_at_once=1)
    world.hypervisor.mute = 1
    return world


async def booting(vm: VmClient, world: VmWorld) -> Run:
    """Starts a run whose machine has been started and hangs."""
    run = await vm.shell("echo first")
    await eventually(lambda: run.run_id in world.host.machines)
    return run


async def test_no_more_machines_boot_at_once_than_may(one_by_one: VmWorld) -> None:
    world = one_by_one
    async with vm_service(world) as vm:
        first = await booting(vm, world)
        others = [await vm.shell(f"echo {number}") for number in range(5)]
        assert len(world.hypervisor.specs) == 1
        states = [(await vm.get(run.run_id)).state for run in others]
        assert set(states) == {Run.STATE_STARTING}

        await world.host.machines[first.run_id].resume()
        outputs = [(await vm.output(run.run_id))[0] for run in (first, *others)]

    assert outputs == [b"first\n", *(b"%d\n" % number for number in range(5))]
    in_turn = [spec.run_id for spec in world.hypervisor.specs]
    assert in_turn == [first.run_id, *(run.run_id for run in others)]


async def test_a_boot_that_fails_leaves_its_place(one_by_one: VmWorld) -> None:
    world = one_by_one
    async with vm_service(world) as vm:
        first = await booting(vm, world)
        second = await vm.shell("echo second")
        world.hypervisor.fail_next = VmFailed("QEMU does not like it")
        third = await vm.shell("echo third")
        await vm.stub.StopRun(pb.StopRunRequest(run=first.run_id))

        assert (await vm.ended(second.run_id)).error.message == "QEMU does not like it"
        assert (await vm.output(third.run_id))[0] == b"third\n"


@pytest.mark.parametrize("how", ["stop", "remove"])
async def test_a_run_that_waits_to_boot_ends_when_it_is_stopped(
    one_by_one: VmWorld, how: str
) -> None:
    world = one_by_one
    async with vm_service(world) as vm:
        first = await booting(vm, world)
        waiting = await vm.shell("echo never")
        last = await vm.shell("echo last")
        if how == "stop":
            stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=waiting.run_id))).run
            assert (stopped.state, stopped.exit.code) == (Run.STATE_EXITED, 137)
        else:
            await vm.stub.RemoveRun(pb.RemoveRunRequest(run=waiting.run_id, force=True))
        assert len(world.hypervisor.specs) == 1

        await world.host.machines[first.run_id].resume()
        assert (await vm.output(last.run_id))[0] == b"last\n"

    assert waiting.run_id not in {spec.run_id for spec in world.hypervisor.specs}


async def test_a_run_that_waited_when_the_service_ended_is_booted_by_the_next(
    one_by_one: VmWorld,
) -> None:
    world = one_by_one
    async with vm_service(world) as vm:
        first = await booting(vm, world)
        waiting = await vm.shell("echo once")
    assert world.host.machines.keys() == {first.run_id}
    await world.host.machines[first.run_id].resume()
    async with vm_service(world) as vm:
        assert (await vm.output(waiting.run_id))[0] == b"once\n"
        assert (await vm.get(waiting.run_id)).restart_count == 0
