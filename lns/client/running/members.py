"""The runs of a group, begun and removed together.

The service knows single runs that record their group; what is done to all of them is done here.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.ports import Runner
from services.chassis.tasks import settle, together
from services.core.errors import LnsError


async def start_all(runs: Sequence[run_pb2.Run], runner: Runner) -> list[run_pb2.Run]:
    """Starts runs that were created, side by side, or removes them all.

    Raises:
        LnsError: one of them cannot be started; none is left.
    """

    async def start(run: run_pb2.Run) -> run_pb2.Run:
        return (await runner.StartRun(_start_request(run))).run

    try:
        return await together([start(run) for run in runs])
    except BaseException:
        await settle(asyncio.ensure_future(remove_all(runs, runner)))
        raise


def _start_request(run: run_pb2.Run) -> pb.StartRunRequest:
    return pb.StartRunRequest(run=run.run_id, request_id=uuid.uuid4().hex)


async def remove_all(runs: Sequence[run_pb2.Run], runner: Runner) -> None:
    """Removes runs by force; one that cannot be removed does not keep the others."""

    async def remove(run: run_pb2.Run) -> None:
        with contextlib.suppress(LnsError):
            request_id = uuid.uuid4().hex
            request = pb.RemoveRunRequest(run=run.run_id, force=True, request_id=request_id)
            await runner.RemoveRun(request)

    await together([remove(run) for run in runs])


async def members_of(runner: Runner, group: str) -> list[run_pb2.Run]:
    """Returns the recorded runs of a group by its name or id, in the order of its members."""
    response = await runner.ListRuns(pb.ListRunsRequest(include_ended=True, group=group))
    return sorted(response.runs, key=lambda run: list(run.group.members).index(run.plan.member))
