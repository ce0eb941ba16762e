"""A foreground run whose output has lost its reader, as in `lns run … | head`."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from lns.vm.v1 import run_pb2

from lns.client.running.foreground import Revive
from lns.client.running.ports import Runner
from lns.client.running.stopping import stop_run
from lns.client.running.watching import Watch
from services.chassis.tasks import together
from services.core.errors import LnsError

_SETTLE_SECONDS = 1.0


async def leave_unread(
    name: str,
    watches: Sequence[Watch],
    runner: Runner,
    *,
    revive: Revive,
    note: Callable[[str], None],
) -> None:
    """Stops runs that are to be removed at their end, and says of others that they continue.

    Docker leaves such a container running, and prints nothing. Here nothing is left to read of a
    run with `--rm`, so it is stopped; any other keeps its log, and a client can attach to it. Runs
    that are about to end have a second to do so.

    Args:
        name: of the run, or of the group.
        watches: the runs, as they were followed up to now.
        runner: the VM runner.
        revive: called before a lost stream is taken up again.
        note: shows a line to the user.
    """
    await together([_settle(watch, revive) for watch in watches])
    live = [watch.run for watch in watches if not (watch.is_over or watch.has_ended)]
    kept = [run for run in live if not run.options.remove]
    await together([_stop(runner, run) for run in live if run.options.remove])
    if kept:
        with contextlib.suppress(BrokenPipeError):  # standard error may be the same pipe
            note(
                f"lns: {name} continues to run without a reader;"
                f" `lns stop {name}` stops it, `lns logs {name}` shows its output"
            )


async def _settle(watch: Watch, revive: Revive) -> None:
    with contextlib.suppress(TimeoutError, LnsError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            await watch.until(lambda _: False, revive=revive)


async def _stop(runner: Runner, run: run_pb2.Run) -> None:
    with contextlib.suppress(LnsError):  # it may have ended
        await stop_run(runner, run)
