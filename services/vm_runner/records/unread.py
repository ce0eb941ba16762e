"""Runs whose record cannot be read: as much of them as can be known. Pure.

Such a run may be alive. So it is shown under the best name there is, and holds what it may use.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from services.core.errors import RunStateConflict
from services.core.run_plan import (
    PlanKind,
    PlanSource,
    PortMapping,
    Resources,
    RunPlan,
    VolumeKind,
    VolumeMount,
)
from services.vm_runner.records.runs import Failure, Run, RunState

_SHORT_ID = 12
_NOWHERE = "/"


def unread_run(
    run_id: str,
    *,
    problem: str,
    create_time: datetime,
    name: str = "",
    ports: tuple[PortMapping, ...] = (),
    volumes: Iterable[str] = (),
) -> Run:
    """Returns a run of which little is known.

    Args:
        run_id: of its directory.
        problem: why its record cannot be read.
        create_time: of its directory, as well as that is known.
        name: that its record may give it; empty takes its id.
        ports: that its record may say are published.
        volumes: names of those that its record may name.
    """
    failure = RunStateConflict(
        f"the record of run {run_id} cannot be read: {problem}",
        hint="use the version of lns that wrote it; `lns stop` ends its microVM,"
        " `lns rm` removes it",
        metadata={"run_id": run_id},
    )
    name = name or run_id[:_SHORT_ID]
    return Run(
        run_id=run_id,
        name=name,
        plan=RunPlan(
            name=name,
            source=PlanSource(kind=PlanKind.IMAGELESS),
            argv=("?",),
            resources=Resources(vcpus=0, cpu_millis=0, memory_mib=0),
            volumes=_mounts(volumes),
        ),
        create_time=create_time,
        state=RunState.UNKNOWN,
        failure=Failure.of(failure),
        ports=ports,
        sequence=1,
    )


def unread_with(run: Run, *, pid: int, volumes: Iterable[str]) -> Run:
    """Returns such a run with its VMM, and the volumes whose disks that has open."""
    known = {mount.source for mount in run.plan.volumes}
    further = _mounts(name for name in volumes if name not in known)
    plan = replace(run.plan, volumes=(*run.plan.volumes, *further))
    return replace(run, vmm_pid=pid, plan=plan)


def _mounts(volumes: Iterable[str]) -> tuple[VolumeMount, ...]:
    """Returns mounts of volumes; whether they are written to is not known, so they are."""
    return tuple(
        VolumeMount(kind=VolumeKind.NAMED, source=name, target=_NOWHERE) for name in volumes
    )
