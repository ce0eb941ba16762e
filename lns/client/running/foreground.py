"""A run in the foreground: attached, watched, until it ends or is left."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.attachment import Attachment
from lns.client.running.ports import Runner
from lns.client.running.watching import State, Watch
from services.chassis.status import from_status
from services.core.errors import LnsError, RunUnknown

_SETTLE_SECONDS = 2.0
_REMOVAL_SECONDS = 10.0

Revive = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a foreground run ended for its client; `exit` is None when the user left it."""

    exit: run_pb2.ExitStatus | None


async def follow_run(
    watch: Watch, attachment: Attachment, runner: Runner, *, revive: Revive
) -> Ending:
    """Follows an attachment to the end of the run, with the watch beside it.

    The attachment has the output and the exit code. The watch knows what an attachment cannot tell:
    that the run failed before there was a process. A run that is removed at its end is gone then,
    unless its removal takes longer than ten seconds.

    Raises:
        LnsError: why the run failed, or why it can no longer be followed.
    """
    watching = asyncio.ensure_future(watch.until(lambda _: False, revive=revive))
    attached = asyncio.ensure_future(attachment.follow())
    try:
        await asyncio.wait({watching, attached}, return_when=asyncio.FIRST_COMPLETED)
        if not attached.done() and watch.has_failed:
            await asyncio.wait({attached}, timeout=_SETTLE_SECONDS)
            if not attached.done():
                raise failure_of(watch.run)
        try:
            status = await attached
        except LnsError as error:
            await asyncio.wait({watching}, timeout=_SETTLE_SECONDS)
            return Ending(exit=await _ended_otherwise(watch, runner, error))
        if not watch.has_started and status is not None:
            await asyncio.wait({watching}, timeout=_SETTLE_SECONDS)
        if status is not None and watch.run.options.remove:
            await _until_removed(watch.run.run_id, runner)
        return Ending(exit=status)
    finally:
        for task in (watching, attached):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, LnsError):
                await task


async def _until_removed(run_id: str, runner: Runner) -> None:
    """Returns when a run was removed, or when nobody can say any more that it was."""
    with contextlib.suppress(TimeoutError, LnsError):
        async with asyncio.timeout(_REMOVAL_SECONDS):
            async for response in runner.WatchRun(pb.WatchRunRequest(run=run_id)):
                if response.event.HasField("removed"):
                    return


def failure_of(run: run_pb2.Run) -> LnsError:
    """Returns why a run failed or was lost."""
    return from_status(run.error)


async def _ended_otherwise(watch: Watch, runner: Runner, error: LnsError) -> run_pb2.ExitStatus:
    """Returns how the run ended if it did although its attachment failed; raises why it failed."""
    run = watch.run
    if not watch.is_over:
        with contextlib.suppress(RunUnknown):
            run = (await runner.GetRun(pb.GetRunRequest(run=run.run_id))).run
    if _failed(run):
        raise failure_of(run) from error
    if run.state == State.STATE_EXITED:
        return run.exit
    raise error


def _failed(run: run_pb2.Run) -> bool:
    return run.state in (State.STATE_FAILED, State.STATE_LOST)
