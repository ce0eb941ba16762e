"""Runs that are suspended: what becomes of their program, clients, ports and volumes."""

import asyncio
from pathlib import Path

import pytest
from lns.types.v1.run_plan_pb2 import PortMapping, RunPlan, VolumeMount
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import (
    InUse,
    RunNotSuspendable,
    RunStateConflict,
    SavedMachineUnusable,
    VmFailed,
)
from services.vm_runner.storage.bind_host import BindSource
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
COUNT = 'n=0; while read x; do n=$((n+1)); echo "line $n: $x"; done; exit 7'


async def suspend(vm: VmClient, run: Run) -> Run:
    return (await vm.stub.SuspendRun(pb.SuspendRunRequest(run=run.run_id))).run


async def resume(vm: VmClient, run: Run) -> Run:
    return (await vm.stub.ResumeRun(pb.ResumeRunRequest(run=run.run_id))).run


async def counting(vm: VmClient, **more: object) -> Run:
    """A run that counts its input's lines, and runs."""
    run = await vm.create(
        "sh",
        "-c",
        COUNT,
        options=run_pb2.RunOptions(stdin=True),
        **more,  # type: ignore[arg-type]  # of `create`
    )
    return await vm.until(run.run_id, Run.STATE_RUNNING)


def attach(run: Run) -> pb.AttachStart:
    return pb.AttachStart(run=run.run_id, replay=True, stdin=True)


async def test_a_suspended_run_has_no_machine_and_goes_on_where_it_was(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        async with vm.attach(attach(run)) as terminal:
            await terminal.send(stdin=b"before\n")
            await terminal.until(b"line 1: before\n")
            suspended = await suspend(vm, run)

            assert suspended.state == Run.STATE_SUSPENDED
            assert suspended.vmm_pid == 0
            assert not world.host.machines
            assert (await suspend(vm, run)).state == Run.STATE_SUSPENDED, "once is enough"

            assert (await resume(vm, run)).state == Run.STATE_RUNNING
            await terminal.send(stdin=b"after\n")  # the client that was there all the time
            await terminal.until(b"line 2: after\n")
            await terminal.send(stdin_closed=pb.StdinClosed())
            _, _, status = await terminal.rest()
        assert status.code == 7
        assert not list((world.home / "runs" / run.run_id).glob("suspended.*"))


async def test_it_outlives_its_service(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await suspend(vm, run)
    async with vm_service(world) as vm:
        assert (await vm.get(run.run_id)).state == Run.STATE_SUSPENDED
        async with vm.attach(attach(run)) as terminal:
            await resume(vm, run)
            await terminal.send(stdin=b"later\n")
            await terminal.until(b"line 1: later\n")
            await terminal.send(stdin_closed=pb.StdinClosed())
            _, _, status = await terminal.rest()
        assert status.code == 7


async def test_a_paused_run_is_suspended_as_well(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))

        assert (await suspend(vm, run)).state == Run.STATE_SUSPENDED
        assert (await resume(vm, run)).state == Run.STATE_RUNNING


async def test_what_wants_the_workload_is_refused_with_the_way_out(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await suspend(vm, run)

        for wish in (
            vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id)),
            vm.stub.KillRun(pb.KillRunRequest(run=run.run_id)),
            vm.stub.StartRun(pb.StartRunRequest(run=run.run_id)),
            vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id)),
            vm.execute(run.run_id, "true"),
        ):
            with pytest.raises(RunStateConflict, match="suspended"):
                await wish
        assert [one.run_id for one in (await vm.stub.ListRuns(pb.ListRunsRequest())).runs] == [
            run.run_id
        ], "it is shown among those that run"


@pytest.mark.parametrize("restarted", [False, True])
async def test_stop_ends_it_for_good_and_start_begins_anew(world: VmWorld, restarted: bool) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await suspend(vm, run)
        if not restarted:
            await _stop_and_start(vm, run)
    if restarted:
        async with vm_service(world) as vm:
            await _stop_and_start(vm, run)


async def _stop_and_start(vm: VmClient, run: Run) -> None:
    stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run
    assert (stopped.state, stopped.exit.code) == (Run.STATE_EXITED, 137)
    await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))


async def test_its_volume_and_port_stay_its_own(world: VmWorld) -> None:
    volume = VolumeMount(kind=VolumeMount.KIND_NAMED, source="data", target="/data")
    port = PortMapping(host_port=0, container_port=80)
    async with vm_service(world) as vm:
        run = await counting(vm, volumes=[volume], ports=[port])
        published = run.ports[0].host_port
        await suspend(vm, run)
        with pytest.raises(InUse):
            await vm.create("true", volumes=[volume])
    async with vm_service(world) as vm:
        with pytest.raises(InUse):
            await vm.create("true", volumes=[volume])
        reader, writer = await asyncio.open_connection("127.0.0.1", published)
        writer.write(b"hello")
        await resume(vm, run)  # until then who connects waits
        assert await reader.read() == b"", "nobody listens in the run"
        writer.close()
        assert (await vm.get(run.run_id)).ports[0].host_port == published


async def test_a_run_with_a_bind_is_refused_and_goes_on(world: VmWorld, tmp_path: Path) -> None:
    bind = VolumeMount(kind=VolumeMount.KIND_BIND, source=str(tmp_path), target="/host")
    world.bind_host.sources[str(tmp_path)] = BindSource(path=tmp_path, is_file=False)
    async with vm_service(world) as vm:
        run = await counting(vm, more=RunPlan(volumes=[bind]))
        with pytest.raises(RunNotSuspendable, match="/host"):
            await suspend(vm, run)
        assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING


async def test_where_it_cannot_be_saved_it_goes_on(
    world: VmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)

        async def fails(state: Path) -> None:
            await machine.pause()
            raise VmFailed("the microVM could not be saved: no room")

        machine = world.host.machines[run.run_id]
        monkeypatch.setattr(machine, "save_whole", fails)
        with pytest.raises(VmFailed, match="no room"):
            await suspend(vm, run)

        assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING
        out, _, _ = await vm.execute(run.run_id, "echo", "here")
        assert out == b"here\n"


async def test_what_another_vmm_saved_is_refused_and_kept(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await suspend(vm, run)
        world.hypervisor.version += 1
        with pytest.raises(SavedMachineUnusable, match="another VMM"):
            await resume(vm, run)
        world.hypervisor.version -= 1

        assert (await resume(vm, run)).state == Run.STATE_RUNNING


async def test_a_crash_before_the_record_leaves_a_paused_run(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        machine = world.host.machines[run.run_id]
        await machine.save_whole(world.home / "runs" / run.run_id / "suspended.state")
        machine.saved = ""
    async with vm_service(world) as vm:
        await eventually(lambda: world.runner.register.find(run.run_id).run.state == "paused")
        assert (await resume(vm, run)).state == Run.STATE_RUNNING


async def test_a_crash_behind_the_record_ends_the_machine_that_was_saved(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        machine = world.host.machines[run.run_id]
        await suspend(vm, run)
    # As if the service had died before it ended the machine.
    world.host.asleep.clear()
    machine.wake(run.run_id)
    machine.saved = f"saved {run.run_id}"
    async with vm_service(world) as vm:
        assert not world.host.machines
        assert (await resume(vm, run)).state == Run.STATE_RUNNING
