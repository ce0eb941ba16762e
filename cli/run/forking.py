"""The flags of `lns run --from`: what is asked of a run that goes on from a snapshot."""

import dataclasses
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lns.vm.v1 import run_pb2

from cli import terminal
from cli.context import Context
from cli.run.console import STDIN, process_terminal_size
from lns.client.running.forking import fork_request, refuse
from lns.client.running.launch import Order
from lns.client.running.request import PULL_MODES, PlanFlags, run_options
from services.core.errors import RequestInvalid
from services.core.policy_edit import POLICY_FILE_NAME


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What a run goes on from, and whether with the policy of the snapshot's run."""

    snapshot: str
    keep_policy: bool


def take_fork(flags: dict[str, Any]) -> Fork | None:
    """Returns what a run is to go on from, taken out of `flags`; None where it begins anew.

    Raises:
        RequestInvalid: --keep-policy is given without --from.
    """
    snapshot, keep_policy = flags.pop("from_snapshot"), flags.pop("keep_policy")
    if snapshot is not None:
        return Fork(snapshot=snapshot, keep_policy=keep_policy)
    if keep_policy:
        raise RequestInvalid("--keep-policy is for --from", hint="`lns run --from SNAPSHOT`")
    return None


def plan_flags(flags: dict[str, Any]) -> PlanFlags:
    """Returns the flags that the resolver judges, taken out of `flags`."""
    names = [field.name for field in dataclasses.fields(PlanFlags)]
    return PlanFlags(**{name: flags.pop(name) for name in names})


def check_terminal(options: run_pb2.RunOptions, *, detach: bool) -> None:
    """Checks that a run with a terminal that is attached to has one here.

    Raises:
        RequestInvalid: it has none.
    """
    if options.tty and options.stdin and not detach and terminal.terminal_size(STDIN) is None:
        raise RequestInvalid("-t -i needs a terminal as standard input", hint="leave -t out")


def take_terminal(options: run_pb2.RunOptions, saved: run_pb2.SavedRun) -> None:
    """Whether there is a terminal and an input was decided when the programs started."""
    options.tty, options.stdin = saved.options.tty, saved.options.stdin
    if options.tty and (size := process_terminal_size()) is not None:
        options.terminal.CopyFrom(size)


def make_fork(
    context: Context,
    config: Mapping[str, str],
    reference: str | None,
    fork: Fork,
    *,
    pull: str,
    interactive: bool,
    tty: bool,
    **flags: Any,
) -> Order:
    """Returns what the flags of the command line ask of a run that goes on from a snapshot.

    Raises:
        RequestInvalid: a flag cannot be read, or is about what runs already.
        OSError: a file that a flag names cannot be read.
    """
    given = {
        "REF": reference is not None,
        "COMMAND": bool(context.workload),
        "--interactive": interactive,
        "--tty": tty,
        "--cold": flags["cold"],
        "--pull": pull != "missing",
        "--policy": fork.keep_policy and flags["policy"] is not None,
    }
    for name, is_given in given.items():
        if is_given:
            refuse(name, *(["--keep-policy names another"] if name == "--policy" else []))
    plan = plan_flags(flags)
    return Order(
        resolve=fork_request(plan, environment=context.environment, config=config),
        options=run_options(name=plan.name, tty=False, stdin=False, terminal=None, **flags),
        pull=PULL_MODES[pull],
        request_id=uuid.uuid4().hex,
        policy_file=plan.policy.absolute() if plan.policy else None,
        project_policy=Path.cwd() / POLICY_FILE_NAME,
        subject=fork.snapshot,
        from_snapshot=fork.snapshot,
        keep_policy=fork.keep_policy,
    )
