"""How runs get their machines: booted, resumed, or made ready before anybody asks.

The store is the real one; machines are agents without a machine around them.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import (
    CapacityExhausted,
    LnsError,
    RequestInvalid,
    SnapshotUnknown,
    VmFailed,
)
from services.vm_runner.adapters.snapshot_files import SnapshotFiles
from services.vm_runner.channel.requests import GuestConfig
from services.vm_runner.channel.session import open_session
from services.vm_runner.machines import Disk, Machine, MachineSpec
from services.vm_runner.snapshots.ahead import Ahead
from services.vm_runner.snapshots.making import Maker
from services.vm_runner.snapshots.snapshot import Root, Snapshot
from services.vm_runner.snapshots.starts import Started, Starts, Way
from services.vm_runner.snapshots.traffic import Traffic
from tests.fakes.hypervisor import FakeHost, FakeHypervisor
from tests.fakes.vm_outside import FakeDisks, FakeImages
from tests.support.eventually import eventually
from tests.support.guest_agent import require_agent
from tests.support.runs import DIGEST


@dataclass
class Node:
    """A node with an image, whose service can be ended and started again."""

    home: Path
    hypervisor: FakeHypervisor
    images: FakeImages = field(default_factory=FakeImages)
    disks: FakeDisks = field(default_factory=FakeDisks)
    traffic: Traffic = field(default_factory=Traffic)
    ahead: int = 1
    budget: int = 1 << 30
    tight: bool = False
    idle_seconds: float = 600.0
    pool: Ahead = field(init=False)

    @property
    def host(self) -> FakeHost:
        return self.hypervisor.host

    @contextlib.asynccontextmanager
    async def service(self) -> AsyncIterator[Starts]:
        with Blocking(4) as blocking:
            root = self.home / "snapshots"
            root.mkdir(exist_ok=True)
            store = SnapshotFiles(root, blocking=blocking)
            self.pool = Ahead(
                hypervisor=self.hypervisor,
                disks=self.disks,
                traffic=self.traffic,
                room=store.waiting_room(),
                most=self.ahead,
                idle_seconds=self.idle_seconds,
                is_tight=lambda: self.tight,
                answer_seconds=10,
            )
            starts = Starts(
                hypervisor=self.hypervisor,
                disks=self.disks,
                store=store,
                maker=Maker(
                    hypervisor=self.hypervisor,
                    images=self.images,
                    store=store,
                    traffic=self.traffic,
                    answer_seconds=10,
                ),
                ahead=self.pool,
                budget_bytes=self.budget,
            )
            await starts.open()
            try:
                yield starts
            finally:
                await starts.close()

    def root(self) -> Root:
        file = self.home / "image.cfs"
        if not file.exists():
            file.write_text("an image")
        config = GuestConfig(hostname="", metadata_disk="meta")
        return Root(image_digest=DIGEST, config=config, writable_disk="writable", disks=(file,))

    def spec(self, *, memory_mib: int = 256) -> MachineSpec:
        run_id = secrets.token_hex(16)
        directory = self.home / "runs" / run_id
        directory.mkdir(parents=True)
        writable = Disk(
            serial="writable", path=directory / "w.img", read_only=False, size_bytes=1 << 20
        )
        image = Disk(serial="meta", path=self.root().disks[0], read_only=True)
        return MachineSpec(
            run_id=run_id,
            directory=directory,
            vcpus=1,
            memory_mib=memory_mib,
            disks=(image, writable),
        )

    async def run(self, starts: Starts, spec: MachineSpec | None = None) -> Started:
        """Starts a run as its life does: it works, and the next of its kind is thought of."""
        spec = spec or self.spec()
        started = await starts.start(spec, self.root())
        starts.works(spec.run_id)
        starts.ran(spec, self.root())
        return started

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.home / "snapshots").iterdir())


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    host = FakeHost(require_agent())
    yield Node(home=tmp_path, hypervisor=FakeHypervisor(host))
    await host.close()


async def made(starts: Starts, count: int = 1) -> None:
    await eventually(lambda: len(starts.snapshots()) == count)


async def waiting(starts: Starts, count: int = 1) -> None:
    await eventually(lambda: len(starts.waiting) == count)


async def test_the_first_run_boots_the_second_is_resumed_and_the_third_was_made_ready(
    node: Node,
) -> None:
    async with node.service() as starts:
        node.ahead = 0
        assert (await node.run(starts)).way is Way.COLD
        await made(starts)
        await waiting(starts)
        await node.pool.drop()
        assert (await node.run(starts)).way is Way.SNAPSHOT
        await waiting(starts)

        spec = node.spec()
        started = await node.run(starts, spec)

        assert started.way is Way.AHEAD
        assert (spec.directory / "w.img").exists(), "with the writable layer that it waited with"
        assert node.host.machines[spec.run_id] is started.machine
        async with open_session(await started.machine.connect(), answer_seconds=10) as session:
            assert not session.is_configured
    assert starts.counts == {Way.COLD: 1, Way.SNAPSHOT: 1, Way.AHEAD: 1}


async def test_ten_runs_that_want_a_snapshot_at_once_make_it_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    make = Maker.make

    async def counted(self: Maker, key: str, spec: MachineSpec, root: Root) -> Snapshot:
        begun.append(key)
        return await make(self, key, spec, root)

    monkeypatch.setattr(Maker, "make", counted)
    async with node.service() as starts:
        await asyncio.gather(*(node.run(starts) for _ in range(10)))
        await made(starts)

        assert begun == [starts.snapshots()[0].key]
        assert sum(spec.memory_file is not None for spec in node.hypervisor.specs) == 1


async def test_an_image_is_leased_while_its_snapshot_is_made(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased = []
    start = node.hypervisor.start

    async def noting(spec: MachineSpec) -> Machine:
        if spec.memory_file is not None:
            leased.append(list(node.images.leased.values()))
        return await start(spec)

    monkeypatch.setattr(node.hypervisor, "start", noting)
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())

        assert leased == [[DIGEST]]
        assert node.images.leased == {}, "a snapshot whose image is gone is dropped instead"


async def test_one_machine_that_waits_is_claimed_by_one_of_many(node: Node) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())

        started = await asyncio.gather(*(node.run(starts) for _ in range(5)))

        ways = [one.way for one in started]
        assert ways.count(Way.AHEAD) == 1
        assert ways.count(Way.SNAPSHOT) == 4
        machines = set(node.host.machines.values())
        assert machines.issuperset(one.machine for one in started), "each has one that lives"


async def test_a_snapshot_that_cannot_be_resumed_is_discarded_and_the_run_boots_and_says_so(
    node: Node,
) -> None:
    node.ahead = 0
    async with node.service() as starts:
        snapshot = await starts.warm(node.spec(), node.root())
        snapshot.saved.state.write_text("broken")

        started = await node.run(starts)

        assert started.way is Way.COLD
        assert "could not be resumed" in started.remark
        await eventually(lambda: not snapshot.saved.memory.exists())
        await made(starts)  # behind that boot a new one is made
        assert (await node.run(starts)).way is Way.SNAPSHOT


async def test_a_snapshot_whose_guest_does_not_answer_is_discarded_by_the_run_s_next_try(
    node: Node,
) -> None:
    node.ahead = 0
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        spec = node.spec()
        first = await starts.start(spec, node.root())
        await first.machine.kill()  # it never said a word

        second = await starts.start(spec, node.root())

        assert (first.way, second.way) == (Way.SNAPSHOT, Way.COLD)
        assert (first.why, second.why) == ("none waits", "snapshot failed")
        assert "did not answer" in second.remark


@pytest.mark.parametrize(
    "change",
    [
        lambda node: setattr(node.hypervisor, "version", 2),
        lambda node: node.root().disks[0].write_text("another image"),
    ],
    ids=["VMM", "image"],
)
async def test_another_vmm_or_image_file_has_a_snapshot_of_its_own(
    node: Node, change: Callable[[Node], object]
) -> None:
    node.ahead = 0
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        change(node)

        assert (await node.run(starts)).way is Way.COLD
        assert (await node.run(starts, node.spec(memory_mib=512))).way is Way.COLD


async def test_the_snapshots_used_longest_ago_give_way_to_the_budget(node: Node) -> None:
    node.ahead = 0
    async with node.service() as starts:
        first = await starts.warm(node.spec(memory_mib=128), node.root())
        starts._budget = 2 * first.size_bytes
        second = await starts.warm(node.spec(memory_mib=256), node.root())
        third = await starts.warm(node.spec(memory_mib=512), node.root())

        assert {one.key for one in starts.snapshots()} == {second.key, third.key}
        assert not first.saved.memory.exists()


async def test_snapshots_are_found_by_the_next_service_and_what_a_crash_left_is_not(
    node: Node,
) -> None:
    async with node.service() as starts:
        snapshot = await starts.warm(node.spec(), node.root())
    for name in (".tmp-dead", "ahead/ahead-dead", "0" * 64):
        (node.home / "snapshots" / name).mkdir(parents=True, exist_ok=True)
        (node.home / "snapshots" / name / "memory").write_text("half")

    async with node.service() as starts:
        assert [one.key for one in starts.snapshots()] == [snapshot.key]
        assert node.left() == sorted(("ahead", snapshot.key))
        assert (await node.run(starts)).way is Way.SNAPSHOT


@pytest.mark.parametrize(("file", "size"), [("memory", 4096), ("state", 0)])
async def test_a_snapshot_whose_files_were_cut_off_is_not_taken_up(
    node: Node, file: str, size: int
) -> None:
    async with node.service() as starts:
        snapshot = await starts.warm(node.spec(), node.root())
    os.truncate(node.home / "snapshots" / snapshot.key / file, size)

    async with node.service() as starts:
        assert starts.snapshots() == ()
        assert node.left() == ["ahead"]


async def test_a_snapshot_of_files_that_are_gone_is_not_taken_up(node: Node) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
    node.root().disks[0].unlink()

    async with node.service() as starts:
        assert starts.snapshots() == ()
        assert node.left() == ["ahead"]


async def test_a_service_that_ends_leaves_no_machine_waiting_and_no_half_snapshot(
    node: Node,
) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        assert len(node.host.machines) == 1
        started = await starts.start(node.spec(memory_mib=512), node.root())

    assert list(node.host.machines.values()) == [started.machine]
    assert [name for name in node.left() if name.startswith(".tmp-")] == []
    assert not list((node.home / "snapshots" / "ahead").iterdir())


async def test_what_is_made_in_the_background_waits_while_runs_start(node: Node) -> None:
    node.traffic.enter()
    async with node.service() as starts:
        await node.run(starts)
        await asyncio.sleep(0.2)
        assert all(spec.memory_file is None for spec in node.hypervisor.specs)
        node.traffic.leave()
        await made(starts)


async def test_a_machine_is_held_while_a_run_starts(node: Node) -> None:
    machine = await node.hypervisor.start(node.spec())
    async with node.traffic.giving_way(machine):
        node.traffic.enter()
        await eventually_paused(machine, paused=True)
        node.traffic.leave()
        await eventually_paused(machine, paused=False)
        node.traffic.enter()
        await eventually_paused(machine, paused=True)
    assert not await machine.is_paused(), "it goes on in any case"


async def eventually_paused(machine: Machine, *, paused: bool) -> None:
    async with asyncio.timeout(10):
        while await machine.is_paused() is not paused:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def test_no_machine_waits_where_memory_is_short(node: Node) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        node.tight = True
        await node.pool.tend()
        assert (starts.waiting, node.host.machines) == ((), {})

        assert (await node.run(starts)).way is Way.SNAPSHOT
        await starts.warm(node.spec(), node.root())
        assert starts.waiting == ()


async def test_what_is_made_ready_waits_while_runs_start(node: Node) -> None:
    async with node.service() as starts:
        snapshot = await starts.warm(node.spec(), node.root())
        await node.pool.drop()
        node.traffic.enter()
        node.pool.want(snapshot, node.spec(), node.root())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await node.pool.settled()
        assert node.host.machines == {}

        node.traffic.leave()
        await waiting(starts)


async def test_a_snapshot_that_cannot_be_resumed_is_none(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> Machine:
        raise VmFailed("the state does not fit this VMM")

    node.ahead = 0
    monkeypatch.setattr(node.hypervisor, "resume", fails)
    async with node.service() as starts:
        with pytest.raises(VmFailed, match="does not fit"):
            await starts.warm(node.spec(), node.root())

        assert starts.snapshots() == ()
        assert node.left() == ["ahead"]


async def test_a_machine_that_waited_too_long_goes_and_one_that_died_is_replaced(
    node: Node,
) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        [machine] = node.host.machines.values()
        await machine.kill()
        await node.pool.tend()
        await waiting(starts)
        [other] = node.host.machines.values()
        assert other is not machine

        node.pool._idle = 0.0
        await node.pool.tend()
        await node.pool.settled()
        assert (starts.waiting, node.host.machines) == ((), {})


async def test_a_run_with_a_writable_layer_of_its_own_is_resumed_with_it(node: Node) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        spec = node.spec()
        (spec.directory / "w.img").write_text("what it wrote before")

        assert (await node.run(starts, spec)).way is Way.SNAPSHOT
        assert (spec.directory / "w.img").read_text() == "what it wrote before"


async def test_a_machine_with_a_volume_does_not_wait(node: Node) -> None:
    disk = Disk(serial="vol0", path=node.home / "volume.img", read_only=False, size_bytes=1 << 20)
    disk.path.write_text("a volume")
    async with node.service() as starts:
        spec = node.spec()
        await node.run(starts, replace(spec, disks=(*spec.disks, disk)))
        await made(starts)
        await asyncio.sleep(0.2)
        assert starts.waiting == ()
        spec = node.spec()
        started = await node.run(starts, replace(spec, disks=(*spec.disks, disk)))
        assert (started.way, started.why) == (Way.SNAPSHOT, "volumes")
    assert disk.path.read_text() == "a volume", "no snapshot is made with a volume's own disk"


async def test_a_snapshot_that_cannot_be_made_leaves_nothing_and_no_run_fails(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise CapacityExhausted("the disk is full")

    monkeypatch.setattr("services.vm_runner.adapters.snapshot_files.DraftFiles.keep", full)
    async with node.service() as starts:
        assert (await node.run(starts)).way is Way.COLD
        await eventually(lambda: not starts._making)

        assert node.left() == ["ahead"]
        assert node.images.leased == {}
        assert (await node.run(starts)).way is Way.COLD
        with pytest.raises(CapacityExhausted):
            await starts.warm(node.spec(), node.root())


async def test_cold_is_cold(node: Node) -> None:
    async with node.service() as starts:
        await starts.warm(node.spec(), node.root())
        started = await starts.start(node.spec(), node.root(), cold=True)

        assert started.way is Way.COLD


async def test_snapshots_are_found_by_a_unique_beginning_and_removed(node: Node) -> None:
    async with node.service() as starts:
        snapshot = await starts.warm(node.spec(), node.root())
        assert starts.find(snapshot.key[:12]).key == snapshot.key
        for text in ("", "zzz"):
            with pytest.raises(SnapshotUnknown):
                starts.find(text)

        await starts.remove(snapshot.key)

        assert (starts.snapshots(), starts.waiting, node.left()) == ((), (), ["ahead"])
        assert node.host.machines == {}


async def test_without_a_store_every_start_is_a_boot_and_warming_says_why_not(
    node: Node,
) -> None:
    starts = Starts(hypervisor=node.hypervisor, disks=node.disks)

    assert (await node.run(starts)).way is Way.COLD
    with pytest.raises(RequestInvalid, match="turned off") as error:
        await starts.warm(node.spec(), node.root())
    assert isinstance(error.value, LnsError)
