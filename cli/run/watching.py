"""A run as its events tell it: when its workload started, notices for people, how it ended."""

import time
from collections.abc import Awaitable, Callable

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.run.ports import Runner
from services.core.errors import GuestUnreachable, ServiceUnavailable

State = run_pb2.Run.State

ENDED = frozenset({State.STATE_EXITED, State.STATE_FAILED, State.STATE_LOST})
"""States after which nothing runs."""

_ATTEMPTS = 5


class Watch:
    """Follows one run from its creation.

    Attributes:
        run: the run as it was last seen.
        started_after: seconds from `begin` until its workload ran; None before.

    Args:
        runner: the VM runner.
        run: the run as it was created.
        note: shows a line to the person who waits.
        clock: seconds that only grow.
        begin: when the run was asked for, by `clock`.
    """

    def __init__(
        self,
        runner: Runner,
        run: run_pb2.Run,
        *,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        begin: float | None = None,
    ) -> None:
        self.run = run
        self.started_after: float | None = None
        self._runner = runner
        self._note = note
        self._clock = clock
        self._begin = clock() if begin is None else begin
        self._sequence = 0

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
            until_ended=not self._restarts,
        )
        async for response in self._runner.WatchRun(request):
            if self._take(response.event) or is_enough(self):
                return
        if not self.has_ended:
            raise ServiceUnavailable("the events of the run ended before the run did")

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the run runs now."""
        return self.run.state in ENDED

    @property
    def is_over(self) -> bool:
        """Whether nothing of the run will run again by itself."""
        return self.has_failed or (self.run.state == State.STATE_EXITED and not self._restarts)

    @property
    def has_failed(self) -> bool:
        """Whether lns or the machine ended the run, not its workload."""
        return self.run.state in (State.STATE_FAILED, State.STATE_LOST)

    @property
    def _restarts(self) -> bool:
        policy = self.run.options.restart.mode
        return policy in (run_pb2.RestartPolicy.MODE_ALWAYS, run_pb2.RestartPolicy.MODE_ON_FAILURE)

    @property
    def has_started(self) -> bool:
        """Whether its workload ran at some time."""
        return self.started_after is not None

    def _take(self, event: run_pb2.RunEvent) -> bool:
        """Notes one event; returns whether it is the last."""
        self._sequence = event.sequence
        kind = event.WhichOneof("event")
        if kind == "notice":
            self._note(f"lns: {event.notice}")
        elif kind == "state_changed":
            self.run = event.state_changed
            if self.run.state == State.STATE_RUNNING and self.started_after is None:
                self.started_after = self._clock() - self._begin
        return kind == "removed"
