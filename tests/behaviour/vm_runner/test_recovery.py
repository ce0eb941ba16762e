"""What a service finds when it comes back."""

from pathlib import Path

import pytest
from lns.types.v1.run_plan_pb2 import VolumeMount
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import InUse, RunStateConflict
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
Options = run_pb2.RunOptions
Restart = run_pb2.RestartPolicy


def attach(run: Run) -> pb.AttachStart:
    return pb.AttachStart(run=run.run_id, replay=True, stdin=True)


def cut(world: VmWorld) -> None:
    """Breaks every connection to a guest, as the death of a service does."""
    for machine in world.host.machines.values():
        machine.disconnect()


async def counting(vm: VmClient, *, options: Options | None = None) -> Run:
    """A run that counts its input's lines."""
    script = 'n=0; while read x; do n=$((n+1)); echo "line $n: $x"; done; exit 7'
    return await vm.shell(script, options=options or Options(stdin=True))


async def test_a_live_run_is_adopted_and_its_log_goes_on_without_a_gap(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        async with vm.attach(attach(run)) as terminal:
            await terminal.send(stdin=b"before\n")
            await terminal.until(b"line 1: before\n")
    cut(world)
    async with vm_service(world) as vm:
        adopted = await vm.get(run.run_id)
        async with vm.attach(attach(run)) as terminal:
            await terminal.send(stdin=b"after\n")
            await terminal.send(stdin_closed=pb.StdinClosed())
            out, _, status = await terminal.rest()
        assert adopted.state == Run.STATE_RUNNING
        assert adopted.vmm_pid > 0
        assert (out, status.code) == (b"line 1: before\nline 2: after\n", 7)
        assert await vm.logs(run.run_id) == out


async def test_what_a_run_wrote_while_nobody_listened_is_not_lost(
    world: VmWorld, tmp_path: Path
) -> None:
    async with vm_service(world) as vm:
        run = await vm.shell(
            f"echo up; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; "
            f"seq 1 20000; echo > {tmp_path}/done; exit 3"
        )
        async with vm.attach(attach(run)) as terminal:
            await terminal.until(b"up")
    cut(world)
    (tmp_path / "go").touch()
    await eventually((tmp_path / "done").exists)
    async with vm_service(world) as vm:
        ended = await vm.ended(run.run_id)
        assert (ended.state, ended.exit.code) == (Run.STATE_EXITED, 3)
        expected = b"up\n" + b"".join(b"%d\n" % n for n in range(1, 20001))
        assert await vm.logs(run.run_id) == expected


async def test_a_run_that_was_booting_goes_on_to_run(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.shell("echo hello; exit 4")
        await eventually(lambda: bool(world.host.machines))
    cut(world)
    async with vm_service(world) as vm:
        out, _, status = await vm.output(run.run_id)
        assert (out, status.code) == (b"hello\n", 4)


async def test_a_machine_that_died_meanwhile_is_a_lost_run(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.close()
    async with vm_service(world) as vm:
        lost = await vm.get(run.run_id)
        assert lost.state == Run.STATE_LOST
        assert "no service watched" in lost.error.message
        assert lost.vmm_pid == 0
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        await vm.until(run.run_id, Run.STATE_RUNNING)


async def test_a_lost_run_is_started_again_where_its_policy_says_so(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        policy = Restart(mode=Restart.MODE_ALWAYS)
        run = await counting(vm, options=Options(stdin=True, restart=policy))
        await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.close()
    async with vm_service(world) as vm:
        async for event in vm.watch(run.run_id):
            again = event.state_changed
            if again.state == Run.STATE_RUNNING and again.restart_count:
                break
        assert again.restart_count == 1


async def test_a_run_that_was_being_stopped_is_not_started_again(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        policy = Restart(mode=Restart.MODE_ALWAYS)
        run = await vm.shell(
            "trap '' TERM; echo up; while :; do sleep 0.01; done", options=Options(restart=policy)
        )
        async with vm.attach(attach(run)) as terminal:
            await terminal.until(b"up")
            stopping = vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
            await vm.until(run.run_id, Run.STATE_STOPPING)
            stopping.cancel()
    await world.host.close()
    async with vm_service(world) as vm:
        assert (await vm.get(run.run_id)).state == Run.STATE_LOST


async def test_a_paused_run_stays_paused(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await vm.until(run.run_id, Run.STATE_RUNNING)
        await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))
    cut(world)
    async with vm_service(world) as vm:
        assert (await vm.get(run.run_id)).state == Run.STATE_PAUSED
        await vm.stub.ResumeRun(pb.ResumeRunRequest(run=run.run_id))
        async with vm.attach(attach(run)) as terminal:
            await terminal.send(stdin=b"x\n")
            await terminal.until(b"line 1: x\n")


async def test_a_machine_that_was_paused_unrecorded_is_found_paused(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.machines[run.run_id].pause()
    async with vm_service(world) as vm:
        await vm.until(run.run_id, Run.STATE_PAUSED)


async def test_a_machine_that_outlived_its_recorded_end_is_ended(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await counting(vm)
        await vm.until(run.run_id, Run.STATE_RUNNING)
    record = world.home / "runs" / run.run_id / "run.json"
    record.write_text(record.read_text().replace("STATE_RUNNING", "STATE_EXITED"))
    async with vm_service(world):
        await eventually(lambda: not world.host.machines)


DAMAGE = {
    "cut off": lambda record: record[:40],
    "no JSON": lambda record: b"\0" * 64,
    "nested": lambda record: b"[" * 200_000,
    "a later version": lambda record: record.replace(b'"version": 1', b'"version": 2'),
    "of another run": lambda record: record.replace(b'"run_id": "', b'"run_id": "f'),
    "wrong types": lambda record: record.replace(b'"run": {', b'"run": 7, "x": {'),
    "a state of a later version": lambda record: record.replace(
        b"STATE_RUNNING", b"STATE_LEVITATING"
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_live_run_whose_record_cannot_be_read_is_shown_held_and_stopped(
    world: VmWorld, damage: str
) -> None:
    mount = VolumeMount(kind=VolumeMount.KIND_NAMED, source="data", target="/data")
    async with vm_service(world) as vm:
        run = await vm.create("sleep", "1000", volumes=[mount])
        await vm.until(run.run_id, Run.STATE_RUNNING)
    cut(world)
    path = world.home / "runs" / run.run_id / "run.json"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    record = path.read_bytes()
    async with vm_service(world) as vm:
        (shown,) = (await vm.stub.ListRuns(pb.ListRunsRequest())).runs
        assert (shown.run_id, shown.state) == (run.run_id, Run.STATE_UNKNOWN)
        assert shown.vmm_pid == world.host.machines[run.run_id].pid
        assert "cannot be read" in shown.error.message
        with pytest.raises(InUse):
            await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="data"))
        with pytest.raises(InUse):
            await vm.create("true", volumes=[mount])
        with pytest.raises(RunStateConflict):
            await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))
        with pytest.raises(RunStateConflict):
            await vm.stub.RenameRun(pb.RenameRunRequest(run=run.run_id, name="other"))

        stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run
        assert (stopped.state, stopped.vmm_pid) == (Run.STATE_UNKNOWN, 0)
        assert world.host.machines == {}
        assert path.read_bytes() == record
        await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="data"))
        await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))
    assert not path.exists()


