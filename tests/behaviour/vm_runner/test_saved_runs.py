"""Snapshots of runs: what they are of, who may have one, and that one is whole or not there."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from lns.types.v1 import run_plan_pb2
from lns.types.v1.run_plan_pb2 import Policy, PortMapping, RunPlan, ValueOrigin, VolumeMount
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis import run_plan_messages
from services.core.errors import (
    CapacityExhausted,
    NameTaken,
    RequestInvalid,
    RunNotSnapshottable,
    RunStateConflict,
    SnapshotUnknown,
    VmFailed,
)
from services.vm_runner.adapters import saved_run_files
from services.vm_runner.adapters.saved_run_files import SavedDraftFiles
from services.vm_runner.channel import session as session_module
from services.vm_runner.storage.bind_host import BindSource
from tests.fakes.hypervisor import FakeMachine
from tests.support.runs import DIGEST, a_plan
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
WAITS = "while read x; do echo $x; done"


async def waiting(vm: VmClient, **more: Any) -> Run:
    """A run that says what it is told."""
    options = run_pb2.RunOptions(name="origin", stdin=True)
    run = await vm.create("sh", "-c", WAITS, options=options, **more)
    return await vm.until(run.run_id, Run.STATE_RUNNING)


async def snapshot(
    vm: VmClient, name: str = "", *, run: str = "origin", request_id: str = ""
) -> run_pb2.Snapshot:
    request = pb.SnapshotRunRequest(run=run, name=name, request_id=request_id)
    return (await vm.stub.SnapshotRun(request)).snapshot


async def listed(vm: VmClient) -> list[str]:
    response = await vm.stub.ListSnapshots(pb.ListSnapshotsRequest())
    return [one.run.name for one in response.snapshots]


async def fork(vm: VmClient, name: str, plan: RunPlan | None = None, **fields: Any) -> Run:
    own = run_plan_messages.format_run_plan(a_plan("true"))
    own.MergeFrom(plan or RunPlan())
    request = pb.CreateRunRequest(plan=own, from_snapshot=name, **fields)
    return (await vm.stub.CreateRun(request)).run


def kept(world: VmWorld) -> list[str]:
    return [path.name for path in (world.home / "saved").iterdir()]


async def echoes(vm: VmClient, run: Run) -> bool:
    """Whether the program of a run does what it does."""
    async with vm.attach(pb.AttachStart(run=run.run_id, stdin=True)) as terminal:
        await terminal.send(stdin=b"are you there\n")
        await terminal.until(b"are you there\n")
    return True


async def test_a_snapshot_names_run_image_and_plan_and_its_run_goes_on(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await waiting(vm)
        made = await snapshot(vm, "warm")

        assert (made.run.name, made.run.run_id, made.run.run_name) == ("warm", run.run_id, "origin")
        assert made.image_digest == DIGEST
        assert made.run.plan == run.plan
        assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING
        assert await echoes(vm, run)
        found = await vm.stub.GetSnapshot(pb.GetSnapshotRequest(snapshot="warm"))
        assert found.snapshot == made

    async with vm_service(world) as vm:
        assert await listed(vm) == ["warm"], "it outlives its service"
        assert f"saved-{made.id}" in world.images.leased, "its image is not pruned"
        await vm.stub.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot=made.id[:8]))
        assert await listed(vm) == []
        assert kept(world) == []
        assert f"saved-{made.id}" not in world.images.leased


async def test_names_are_chosen_and_unique_and_a_request_makes_one(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        await waiting(vm)
        names = [(await snapshot(vm)).run.name for _ in range(2)]
        assert names == ["origin", "origin-2"]
        with pytest.raises(NameTaken, match="origin"):
            await snapshot(vm, "origin")
        with pytest.raises(RequestInvalid, match="name of a snapshot"):
            await snapshot(vm, "not/this")
        once = await asyncio.gather(*(snapshot(vm, "one", request_id="r1") for _ in range(3)))
        assert len({one.id for one in (*once, await snapshot(vm, "one", request_id="r1"))}) == 1


async def test_beyond_the_room_for_them_a_further_one_is_refused(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        await waiting(vm)
        await snapshot(vm, "first")
        world.runner.saved.budget_bytes = 1
        with pytest.raises(CapacityExhausted) as refused:
            await snapshot(vm, "second")
        assert "lns snapshot rm" in refused.value.hint
        assert await listed(vm) == ["first"], "none goes to make room"
        assert world.runner.saved.describe() == "1 snapshots of runs take 0 of 0 MiB"


@pytest.mark.parametrize("what", ["bind", "volume", "group", "paused", "ended"])
async def test_what_cannot_be_had_twice_is_refused_with_words(
    world: VmWorld, tmp_path: Path, what: str
) -> None:
    mounts = {
        "bind": VolumeMount(kind=VolumeMount.KIND_BIND, source=str(tmp_path), target="/host"),
        "volume": VolumeMount(kind=VolumeMount.KIND_NAMED, source="data", target="/data"),
    }
    world.bind_host.sources[str(tmp_path)] = BindSource(path=tmp_path, is_file=False)
    group = run_pb2.RunGroup(id="ab" * 16, name="team", members=["one", "two"])
    more: dict[str, Any] = {"group": group, "member": "one"} if what == "group" else {}
    if what in mounts:
        more = {"more": RunPlan(volumes=[mounts[what]])}
    async with vm_service(world) as vm:
        run = await waiting(vm, **more)
        if what == "paused":
            await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))
        if what == "ended":
            await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
        states = (what in ("paused", "ended")) and RunStateConflict
        with pytest.raises(states or RunNotSnapshottable) as refused:
            await snapshot(vm, run=run.run_id)
        assert refused.value.hint
        assert kept(world) == []


async def test_a_machine_with_an_agent_of_an_earlier_version_is_refused_and_goes_on(
    world: VmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vm_service(world) as vm:
        run = await waiting(vm)
        monkeypatch.setattr(session_module, "_WITHOUT_FREEZE", {"3"})
        with pytest.raises(RunNotSnapshottable) as refused:
            await snapshot(vm)
        assert refused.value.hint == "`lns restart origin` starts it anew"
        assert await echoes(vm, run)


async def _fails(*_: Any, **__: Any) -> Any:
    raise VmFailed("it cannot be done")


def _is_full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


STEPS: dict[str, Callable[[pytest.MonkeyPatch, VmWorld], None]] = {
    "the machine is written": lambda patch, _: patch.setattr(FakeMachine, "save_whole", _fails),
    "the disk is copied": lambda patch, _: patch.setattr(saved_run_files, "copy_sparse", _is_full),
    "the memory gets a file": lambda patch, _: patch.setattr(
        SavedDraftFiles, "make_memory", _fails
    ),
    "a VMM takes it up": lambda patch, world: patch.setattr(world.hypervisor, "resume", _fails),
    "it is saved again": lambda patch, _: patch.setattr(FakeMachine, "save", _fails),
    "it is recorded": lambda patch, _: patch.setattr(saved_run_files, "_format", _is_full),
}


@pytest.mark.parametrize("step", STEPS)
async def test_where_a_step_fails_nothing_is_left_and_the_run_goes_on(
    world: VmWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with vm_service(world) as vm:
        run = await waiting(vm)
        with monkeypatch.context() as patch:
            STEPS[step](patch, world)
            with pytest.raises((VmFailed, CapacityExhausted)):
                await snapshot(vm, "half")

        assert await listed(vm) == []
        assert kept(world) == []
        assert not [one for one in world.images.leased if one.startswith("saved-")]
        assert list(world.host.machines) == [run.run_id], "no machine is left"
        assert await echoes(vm, run)
        assert (await snapshot(vm, "half")).run.name == "half", "its name is free"


HELD = ("save_whole", "save")


@pytest.mark.parametrize("step", HELD)
async def test_a_service_that_ends_in_the_middle_leaves_nothing(
    world: VmWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached = asyncio.Event()
    real: Callable[[FakeMachine, Path], Awaitable[None]] = getattr(FakeMachine, step)

    async def stuck(machine: FakeMachine, state: Path) -> None:
        await real(machine, state)
        reached.set()
        await asyncio.get_running_loop().create_future()

    async with vm_service(world) as vm:
        run = await waiting(vm)
        with monkeypatch.context() as patch:
            patch.setattr(FakeMachine, step, stuck)
            making = asyncio.create_task(snapshot(vm, "half"))
            await reached.wait()
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    async with vm_service(world) as vm:
        assert await listed(vm) == []
        assert kept(world) == []
        assert list(world.host.machines) == [run.run_id]
        assert await echoes(vm, run)


async def test_what_a_killed_service_left_is_swept_with_its_lease(world: VmWorld) -> None:
    half = world.home / "saved" / ".tmp-abcd"
    half.mkdir(parents=True)
    (half / "stream").write_text("half")
    await world.images.lease("saved-abcd", DIGEST)
    broken = world.home / "saved" / ("12" * 16)
    broken.mkdir()
    async with vm_service(world) as vm:
        assert await listed(vm) == []
        assert kept(world) == [broken.name], "what cannot be read is the user's to look at"
        await asyncio.sleep(0)
        assert world.images.leased == {}


async def test_a_fork_has_the_program_of_the_snapshot_and_a_policy_of_its_own(
    world: VmWorld,
) -> None:
    denies = Policy(default_verdict="deny")
    async with vm_service(world) as vm:
        origin = await waiting(vm, more=RunPlan(policy=denies))
        await snapshot(vm, "warm")
        port = PortMapping(host_port=0, container_port=80)
        own = RunPlan(ports=[port], labels={"try": "1"}, policy=Policy(default_verdict="allow"))

        run = await fork(vm, "warm", own)
        await vm.until(run.run_id, Run.STATE_RUNNING)

        assert (run.plan.argv, run.plan.image) == (origin.plan.argv, origin.plan.image)
        assert run.name == "warm"
        assert run.options.stdin, "its input is the snapshot's"
        assert run.plan.policy.default_verdict == "allow"
        assert run.plan.labels == {"try": "1"}
        assert run.ports[0].host_port
        assert await echoes(vm, run)
        again = await fork(vm, "warm", own, keep_policy=True)
        assert again.plan.policy.default_verdict == "deny", "it was asked for"
        assert world.images.leased[run.run_id] == DIGEST


async def test_ports_that_an_artifact_wished_for_are_those_of_the_user_now(world: VmWorld) -> None:
    wish = ValueOrigin(path="ports", kind=run_plan_pb2.ORIGIN_KIND_AGENT, detail="an agent")
    said = ValueOrigin(path="ports", kind=run_plan_pb2.ORIGIN_KIND_FLAG)
    async with vm_service(world) as vm:
        await waiting(vm, more=RunPlan(origins=[wish]))
        await snapshot(vm, "warm")
        run = await fork(vm, "warm", RunPlan(origins=[said]))
        assert [one for one in run.plan.origins if one.path == "ports"] == [said]


async def test_a_fork_that_ended_begins_anew_with_what_it_wrote(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        await waiting(vm)
        await snapshot(vm, "warm")
        run = await fork(vm, "warm")
        running = await vm.until(run.run_id, Run.STATE_RUNNING)
        assert running.boot_times.way == "fork"
        disk = world.home / "runs" / run.run_id / "writable.img"
        disk.write_bytes(b"of its own")
        await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
        await vm.stub.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot="warm"))

        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        assert await echoes(vm, run)
        assert (await vm.get(run.run_id)).boot_times.way == "cold"
        assert disk.read_bytes() == b"of its own"


async def test_what_a_fork_cannot_have_is_refused(world: VmWorld) -> None:
    volume = VolumeMount(kind=VolumeMount.KIND_NAMED, source="data", target="/data")
    async with vm_service(world) as vm:
        await waiting(vm)
        await snapshot(vm, "warm")
        with pytest.raises(RequestInvalid, match="/data"):
            await fork(vm, "warm", RunPlan(volumes=[volume]))
        with pytest.raises(SnapshotUnknown, match="cold"):
            await fork(vm, "cold")


async def test_a_snapshot_of_another_vmm_fails_the_fork_and_is_kept(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        await waiting(vm)
        await snapshot(vm, "warm")
        world.hypervisor.version += 1
        failed = await vm.ended((await fork(vm, "warm")).run_id)
        assert failed.state == Run.STATE_FAILED
        assert "another VMM" in failed.error.message
        assert await listed(vm) == ["warm"]


async def test_a_machine_that_is_lost_before_the_program_goes_on_is_had_again(
    world: VmWorld,
) -> None:
    async with vm_service(world) as vm:
        await waiting(vm)
        await snapshot(vm, "warm")
        world.hypervisor.dying = 1
        run = await fork(vm, "warm")
        running = await vm.until(run.run_id, Run.STATE_RUNNING)
        assert running.boot_times.way == "fork"
