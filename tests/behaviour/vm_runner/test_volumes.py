"""Named volumes: made, held, shared by readers, removed."""

import pytest
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import (
    CapacityExhausted,
    InUse,
    NameTaken,
    RequestInvalid,
    RunStateConflict,
    VolumeUnknown,
)
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
Mount = run_plan_pb2.VolumeMount
FOREVER = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.01; done")


def a_mount(name: str = "data", *, read_only: bool = False, target: str = "/data") -> Mount:
    return Mount(kind=Mount.KIND_NAMED, source=name, target=target, read_only=read_only)


async def listed(vm: VmClient) -> dict[str, list[str]]:
    response = await vm.stub.ListVolumes(pb.ListVolumesRequest())
    return {volume.name: list(volume.run_ids) for volume in response.volumes}


async def test_a_volume_is_made_described_and_removed(vm: VmClient, world: VmWorld) -> None:
    request = pb.CreateVolumeRequest(name="data", limit_bytes=64 << 20, labels={"for": "tests"})
    made = (await vm.stub.CreateVolume(request)).volume

    assert (made.name, made.limit_bytes, dict(made.labels)) == ("data", 64 << 20, {"for": "tests"})
    assert (await vm.stub.GetVolume(pb.GetVolumeRequest(name="data"))).volume == made
    assert world.disks.made[world.home / "volumes" / "data" / "disk.img"] == 64 << 20
    with pytest.raises(NameTaken):
        await vm.stub.CreateVolume(request)
    await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="data"))
    assert await listed(vm) == {}
    assert not list((world.home / "volumes").iterdir())


@pytest.mark.parametrize(
    ("name", "limit"), [("", 0), ("../x", 0), ("a b", 0), ("x" * 64, 0), ("ok", -1), ("ok", 1000)]
)
async def test_what_cannot_be_a_volume_is_refused(vm: VmClient, name: str, limit: int) -> None:
    with pytest.raises(RequestInvalid):
        await vm.stub.CreateVolume(pb.CreateVolumeRequest(name=name, limit_bytes=limit))


async def test_a_volume_that_nobody_made_is_not_found(vm: VmClient) -> None:
    with pytest.raises(VolumeUnknown):
        await vm.stub.GetVolume(pb.GetVolumeRequest(name="none"))
    with pytest.raises(VolumeUnknown):
        await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="none"))


async def test_a_run_makes_the_volumes_that_it_names(vm: VmClient, world: VmWorld) -> None:
    run = await vm.create(*FOREVER, volumes=[a_mount("one"), a_mount("two", target="/two")])
    await vm.until(run.run_id, Run.STATE_RUNNING)

    assert await listed(vm) == {"one": [run.run_id], "two": [run.run_id]}
    disks = {disk.serial: disk for disk in world.hypervisor.specs[-1].disks}
    assert disks["vol0"].path == world.home / "volumes" / "one" / "disk.img"
    assert not disks["vol1"].read_only


async def test_a_volume_has_one_writer(vm: VmClient, world: VmWorld) -> None:
    writer = await vm.create(*FOREVER, volumes=[a_mount()])
    for read_only in (False, True):
        with pytest.raises(InUse, match="data"):
            await vm.create("true", volumes=[a_mount(read_only=read_only)])
    with pytest.raises(InUse):
        await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="data"))
    runs = (await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True))).runs
    assert [run.run_id for run in runs] == [writer.run_id]

    await vm.stub.StopRun(pb.StopRunRequest(run=writer.run_id))
    await eventually(lambda: not world.host.machines)
    next_writer = await vm.create("true", volumes=[a_mount()])
    assert (await vm.ended(next_writer.run_id)).exit.code == 0


async def test_a_volume_has_many_readers_or_a_writer(vm: VmClient) -> None:
    readers = [await vm.create(*FOREVER, volumes=[a_mount(read_only=True)]) for _ in range(3)]

    assert sorted((await listed(vm))["data"]) == sorted(run.run_id for run in readers)
    with pytest.raises(InUse):
        await vm.create("true", volumes=[a_mount()])


