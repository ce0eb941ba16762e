import asyncio
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import CapacityExhausted
from services.vm_runner.adapters import log_files
from services.vm_runner.adapters.log_files import FileRunLog
from services.vm_runner.life.output import WorkloadOutput
from services.vm_runner.records.run_log import LogChunk, LogPlace, LogStream
from tests.support.eventually import eventually

_SEGMENT = 64 * 1024


async def test_a_new_reader_does_not_wait_for_a_slow_one_that_the_log_waits_for(
    tmp_path: Path,
) -> None:
    with Blocking(4) as blocking:
        log = FileRunLog(tmp_path, limit_bytes=1, blocking=blocking, stall_seconds=60)
        log.begin()
        slow = log.follow(LogPlace(), held=True)
        first = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0)

        async def write() -> None:
            for number in range(40):
                chunk = LogChunk(
                    boot=1,
                    stream=LogStream.STDOUT,
                    position=number * _SEGMENT,
                    time_ns=0,
                    data=b"x" * _SEGMENT,
                )
                await log.append([chunk])

        writing = asyncio.create_task(write())
        await first
        end = None
        while end != (end := await _settled(log)):
            assert not writing.done()
        async with asyncio.timeout(5):
            await log.end()
            assert (await log.progress(1))[LogStream.STDOUT][0] > 0
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await slow.aclose()


async def _settled(log: FileRunLog) -> LogPlace:
    await asyncio.sleep(0.05)
    return await log.end()


async def test_output_waits_for_room_and_none_of_it_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    full = [True]
    real = FileRunLog._write

    def write(self: FileRunLog, place: LogPlace, chunks: list[LogChunk]) -> LogPlace:
        if full and place.segment >= 2:  # a part of the piece is in the log by then
            full.pop()
            raise CapacityExhausted("no room")
        return real(self, place, chunks)

    monkeypatch.setattr(log_files.FileRunLog, "_write", write)

    async def tell(line: str) -> None:
        said.append(line)

    data = bytes(range(256)) * 512
    with Blocking(4) as blocking:
        log = FileRunLog(tmp_path, limit_bytes=1, blocking=blocking, stall_seconds=1)
        output = WorkloadOutput(log, 1, on_trouble=tell, retry_seconds=0.001)
        await output._append(LogStream.STDOUT, data, ended=True)
        read = [chunk async for chunks in log.follow(LogPlace(), wait=False) for chunk in chunks]
    assert b"".join(chunk.data for chunk in read) == data
    assert read[-1].ended
    assert said == ["no room: the run's output waits for room"]


async def test_a_reader_that_keeps_up_has_what_is_appended_without_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[LogPlace] = []
    real = FileRunLog._read

    def counted(log: FileRunLog, place: LogPlace) -> tuple[list[LogChunk], LogPlace]:
        reads.append(place)
        return real(log, place)

    monkeypatch.setattr(FileRunLog, "_read", counted)
    with Blocking(4) as blocking:
        log = FileRunLog(tmp_path, limit_bytes=1 << 20, blocking=blocking, stall_seconds=60)
        log.begin()
        follower, came = log.follow(LogPlace()), b""
        for number in range(50):  # over several files of the log
            data = bytes([number]) * 10_000
            coming = asyncio.ensure_future(anext(follower))
            await eventually(lambda: bool(log._readers))
            chunk = LogChunk(
                boot=1, stream=LogStream.STDOUT, position=number * 10_000, time_ns=0, data=data
            )
            await log.append([chunk])
            came += b"".join(piece.data for piece in await coming)
        await follower.aclose()

        assert came == b"".join(bytes([number]) * 10_000 for number in range(50))
        assert len(reads) < 20, "only at the beginning, and where a new file began"


async def test_what_is_kept_for_readers_is_bounded_and_late_ones_read_the_rest(
    tmp_path: Path,
) -> None:
    with Blocking(4) as blocking:
        log = FileRunLog(tmp_path, limit_bytes=64 << 20, blocking=blocking, stall_seconds=60)
        log.begin()
        follower = log.follow(LogPlace())
        first = asyncio.ensure_future(anext(follower))
        await eventually(lambda: bool(log._readers))
        size = 256 * 1024
        for number in range(20):
            chunk = LogChunk(
                boot=1, stream=LogStream.STDOUT, position=number * size, time_ns=0, data=bytes(size)
            )
            await log.append([chunk])
        assert sum(len(one.data) for kept in log._recent for one in kept.chunks) <= 1 << 20
        log.close()
        pieces = [*await first, *[piece async for pieces in follower for piece in pieces]]

        assert [piece.position for piece in pieces] == [number * size for number in range(20)]
