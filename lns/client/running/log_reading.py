"""The log of a run as a client reads it: on behind what it has, when a connection is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.ports import LogReader
from services.core.errors import GuestUnreachable, ServiceUnavailable

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2


async def read_log(
    runner: LogReader, request: pb.ReadLogsRequest, *, revive: Callable[[], Awaitable[None]]
) -> AsyncIterator[pb.ReadLogsResponse]:
    """Yields the pieces of a log; one that is followed outlives the service that reads it.

    A piece has a time, and pieces come in its order: a lost stream is taken up at the last one's,
    without as many pieces of that time as were yielded.

    Args:
        runner: the VM runner.
        request: what is wanted of which log.
        revive: called before a lost stream is taken up again; makes the services answer.

    Raises:
        LnsError: the service refused, or stayed out of reach.
    """
    wanted = pb.ReadLogsRequest()
    wanted.CopyFrom(request)
    last, of_last, failures = 0, 0, 0
    while True:
        known = of_last
        try:
            async for piece in runner.ReadLogs(wanted):
                failures = 0
                time = piece.log_time.ToNanoseconds()
                if time == last and known:
                    known -= 1
                    continue
                last, of_last = time, of_last + 1 if time == last else 1
                yield piece
        except (ServiceUnavailable, GuestUnreachable):
            failures += 1
            if not request.follow or failures > _ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE_SECONDS * failures)
            await revive()
            if last:
                wanted.since_time.FromNanoseconds(last)
                wanted.ClearField("tail_lines")
        else:
            return
