"""What a run that goes on from a snapshot is: partly the snapshot's run, partly its own. Pure."""

from dataclasses import replace

from services.core.errors import RequestInvalid
from services.core.run_plan import RunPlan
from services.vm_runner.records.runs import RunOptions
from services.vm_runner.snapshots.saved_run import SavedRun

_OWN = frozenset({"name", "ports", "labels", "policy"})


def forked_plan(saved: SavedRun, own: RunPlan, *, keep_policy: bool) -> RunPlan:
    """Returns the plan of a run that goes on from a snapshot.

    Its programs, image, machine and mounts are the snapshot's. Ports and labels are its own, and
    so are policy, integrations and credentials, unless the snapshot's are asked for.

    Raises:
        RequestInvalid: it wants volumes, which programs that run already cannot be given.
    """
    if own.volumes:
        raise RequestInvalid(
            f"{own.volumes[0].target} cannot be mounted: what goes on from a snapshot has the "
            "file system that it had",
            hint="leave -v out; `lns cp` copies files into the run",
        )
    guarded = saved.origin.plan if keep_policy else own
    kept = tuple(one for one in saved.origin.plan.origins if one.path not in _OWN)
    return replace(
        saved.origin.plan,
        name=saved.name,
        ports=own.ports,
        labels=own.labels,
        policy=guarded.policy,
        integrations=guarded.integrations,
        credentials=guarded.credentials,
        warnings=(),
        origins=kept + tuple(one for one in own.origins if one.path in _OWN),
    )


def forked_options(saved: SavedRun, own: RunOptions, *, keep_policy: bool) -> RunOptions:
    """Returns the options of a run that goes on from a snapshot.

    Whether it has a terminal and a standard input was decided when its programs started.
    """
    origin = saved.origin.options
    return replace(
        own,
        tty=origin.tty,
        stdin=origin.stdin,
        terminal=own.terminal or origin.terminal,
        stop_signal=own.stop_signal or origin.stop_signal,
        pids_limit=own.pids_limit or origin.pids_limit,
        policy_file=origin.policy_file if keep_policy else own.policy_file,
        cold=False,
    )