async def test_a_run_that_was_refused_holds_nothing(vm: VmClient) -> None:
    await vm.create(*FOREVER, volumes=[a_mount("taken")])
    with pytest.raises(InUse):
        await vm.create("true", volumes=[a_mount("free"), a_mount("taken", target="/t")])

    assert (await listed(vm)).get("free", []) == []
    run = await vm.create("true", volumes=[a_mount("free")])
    assert (await vm.ended(run.run_id)).exit.code == 0


async def test_a_volume_cannot_be_mounted_in_two_ways_at_once(vm: VmClient) -> None:
    mounts = [a_mount(), a_mount(read_only=True, target="/other")]
    with pytest.raises(RequestInvalid, match="twice"):
        await vm.create("true", volumes=mounts)


async def test_a_full_disk_refuses_the_volume_and_leaves_nothing(
    vm: VmClient, world: VmWorld
) -> None:
    world.disks.full = True
    with pytest.raises(CapacityExhausted):
        await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="data"))

    assert await listed(vm) == {}
    assert not list((world.home / "volumes").iterdir())


async def test_prune_removes_the_volumes_that_no_run_names(vm: VmClient) -> None:
    await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="named"))
    run = await vm.create(*FOREVER, volumes=[a_mount("named")])
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="alone"))

    kept = await vm.stub.PruneRuns(pb.PruneRunsRequest())
    assert not kept.volumes
    dry = await vm.stub.PruneRuns(pb.PruneRunsRequest(include_volumes=True, dry_run=True))
    assert list(dry.volumes) == ["alone"]
    assert set(await listed(vm)) == {"alone", "named"}
    pruned = await vm.stub.PruneRuns(pb.PruneRunsRequest(include_volumes=True))
    assert list(pruned.volumes) == ["alone"]
    assert set(await listed(vm)) == {"named"}


async def test_volumes_and_who_holds_them_survive_the_service(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="idle", labels={"a": "b"}))
        run = await vm.create(*FOREVER, volumes=[a_mount()])
        await vm.until(run.run_id, Run.STATE_RUNNING)
    left = world.home / "volumes" / ".tmp-gone"
    left.mkdir()
    async with vm_service(world) as vm:
        assert await listed(vm) == {"data": [run.run_id], "idle": []}
        idle = (await vm.stub.GetVolume(pb.GetVolumeRequest(name="idle"))).volume
        assert dict(idle.labels) == {"a": "b"}
        with pytest.raises(InUse):
            await vm.create("true", volumes=[a_mount()])
    assert not left.exists()


@pytest.mark.parametrize("record", ['{"version": 2}', "{", "", "[]", None])
async def test_a_volume_whose_record_cannot_be_read_is_shown_and_never_written_over(
    world: VmWorld, record: str | None
) -> None:
    directory = world.home / "volumes" / "data"
    directory.mkdir(parents=True)
    (directory / "disk.img").write_bytes(b"precious")
    if record is not None:
        (directory / "volume.json").write_text(record)
    async with vm_service(world) as vm:
        found = (await vm.stub.GetVolume(pb.GetVolumeRequest(name="data"))).volume
        assert found.problem
        with pytest.raises(NameTaken):
            await vm.stub.CreateVolume(pb.CreateVolumeRequest(name="data"))
        with pytest.raises(RunStateConflict, match="volume data"):
            await vm.create("true", volumes=[a_mount()])
        pruned = await vm.stub.PruneRuns(pb.PruneRunsRequest(include_volumes=True))
        assert list(pruned.volumes) == []
        assert (directory / "disk.img").read_bytes() == b"precious"
        if record is not None:
            assert (directory / "volume.json").read_text() == record
        await vm.stub.RemoveVolume(pb.RemoveVolumeRequest(name="data"))
    assert not directory.exists()


async def test_volumes_are_listed_by_pages(vm: VmClient) -> None:
    for name in ("c", "a", "b"):
        await vm.stub.CreateVolume(pb.CreateVolumeRequest(name=name))
    first = await vm.stub.ListVolumes(pb.ListVolumesRequest(page_size=2))
    rest = await vm.stub.ListVolumes(
        pb.ListVolumesRequest(page_size=2, page_token=first.next_page_token)
    )

    assert [volume.name for volume in [*first.volumes, *rest.volumes]] == ["a", "b", "c"]
