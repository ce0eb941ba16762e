"""Stopping runs, with the patience that each of them wants."""

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.ports import Runner
from lns.client.running.request import to_duration

_MARGIN_SECONDS = 30.0
_DEFAULT_SECONDS = 10.0


async def stop_run(runner: Runner, run: run_pb2.Run, *, grace: float | None = None) -> None:
    """Asks a run to end and returns when it has ended; by force after `grace`, or its own time.

    Raises:
        LnsError: as the runner gave it.
    """
    request = pb.StopRunRequest(run=run.run_id)
    if grace is not None:
        request.timeout.CopyFrom(to_duration(grace))
        allowed = grace
    elif run.options.HasField("stop_timeout"):
        allowed = run.options.stop_timeout.ToTimedelta().total_seconds()
    else:
        allowed = _DEFAULT_SECONDS
    await runner.StopRun(request, timeout=allowed + _MARGIN_SECONDS)
