"""Logs of runs as bounded series of files.

`logs/<number>.log`, numbered from 1; the last one is written, and the first one is removed when
there are more than eight. A file is a sequence of records, all little endian:

    u32 length · u32 boot · u8 stream · u8 flags (1: the stream ended) · u16 0 ·
    u64 nanoseconds since the epoch · u64 position in the stream · `length` bytes

A record that a crash cut off is the last one of the last file, and is removed at opening.
"""

import asyncio
import contextlib
import os
import struct
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.chassis import reserve
from services.chassis.blocking import Blocking
from services.core.errors import AttachLagging
from services.vm_runner.records.run_log import LogChunk, LogPlace, LogStream, RunLog
from services.vm_runner.records.runs import Run

_HEADER = struct.Struct("<IIBBHQQ")
_ENDED = 1
_SEGMENTS = 8
_SEGMENT_LEAST = 64 * 1024
_READ_BYTES = 256 * 1024
_DATA_MAX = 1 << 20
_RECENT_BYTES = 1 << 20
_VECTOR_MOST = 1024  # of IOV_MAX
_STREAMS = frozenset(stream.value for stream in LogStream)


class LogFiles:
    """The logs below `runs/<id>/logs`."""

    def __init__(
        self, root: Path, *, blocking: Blocking, default_limit: int, stall_seconds: float
    ) -> None:
        self._root = root
        self._blocking = blocking
        self._default_limit = default_limit
        self._stall_seconds = stall_seconds

    def open(self, run: Run) -> RunLog:
        """Returns the log of a run."""
        return FileRunLog(
            self._root / run.run_id / "logs",
            limit_bytes=run.options.log_limit_bytes or self._default_limit,
            blocking=self._blocking,
            stall_seconds=self._stall_seconds,
        )


class _Reader:
    """A reader's place and whether it may be left behind."""

    def __init__(self, place: LogPlace, *, held: bool) -> None:
        self.place = place
        self.held = held
        self.dropped = False


@dataclass(frozen=True, slots=True)
class _Appended:
    """What was appended last, for readers that keep up: they need not read it from the disk."""

    place: LogPlace
    following: LogPlace
    chunks: Sequence[LogChunk]


