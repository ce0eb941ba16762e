"""Named volumes: one change of a name at a time, however many clients ask."""

import asyncio
from dataclasses import replace
from pathlib import Path

from services.core.errors import VolumeUnknown
from services.core.run_plan import VolumeKind, VolumeMount
from services.vm_runner.records.answered import AnsweredRequests
from services.vm_runner.records.runs import Volume
from services.vm_runner.storage.volumes import Volumes
from tests.support.runs import a_run


class Outside:
    """Records, disks and answers, each a while on their way; it notes what overlaps."""

    def __init__(self) -> None:
        self.under_way = 0
        self.overlapped = False

    async def _work(self) -> None:
        self.under_way += 1
        self.overlapped |= self.under_way > 1
        for _ in range(3):
            await asyncio.sleep(0)
        self.under_way -= 1

    async def load(self) -> tuple[Volume, ...]:
        return ()

    async def save(self, volume: object) -> None:
        await self._work()

    async def remove(self, name: str) -> None:
        await self._work()

    async def used_bytes(self, name: str) -> int:
        return 0

    def disk(self, name: str) -> Path:
        return Path(name)

    async def ensure(self, path: Path, *, size_bytes: int) -> None:
        pass


class NoAnswers:
    async def load(self) -> dict[str, str]:
        return {}

    async def save(self, answers: object) -> None:
        pass


async def test_whoever_comes_while_the_next_in_turn_begins_waits_too() -> None:
    """Between the end of one change and the next one's begin, nobody holds the turn."""
    outside = Outside()
    volumes = Volumes(outside, outside, default_bytes=1, answered=AnsweredRequests(NoAnswers()))
    making = asyncio.ensure_future(volumes.create("data"))
    await asyncio.sleep(0)
    first = asyncio.ensure_future(volumes.remove("data"))
    await making
    second = asyncio.ensure_future(volumes.remove("data"))

    results = await asyncio.gather(first, second, return_exceptions=True)

    assert results[0] == 0
    assert isinstance(results[1], VolumeUnknown)
    assert not outside.overlapped
    assert len(volumes._changing) == 0


async def test_a_volume_that_a_run_holds_is_in_use_whoever_else_names_it() -> None:
    outside = Outside()
    volumes = Volumes(outside, outside, default_bytes=1, answered=AnsweredRequests(NoAnswers()))
    await volumes.create("alone")
    mount = VolumeMount(kind=VolumeKind.NAMED, source="data", target="/data", read_only=True)
    run = a_run("true")
    await volumes.hold(replace(run, plan=replace(run.plan, volumes=(mount,))))
    assert volumes.unused(frozenset()) == ["alone"]

    volumes.let_go(run.run_id)
    assert volumes.unused(frozenset()) == ["alone", "data"]
    assert volumes.unused(frozenset({"data"})) == ["alone"]
