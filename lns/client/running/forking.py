"""Runs that go on from a snapshot of a run: what may be asked for with them."""

from collections.abc import Mapping
from dataclasses import fields

from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as vm_pb

from lns.client.running.ports import Runner
from lns.client.running.request import PlanFlags, resolve_request
from services.core.errors import RequestInvalid

_OWN = frozenset({"name", "policy", "publish", "label"})
_WHY = {
    "volume": "what goes on from a snapshot has the file system that it had",
    "mount": "what goes on from a snapshot has the file system that it had",
    "cpus": "its machine has the size that it had",
    "memory": "its machine has the size that it had",
    "disk": "its machine has the size that it had",
}
_RUNS_ALREADY = "its programs run already"


def fork_request(
    flags: PlanFlags, *, environment: Mapping[str, str], config: Mapping[str, str]
) -> resolver_pb.ResolveRequest:
    """Returns what the resolver is asked about a run that goes on from a snapshot.

    It has a plan of its own only as far as its name, labels, ports and policy are concerned.

    Raises:
        RequestInvalid: a flag is about what was decided when its programs started.
        OSError: the policy file cannot be read.
    """
    for field in fields(flags):
        if getattr(flags, field.name) and field.name not in _OWN:
            refuse(f"--{field.name.replace('_', '-')}", _WHY.get(field.name, _RUNS_ALREADY))
    return resolve_request(
        flags, reference=None, argv=("go-on",), environment=environment, config=config
    )


def refuse(what: str, why: str = _RUNS_ALREADY) -> None:
    """Refuses what cannot be had with a snapshot.

    Raises:
        RequestInvalid: always.
    """
    raise RequestInvalid(
        f"{what} cannot be given for a run that goes on from a snapshot: {why}",
        hint="leave it out, or run the reference itself and make another snapshot",
    )


async def saved_run(name: str, runner: Runner) -> run_pb2.SavedRun:
    """Returns what a snapshot of a run is of.

    Raises:
        SnapshotUnknown: it does not exist.
        RequestInvalid: it is a snapshot of an image.
    """
    response = await runner.GetSnapshot(vm_pb.GetSnapshotRequest(snapshot=name))
    if not response.snapshot.HasField("run"):
        raise RequestInvalid(
            f"{name} is a snapshot of an image, not of a run",
            hint="`lns run REF` uses it by itself; `lns snapshot RUN NAME` saves a run",
        )
    return response.snapshot.run