class FileRunLog:
    """One run's log."""

    def __init__(
        self, directory: Path, *, limit_bytes: int, blocking: Blocking, stall_seconds: float
    ) -> None:
        self._directory = directory
        self._segment_bytes = max(_SEGMENT_LEAST, limit_bytes // _SEGMENTS)
        self._blocking = blocking
        self._stall_seconds = stall_seconds
        self._end: LogPlace | None = None
        self._oldest = 1
        self._progress: dict[tuple[int, LogStream], tuple[int, bool]] = {}
        self._readers: set[_Reader] = set()
        self._recent: deque[_Appended] = deque()
        self._opening = asyncio.Lock()
        self._appending = asyncio.Lock()  # no reader ever waits for it: an append may wait for one
        self._changed = asyncio.Event()
        self._closed = True

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        """Appends pieces; waits for held readers before it gives up what they have not read."""
        pieces = deque(piece for chunk in chunks for piece in self._split(chunk))
        async with self._appending:
            while pieces:
                end = await self._opened()
                if end.offset >= self._segment_bytes:
                    end = LogPlace(end.segment + 1, 0)
                    await self._wait_for_readers(end.segment - _SEGMENTS + 1)
                batch = [pieces.popleft()]
                size = end.offset + len(batch[0].data)
                while pieces and size + len(pieces[0].data) <= self._segment_bytes:
                    size += len(pieces[0].data)
                    batch.append(pieces.popleft())
                await self._append(end, batch)

    def _split(self, chunk: LogChunk) -> Iterator[LogChunk]:
        """Yields a piece of the log in parts of which no one exceeds a file by much."""
        most = self._segment_bytes // 4
        for at in range(0, max(1, len(chunk.data)), most):
            data = chunk.data[at : at + most]
            is_last = at + most >= len(chunk.data)
            position = chunk.position + at
            yield replace(chunk, data=data, position=position, ended=chunk.ended and is_last)

    async def _append(self, end: LogPlace, batch: Sequence[LogChunk]) -> None:
        following = self._end = await self._blocking.run(self._write, end, batch)
        self._keep_recent(_Appended(end, following, batch))
        self._oldest = max(self._oldest, end.segment - _SEGMENTS + 1)
        for chunk in batch:
            position = chunk.position + len(chunk.data)
            self._progress[chunk.boot, chunk.stream] = (position, chunk.ended)
        self._wake()

    def _keep_recent(self, appended: _Appended) -> None:
        """Keeps what was appended in memory, up to a bound, while anybody reads."""
        if not self._readers:
            self._recent.clear()
            return
        self._recent.append(appended)
        kept = sum(one.following.offset - one.place.offset for one in self._recent)
        while kept > _RECENT_BYTES:
            gone = self._recent.popleft()
            kept -= gone.following.offset - gone.place.offset

    def _handed(self, place: LogPlace) -> tuple[list[LogChunk], LogPlace]:
        """Returns records from a place on that are still in memory, and the place behind them."""
        chunks: list[LogChunk] = []
        for one in self._recent:
            if one.place == place:
                chunks += one.chunks
                place = one.following
        return chunks, place

    async def progress(self, boot: int) -> dict[LogStream, tuple[int, bool]]:
        """Returns, for each stream of a boot, the bytes recorded and whether it ended."""
        await self._opened()
        return {
            stream: self._progress[boot, stream]
            for stream in LogStream
            if (boot, stream) in self._progress
        }

    async def end(self) -> LogPlace:
        """Returns the place behind everything that was appended."""
        return await self._opened()

    async def follow(
        self, place: LogPlace, *, held: bool = False, wait: bool = True
    ) -> AsyncGenerator[Sequence[LogChunk], None]:
        """Yields what was appended from a place on."""
        await self.end()
        reader = _Reader(place, held=held)
        self._readers.add(reader)
        try:
            while True:
                changed = self._changed
                closed = self._closed
                if reader.dropped:
                    raise AttachLagging("the reader fell too far behind the run's output")
                chunks, reader.place = self._handed(reader.place)
                if not chunks and reader.place != self._end:
                    chunks, reader.place = await self._blocking.run(self._read, reader.place)
                if chunks:
                    yield chunks
                    self._wake()
                elif closed or not wait:
                    return
                else:
                    await changed.wait()
        finally:
            self._readers.discard(reader)
            self._wake()

    def begin(self) -> None:
        """Has readers wait at the end from now on."""
        self._closed = False

    def close(self) -> None:
        """Ends readers that wait, once they have read everything."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _opened(self) -> LogPlace:
        async with self._opening:
            if self._end is None:
                self._end = await self._blocking.run(self._open)
            return self._end

    async def _wait_for_readers(self, first_kept: int) -> None:
        """Waits until no held reader needs files before `first_kept`; drops those that stall."""
        while behind := [r for r in self._readers if r.held and r.place.segment < first_kept]:
            before = [reader.place for reader in behind]
            try:
                async with asyncio.timeout(self._stall_seconds):
                    while [reader.place for reader in behind] == before:
                        await self._changed.wait()
            except TimeoutError:
                for reader in behind:
                    reader.dropped, reader.held = True, False
                self._wake()

    # ---- in threads ----

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:08}.log"

    def _open(self) -> LogPlace:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        segments = sorted(int(path.stem) for path in self._directory.glob("*.log"))
        if not segments:
            return LogPlace(1, 0)
        self._oldest = segments[0]
        whole = [self._scan(segment) for segment in segments][-1]
        os.truncate(self._path(segments[-1]), whole)
        return LogPlace(segments[-1], whole)

    def _scan(self, segment: int) -> int:
        """Notes how far each stream is; returns the size of what is whole."""
        place = LogPlace(segment, 0)
        while True:
            chunks, following = self._read_segment(place)
            for chunk in chunks:
                position = chunk.position + len(chunk.data)
                self._progress[chunk.boot, chunk.stream] = (position, chunk.ended)
            if not chunks:
                return place.offset
            place = following

    def _write(self, place: LogPlace, chunks: Sequence[LogChunk]) -> LogPlace:
        pieces = [
            piece
            for chunk in chunks
            for piece in (
                _HEADER.pack(
                    len(chunk.data), chunk.boot, chunk.stream, _ENDED if chunk.ended else 0, 0,
                    chunk.time_ns, chunk.position,
                ),
                chunk.data,
            )
        ]  # fmt: skip
        size = sum(map(len, pieces))
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path(place.segment), flags, 0o600)
        try:
            os.ftruncate(descriptor, place.offset)  # what an append without room left behind
            _write_all(descriptor, pieces, place.offset)
        except OSError as error:
            if not reserve.is_full(error):
                raise
            raise reserve.exhausted(self._directory, what="the run's log", needed=size) from error
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            self._path(place.segment - _SEGMENTS).unlink()
        return LogPlace(place.segment, place.offset + size)

    def _read(self, place: LogPlace) -> tuple[list[LogChunk], LogPlace]:
        """Returns records from a place on, and the place behind them."""
        if place.segment < self._oldest:
            place = LogPlace(self._oldest, 0)
        end = self._end or place
        while True:
            chunks, following = self._read_segment(place)
            if chunks or place.segment >= end.segment:
                return chunks, following
            place = LogPlace(place.segment + 1, 0)

    def _read_segment(self, place: LogPlace) -> tuple[list[LogChunk], LogPlace]:
        try:
            with self._path(place.segment).open("rb") as file:
                file.seek(place.offset)
                data = file.read(_READ_BYTES)
                if len(data) >= _HEADER.size:
                    (length,) = struct.unpack_from("<I", data)
                    missing = _HEADER.size + min(length, _DATA_MAX) - len(data)
                    data += file.read(max(0, missing))
        except FileNotFoundError:
            return [], place
        chunks, used = _parse(data)
        return chunks, LogPlace(place.segment, place.offset + used)


def _write_all(descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
    for at in range(0, len(pieces), _VECTOR_MOST):
        group = pieces[at : at + _VECTOR_MOST]
        size = sum(map(len, group))
        written = os.pwritev(descriptor, group, offset)
        if written < size:  # the disk is about to be full
            rest = b"".join(group)
            while written < size:
                written += os.pwrite(descriptor, rest[written:], offset + written)
        offset += size


def _parse(data: bytes) -> tuple[list[LogChunk], int]:
    """Returns the whole records at the beginning of `data` and their size."""
    chunks = []
    at = 0
    while len(data) - at >= _HEADER.size:
        length, boot, stream, flags, _, time_ns, position = _HEADER.unpack_from(data, at)
        start = at + _HEADER.size
        if len(data) - start < length or stream not in _STREAMS:
            break
        chunks.append(
            LogChunk(
                boot=boot,
                stream=LogStream(stream),
                position=position,
                time_ns=time_ns,
                data=data[start : start + length],
                ended=bool(flags & _ENDED),
            )
        )
        at = start + length
    return chunks, at