async def test_an_ended_run_whose_record_cannot_be_read_is_shown_and_left_alone(
    world: VmWorld,
) -> None:
    async with vm_service(world) as vm:
        run = await vm.create("true", start=False)
        other = await vm.create("true", start=False)
    path = world.home / "runs" / run.run_id / "run.json"
    path.write_text("{")
    async with vm_service(world) as vm:
        assert (await vm.get(run.run_id)).state == Run.STATE_UNKNOWN
        with pytest.raises(RunStateConflict, match="unknown"):
            await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        assert (await vm.get(other.run_id)).state == Run.STATE_CREATED
        assert (await vm.events(run.run_id))[-1].state_changed.state == Run.STATE_UNKNOWN
    assert path.read_text() == "{"


async def test_a_policy_that_the_last_service_did_not_come_to_is_followed_by_the_next(
    world: VmWorld,
) -> None:
    always = Options(restart=Restart(mode=Restart.MODE_ALWAYS))
    async with vm_service(world) as vm:
        run = await vm.shell("sleep 1000", options=always)
        await vm.until(run.run_id, Run.STATE_RUNNING)
    path = world.home / "runs" / run.run_id / "run.json"
    path.write_text(path.read_text().replace("STATE_RUNNING", "STATE_EXITED"))
    await world.host.close()
    async with vm_service(world) as vm:
        async for event in vm.watch(run.run_id):
            if event.state_changed.state == Run.STATE_RUNNING:
                break
        assert event.state_changed.restart_count == 1


async def test_a_removal_that_a_crash_cut_short_is_finished(world: VmWorld) -> None:
    left = world.home / "runs" / ".tmp-0123"
    left.mkdir(parents=True)
    (left / "writable.img").touch()
    async with vm_service(world):
        assert not left.exists()


async def test_the_same_request_after_a_restart_is_the_same_run(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.create("true", start=False, request_id="r")
    async with vm_service(world) as vm:
        assert (await vm.create("true", start=False, request_id="r")).run_id == run.run_id


async def test_everything_of_a_record_survives(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.shell(
            "exit 3",
            options=Options(
                name="kept",
                tty=True,
                stdin=True,
                restart=Restart(mode=Restart.MODE_ON_FAILURE, max_restarts=1),
                stop_signal="INT",
                pids_limit=7,
                log_limit_bytes=1 << 20,
            ),
        )
        before = await vm.ended(run.run_id)
    async with vm_service(world) as vm:
        assert await vm.get("kept") == before
