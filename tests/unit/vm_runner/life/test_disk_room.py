import asyncio
from dataclasses import replace
from pathlib import Path

from services.core.errors import GuestUnreachable
from services.vm_runner.life.disk_room import DiskRoom
from services.vm_runner.records.runs import Run, RunState
from tests.support.eventually import eventually
from tests.support.runs import a_run


class Owner:
    """A run that keeps its notices."""

    def __init__(self) -> None:
        self.run: Run = replace(a_run(), state=RunState.RUNNING)
        self.notices: list[str] = []

    async def notice(self, *lines: str) -> None:
        self.notices += lines


class Disk:
    """A host's disk."""

    def __init__(self) -> None:
        self.free = 0

    async def room(self) -> int:
        await asyncio.sleep(0)
        return self.free

    def directory(self, run_id: str) -> Path:
        return Path("/home/runs") / run_id


class Vmm:
    """A VMM that stops its guest for want of room when a test says so."""

    def __init__(self) -> None:
        self.stops: asyncio.Queue[None] = asyncio.Queue()
        self.resumed = 0
        self.fails = 0

    async def wait_out_of_room(self) -> None:
        if self.fails:
            self.fails -= 1
            raise GuestUnreachable("no answer")
        await self.stops.get()

    async def resume(self) -> None:
        self.resumed += 1


class World:
    def __init__(self) -> None:
        self.owner, self.disk, self.vmm = Owner(), Disk(), Vmm()
        self.room = DiskRoom(self.owner, self.disk, self.vmm, look_seconds=0.001)  # type: ignore[arg-type]  # what it needs of them

    def out_of_room(self) -> None:
        self.vmm.stops.put_nowait(None)


async def test_a_guest_without_room_says_so_and_goes_on_when_there_is_some() -> None:
    world = World()
    async with world.room.watching():
        world.out_of_room()
        await eventually(lambda: len(world.owner.notices) == 1)
        assert "/home/runs is full" in world.owner.notices[0]
        assert world.vmm.resumed == 0
        world.disk.free = 1
        await eventually(lambda: world.vmm.resumed == 1)
        await eventually(lambda: "the run continues" in world.owner.notices[-1])


async def test_it_may_run_out_of_room_again() -> None:
    world = World()
    world.disk.free = 1
    async with world.room.watching():
        for times in (1, 2, 3):
            world.out_of_room()
            await eventually(lambda times=times: world.vmm.resumed == times)


async def test_a_run_that_a_user_paused_meanwhile_waits_for_them() -> None:
    world = World()
    async with world.room.watching():
        world.out_of_room()
        await eventually(lambda: bool(world.owner.notices))
        world.owner.run = replace(world.owner.run, state=RunState.PAUSED)
        world.disk.free = 1
        await asyncio.sleep(0.02)
        assert world.vmm.resumed == 0
        world.owner.run = replace(world.owner.run, state=RunState.RUNNING)
        await eventually(lambda: world.vmm.resumed == 1)


async def test_a_vmm_that_does_not_answer_is_asked_again() -> None:
    world = World()
    world.vmm.fails = 3
    world.disk.free = 1
    world.out_of_room()
    async with world.room.watching():
        await eventually(lambda: world.vmm.resumed == 1)
