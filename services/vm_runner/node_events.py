"""What happens on a node: to its runs, and to what they reach."""

from dataclasses import dataclass

from services.vm_runner.boundary.records import EgressRecord
from services.vm_runner.records.runs import Run, RunEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    """Something that happened to a run; one of the last two says what.

    Attributes:
        run: the run as it is.
        happened: to the run itself.
        decided: about something that it reaches.
    """

    run: Run
    happened: RunEvent | None = None
    decided: EgressRecord | None = None
