"""A run as its events tell it: when its workload started, notices for users, how it ended."""

import time
from collections.abc import Awaitable, Callable

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.losing import run_goes_on
from lns.client.running.ports import Runner
from services.core.errors import GuestUnreachable, RunUnknown, ServiceUnavailable

State = run_pb2.Run.State

ENDED = frozenset({State.STATE_EXITED, State.STATE_FAILED, State.STATE_LOST})
"""The states in which nothing of a run runs, and its record says how it ended."""

_ATTEMPTS = 5


class Watch:
    """Follows one run from its creation, or from the life that it was found in.

    Attributes:
        run: the run as it was last seen.
        started_after: seconds from `begin` until its workload ran; None before.
        is_over: whether nothing of the run will run again by itself.

    Args:
        runner: the VM runner.
        run: the run as it was created or found.
        note: shows a line to the person who waits.
        has_past: whether it was found. The events of a run begin with its creation: those of lives
            before the one that it was found in are passed over.
        clock: seconds that only grow.
        begin: when the run was asked for, by `clock`.
    """

    def __init__(
        self,
        runner: Runner,
        run: run_pb2.Run,
        *,
        note: Callable[[str], None],
        has_past: bool = False,
        clock: Callable[[], float] = time.monotonic,
        begin: float | None = None,
    ) -> None:
        self.run = run
        self.started_after: float | None = None
        self.is_over = False
        self._runner = runner
        self._note = note
        self._clock = clock
        self._begin = clock() if begin is None else begin
        self._sequence = 0
        self._found = run
        self._is_behind = has_past

    async def until(
        self, is_enough: Callable[["Watch"], bool], *, revive: Callable[[], Awaitable[None]]
    ) -> None:
        """Follows the run until `is_enough`, or it was removed or has ended.

        Args:
            is_enough: looks at this watch after every event.
            revive: called before a lost stream is taken up again.

        Raises:
            LnsError: the service refused, or stayed out of reach.
        """
        with run_goes_on(self.run.name or self.run.run_id):
            await self._until(is_enough, revive)

    async def _until(
        self, is_enough: Callable[["Watch"], bool], revive: Callable[[], Awaitable[None]]
    ) -> None:
        failures = 0
        while True:
            before = self._sequence
            try:
                await self._follow(is_enough)
            except (ServiceUnavailable, GuestUnreachable):
                failures = 1 if self._sequence > before else failures + 1
                if failures > _ATTEMPTS:
                    raise
                await revive()
            else:
                return

    async def _follow(self, is_enough: Callable[["Watch"], bool]) -> None:
        request = pb.WatchRunRequest(
            run=self.run.run_id,
            after_sequence=self._sequence,
            until_ended=True,
        )
        async for response in self._runner.WatchRun(request):
            await self._take(response.event)
            if self.is_over or is_enough(self):
                return
        if not self.has_ended:
            raise ServiceUnavailable("the events of the run ended before the run did")
        self.is_over = True  # the service knows what the run's restart policy wants

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the run runs now, or nobody can say."""
        return self.run.state in ENDED or self.run.state == State.STATE_UNKNOWN

    @property
    def has_failed(self) -> bool:
        """Whether lns or the machine ended the run, not its workload."""
        return self.run.state in (State.STATE_FAILED, State.STATE_LOST, State.STATE_UNKNOWN)

    @property
    def has_started(self) -> bool:
        """Whether its workload ran at some time."""
        return self.started_after is not None

    async def _take(self, event: run_pb2.RunEvent) -> None:
        """Notes one event."""
        self._sequence = event.sequence
        kind = event.WhichOneof("event")
        if kind == "removed":
            self.is_over = True
        elif kind == "notice" and not self._is_behind:
            self._note(f"lns: {event.notice}")
        elif kind == "state_changed" and not await self._is_past(event.state_changed):
            self.run = event.state_changed
            if self.run.state == State.STATE_RUNNING and self.started_after is None:
                self.started_after = self._clock() - self._begin

    async def _is_past(self, run: run_pb2.Run) -> bool:
        """Returns whether an event tells of a life before the one that the run was found in.

        A life is known by the time of its start, which a run that boots has not yet: once one has
        started, or ended, the run is looked at again.
        """
        if self._is_behind and not _life(self._found):
            if not _life(run):
                return True
            try:
                self._found = (await self._runner.GetRun(pb.GetRunRequest(run=run.run_id))).run
            except RunUnknown:  # removed: there is no life behind this one
                self._found = run
        if self._is_behind:
            self._is_behind = _life(run) != _life(self._found)
        return self._is_behind


def _life(run: run_pb2.Run) -> int:
    """Returns what tells lives of a run apart; 0 for one that has neither started nor ended."""
    return run.start_time.ToNanoseconds() or run.end_time.ToNanoseconds()
