"""Binds of the host's files: looked at before the start, served while the run lives."""

from pathlib import Path

import pytest
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import RequestInvalid, VmFailed
from services.vm_runner.storage.bind_host import BindSource
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
Mount = run_plan_pb2.VolumeMount
FOREVER = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.01; done")
PROJECT = Path("/home/joe/project")


@pytest.fixture(autouse=True)
def project(world: VmWorld) -> None:
    world.bind_host.sources["/project"] = BindSource(path=PROJECT, is_file=False)
    world.bind_host.sources[str(PROJECT)] = world.bind_host.sources["/project"]


def a_bind(source: str = str(PROJECT), target: str = "/work", *, read_only: bool = False) -> Mount:
    return Mount(kind=Mount.KIND_BIND, source=source, target=target, read_only=read_only)


async def notices(vm: VmClient, run: Run) -> list[str]:
    return [event.notice for event in await vm.events(run.run_id) if event.notice]


async def test_binds_are_served_while_the_run_lives(vm: VmClient, world: VmWorld) -> None:
    binds = [a_bind(), a_bind(target="/data", read_only=True)]
    run = await vm.create(*FOREVER, volumes=binds)
    await vm.until(run.run_id, Run.STATE_RUNNING)

    serving = world.bind_host.serving
    assert {name: (bind.source, bind.read_only) for name, bind in serving.items()} == {
        "lns.bind0": (PROJECT, False),
        "lns.bind1": (PROJECT, True),
    }
    ports = world.hypervisor.specs[-1].ports
    assert [(port.name, port.socket) for port in ports] == [
        ("lns.bind0", "bind0.sock"),
        ("lns.bind1", "bind1.sock"),
        ("lns.egress", "egress.sock"),
    ]
    await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
    await eventually(lambda: not serving)


async def test_what_cannot_be_bound_is_reported_before_anything_starts(
    vm: VmClient, world: VmWorld
) -> None:
    with pytest.raises(RequestInvalid, match="/missing cannot be bound"):
        await vm.create("true", volumes=[a_bind(), a_bind("/missing", "/other")])
    with pytest.raises(RequestInvalid, match="at most 16"):
        await vm.create("true", volumes=[a_bind(target=f"/{n}") for n in range(17)])

    assert world.hypervisor.specs == []
    runs = (await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True))).runs
    assert list(runs) == []


async def test_a_link_and_hidden_secrets_are_reported(vm: VmClient, world: VmWorld) -> None:
    names = (".env", ".npmrc", "a.pem", "b.pem", "c.pem", "d.pem")
    world.bind_host.sources["/project"] = BindSource(path=PROJECT, is_file=False, secrets=names)
    run = await vm.create("true", volumes=[a_bind("/project")])

    link, hidden = await notices(vm, run)
    assert link == f"/project is a link: {PROJECT} is bound to /work"
    assert hidden.startswith(f"6 file(s) in {PROJECT} look like secrets and are hidden")
    assert ".env, .npmrc, a.pem, b.pem, c.pem, …" in hidden
    assert "secrets" in hidden
    assert list((await vm.get(run.run_id)).notices) == [link, hidden]


async def test_a_bind_that_cannot_be_served_fails_the_run_and_ends_its_machine(
    vm: VmClient, world: VmWorld
) -> None:
    world.bind_host.fail_next = VmFailed(f"{PROJECT} cannot be served: no room")
    run = await vm.create("true", volumes=[a_bind()])
    ended = await vm.ended(run.run_id)

    assert ended.state == Run.STATE_FAILED
    assert "no room" in ended.error.message
    assert world.host.machines == {}


async def test_a_machine_that_died_is_reported_and_not_a_missing_client(
    vm: VmClient, world: VmWorld
) -> None:
    world.hypervisor.dying = 1
    world.bind_host.fail_next = VmFailed(f"{PROJECT} cannot be served: Connection refused")
    run = await vm.create("true", volumes=[a_bind()])

    assert (await vm.ended(run.run_id)).exit.code == 0  # it was booted once more
    (again,) = await notices(vm, run)
    assert "the agent was killed by SIGKILL" in again


async def test_the_next_service_goes_on_serving(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.create(*FOREVER, volumes=[a_bind()])
        await vm.until(run.run_id, Run.STATE_RUNNING)
    world.bind_host.serving.clear()  # as if it had died in the meantime
    world.bind_host.sources.clear()  # and what it served were gone

    async with vm_service(world) as vm:
        await eventually(lambda: "lns.bind0" in world.bind_host.serving)
        assert world.bind_host.serving["lns.bind0"].source == PROJECT
        assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING
        await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))


async def test_a_lost_run_whose_folder_is_gone_stays_lost(world: VmWorld) -> None:
    policy = run_pb2.RestartPolicy(mode=run_pb2.RestartPolicy.MODE_ALWAYS)
    async with vm_service(world) as vm:
        run = await vm.create(
            *FOREVER, volumes=[a_bind()], options=run_pb2.RunOptions(restart=policy)
        )
        await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.close()
    world.bind_host.sources.clear()

    async with vm_service(world) as vm:
        assert (await vm.get(run.run_id)).state == Run.STATE_LOST
        world.bind_host.sources[str(PROJECT)] = BindSource(path=PROJECT, is_file=False)
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        await vm.until(run.run_id, Run.STATE_RUNNING)
        await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))


async def test_a_bind_that_is_lost_is_reported_and_recorded(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.create(*FOREVER, volumes=[a_bind(), a_bind(target="/data")])
        await vm.until(run.run_id, Run.STATE_RUNNING)
        world.bind_host.end("lns.bind1", "was killed by SIGKILL")
        async for event in vm.watch(run.run_id):
            if event.notice:
                break
        assert event.notice == (
            f"{PROJECT} is bound to /data no longer, until the run is started again:"
            " its file server was killed by SIGKILL"
        )
        now = await vm.get(run.run_id)
        assert (now.state, list(now.notices)) == (Run.STATE_RUNNING, [event.notice])

    async with vm_service(world) as vm:
        assert list((await vm.get(run.run_id)).notices) == [event.notice]
        await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        assert list((await vm.get(run.run_id)).notices) == []
        await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))


async def test_binds_that_end_with_their_machine_are_not_lost(vm: VmClient, world: VmWorld) -> None:
    run = await vm.create(*FOREVER, volumes=[a_bind()])
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.machines[run.run_id].kill()
    world.bind_host.end("lns.bind0", "ended with status 0")

    ended = await vm.ended(run.run_id)
    assert (ended.state, list(ended.notices)) == (Run.STATE_FAILED, [])
