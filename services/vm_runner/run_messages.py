"""Messages of runs, made once for each state of a run: lists ask for them again and again."""

from lns.vm.v1 import run_pb2

from services.vm_runner.messages import format_run
from services.vm_runner.records.runs import Run

_KEPT = 4096


class RunMessages:
    """Remembers the message of each run as it is; a run that has changed is another value."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Run, run_pb2.Run]] = {}

    def of(self, run: Run) -> run_pb2.Run:
        """Returns the message of a run, which nobody may change."""
        known = self._known.get(run.run_id)
        if known is not None and known[0] is run:
            return known[1]
        if len(self._known) >= _KEPT:  # runs that were removed are among them
            self._known.clear()
        message = format_run(run)
        self._known[run.run_id] = run, message
        return message
