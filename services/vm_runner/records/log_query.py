"""Questions to a run's log: since, until, the last lines, follow."""

import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from services.vm_runner.records.run_log import LogChunk, LogPlace, RunLog


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What is wanted of a log.

    Attributes:
        follow: go on until the run has ended.
        since_ns: only what came at or after this time.
        until_ns: only what came before this time.
        tail_lines: only the last lines of the log at the time, this many; None for all.
    """

    follow: bool = False
    since_ns: int = 0
    until_ns: int | None = None
    tail_lines: int | None = None


async def read(log: RunLog, query: LogQuery) -> AsyncIterator[LogChunk]:
    """Yields the pieces of a log that a query wants."""
    place = LogPlace()
    if query.tail_lines is not None:
        end = await log.end()
        tail: deque[LogChunk] = deque()
        if query.tail_lines > 0:
            tail = await _last_lines(log, query)
        for chunk in tail:
            yield chunk
        if not query.follow:
            return
        place = end
    chunks = log.follow(place, wait=query.follow)
    async with contextlib.aclosing(chunks):
        async for batch in chunks:
            for chunk in batch:
                if query.until_ns is not None and chunk.time_ns >= query.until_ns:
                    return
                if chunk.data and chunk.time_ns >= query.since_ns:
                    yield chunk


async def _last_lines(log: RunLog, query: LogQuery) -> deque[LogChunk]:
    """Returns the pieces with the last lines; the log's size bounds what is looked through."""
    kept: deque[LogChunk] = deque()
    lines: deque[int] = deque()
    wanted = query.tail_lines or 0
    async for chunk in read(log, replace(query, tail_lines=None, follow=False)):
        kept.append(chunk)
        lines.append(chunk.data.count(b"\n"))
        # One line more than wanted: the first piece may begin within a line.
        while sum_without_first(lines) > wanted:
            kept.popleft()
            lines.popleft()
    return cut_to_lines(kept, wanted)


def sum_without_first(lines: deque[int]) -> int:
    """Returns how many line ends there are behind the first piece."""
    return sum(lines) - (lines[0] if lines else 0)


def cut_to_lines(chunks: deque[LogChunk], wanted: int) -> deque[LogChunk]:
    """Cuts pieces down to the last lines; an unfinished last line counts as one."""
    if not chunks:
        return chunks
    ends = sum(chunk.data.count(b"\n") for chunk in chunks)
    if not chunks[-1].data.endswith(b"\n"):
        ends += 1
    surplus = ends - wanted
    while surplus > 0 and chunks:
        first = chunks.popleft()
        count = first.data.count(b"\n")
        if count < surplus:
            surplus -= count
            continue
        rest = first.data.split(b"\n", surplus)[-1]
        if rest:
            chunks.appendleft(replace(first, data=rest))
        break
    return chunks
