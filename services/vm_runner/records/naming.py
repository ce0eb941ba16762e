"""Names and groups of the runs of a node: what is taken, and what a new run gets. Pure."""

from collections.abc import Iterable, Set
from dataclasses import replace

from services.core.errors import NameTaken, RequestInvalid
from services.core.run_plan import RunPlan
from services.vm_runner.records import names
from services.vm_runner.records.groups import Group
from services.vm_runner.records.runs import Run


def names_in_use(runs: Iterable[Run]) -> set[str]:
    """Returns every name in use: of runs and of their groups, which no run may have too."""
    return {name for run in runs for name in (run.name, run.group.name if run.group else run.name)}


def choose_name(
    runs: Iterable[Run], wanted: str, suggestion: str, *, claimed: Set[str] = frozenset()
) -> str:
    """Returns the name that a person wants, or a free one by a suggestion.

    Args:
        runs: of the node.
        wanted: may be empty.
        suggestion: by which a name is chosen then.
        claimed: further names that are about to be taken.

    Raises:
        NameTaken: another run or group has it.
        RequestInvalid: it cannot be a name.
    """
    in_use = names_in_use(runs) | claimed
    if not wanted:
        return names.choose(suggestion, taken=in_use)
    names.check(wanted)
    if wanted in in_use:
        raise NameTaken(
            f"another run or group has the name {wanted}",
            hint=f"choose another name, or `lns rm {wanted}`",
            metadata={"name": wanted},
        )
    return wanted


def join(
    runs: Iterable[Run], group: Group | None, plan: RunPlan, *, claimed: Set[str] = frozenset()
) -> Group | None:
    """Returns the group of a new run, with the name that its first run got or that it gets now.

    Raises:
        NameTaken: it is the first one, and its name is in use.
        RequestInvalid: the group is another than its runs say, or has that member already.
    """
    if group is None:
        return None
    others = list(runs)
    for other in others:
        if other.group is not None and other.group.group_id == group.group_id:
            if other.group.members != group.members or other.plan.member == plan.member:
                raise RequestInvalid(f"{plan.member} cannot join group {other.group.name} as it is")
            return other.group
    return replace(group, name=choose_name(others, group.name, plan.group, claimed=claimed))


def is_of_group(run: Run, group: str) -> bool:
    """Returns whether a run belongs to the group of that name or id."""
    return run.group is not None and group in (run.group.name, run.group.group_id)
