"""A microVM that is lost: before its workload it is booted once more, afterwards never."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis.status import from_status
from services.core.errors import VmFailed
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
