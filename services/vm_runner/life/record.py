"""What is recorded of one run, and the only way in which it changes.

Everything that happens to a run comes through `transition`, one at a time: it is checked against
what the run is then, saved, numbered and published in one step. So two clients cannot both decide
by what was true before, and the history has every sequence once and in order.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.core.errors import RunUnknown
from services.vm_runner import metrics
from services.vm_runner.life.history import History
from services.vm_runner.ports import RunStore
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Run, RunEvent

log = structlog.get_logger()

RETRY_SECONDS = 1.0
_RETRY_MOST = 30.0


class RunRecord:
    """The record of a run, and those who watch it.

    Args:
        run: as it is recorded already.
        store: where it is recorded.
        is_readable: whether what is stored was understood; else it is never written over.
        publish: takes what has happened, with the run as it is then.
        retry_seconds: before a record that could not be written is tried again; it doubles.
    """

    def __init__(
        self,
        run: Run,
        store: RunStore,
        *,
        is_readable: bool = True,
        publish: Callable[[Run, RunEvent], None] = lambda _run, _event: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.history = History()
        self._run = run
        self._store = store
        self._is_readable = is_readable
        self._publish = publish
        self._retry_seconds = retry_seconds
        self._oom_kills = 0
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._is_removed = False
        self._is_behind = False
        self._saving_again: asyncio.Task[None] | None = None
        self.history.add(RunEvent(sequence=run.sequence, event_time=_now(), run=run))

    @property
    def run(self) -> Run:
        """The run as it is: recorded, except for what `transition` says has happened anyway."""
        if self._oom_kills > self._run.oom_kills:
            return replace(self._run, oom_kills=self._oom_kills)
        return self._run

    async def transition(
        self,
        change: Callable[[Run], Run],
        *,
        happened: bool = False,
        notices: Sequence[str] = (),
    ) -> Run:
        """Changes the run; returns it as it is then.

        Args:
            change: returns the run as it is to be, or raises why it cannot be so. It is given the
                run as it is at that moment, and is pure.
            happened: it is a fact, not a wish: it holds although it cannot be recorded now, and is
                recorded as soon as that is possible.
            notices: lines for users, recorded and published with it.

        Raises:
            RunUnknown: the run was removed.
            CapacityExhausted: it cannot be recorded, and nothing has changed.
        """
        step = asyncio.create_task(self._step(change, happened=happened, notices=notices))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # Between what is stored and what is published there is no place to leave.
            with contextlib.suppress(Exception):
                await asyncio.shield(step)
            raise

    async def _step(
        self, change: Callable[[Run], Run], *, happened: bool, notices: Sequence[str]
    ) -> Run:
        async with self._one_at_a_time:
            before = self.run
            if self._is_removed:
                raise RunUnknown(f"run {before.name} was removed", metadata={"run": before.run_id})
            after, events = _events(before, change(before), notices)
            if not events:
                return before
            await self._save(after, happened=happened)
            metrics.changed(before, after)
            if after.boot != before.boot:
                self._oom_kills = 0
            self._run = after
            for event in events:
                self.history.add(event)
                self._publish(after, event)
            self.wake()
            return after

    async def _save(self, run: Run, *, happened: bool) -> None:
        if not self._is_readable:
            return
        try:
            await self._store.save(run)
        except Exception as error:
            if not happened:
                raise
            log.warning("run_not_recorded", run_id=run.run_id, error=str(error))
            if not self._is_behind:
                self._is_behind = True
                self._saving_again = asyncio.create_task(self._save_again())
        else:
            self._is_behind = False

    async def _save_again(self) -> None:
        """Records what has happened, once that is possible."""
        seconds = self._retry_seconds
        while self._has_to_save():
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, _RETRY_MOST)
            async with self._one_at_a_time:
                if not self._has_to_save():
                    return
                try:
                    await self._store.save(self.run)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                    log.warning("run_not_recorded", run_id=self._run.run_id, error=str(error))
                else:
                    self._is_behind = False

    def _has_to_save(self) -> bool:
        return self._is_behind and not self._is_removed

    async def notice(self, *lines: str) -> None:
        """Tells those who watch, and who look at the run later, what a person should read."""
        with contextlib.suppress(RunUnknown):
            await self.transition(lambda run: run, happened=True, notices=lines)

    def count_oom_kills(self, reported: int) -> None:
        """Notes how many processes the guest's memory limit has ended since its boot.

        It is not worth a write of its own: it is recorded with the next change.
        """
        metrics.OOM_KILLS.inc(max(0, reported - self._oom_kills))
        self._oom_kills = max(self._oom_kills, reported)

    async def remove(self, from_store: Callable[[], Awaitable[None]]) -> None:
        """Removes what is stored; nothing can change any more.

        Raises:
            Exception: what `from_store` raises; then the run is still there.
        """
        async with self._one_at_a_time:
            await from_store()
            self._is_removed = True
            event = RunEvent(sequence=self._run.sequence + 1, event_time=_now(), removed=True)
            self.history.add(event)
            self._publish(self._run, event)
            self.wake()

    @property
    def is_removed(self) -> bool:
        """Whether the run was removed."""
        return self._is_removed

    async def close(self) -> None:
        """Gives up what is still to be recorded; the next service looks for itself."""
        if self._saving_again is not None:
            self._saving_again.cancel()
            await asyncio.gather(self._saving_again, return_exceptions=True)

    # ---- waiting ----

    def wake(self) -> None:
        """Has those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Returns after the next change; to be called before anything else is awaited."""
        await self._changed.wait()

    async def wait_until(self, holds: Callable[[Run], bool]) -> Run:
        """Waits until something holds of the run, or it was removed; returns the run."""
        while not holds(self.run) and not self._is_removed:
            await self._changed.wait()
        return self.run


def _events(before: Run, after: Run, notices: Sequence[str]) -> tuple[Run, list[RunEvent]]:
    """Returns a changed run with its sequence, and what is to be published of the change."""
    now = _now()
    sequence = before.sequence
    events = []
    for line in notices:
        after = lifecycle.noticed(after, line)
    if replace(after, sequence=sequence, notices=before.notices) != before:
        sequence += 1
        events.append(
            RunEvent(sequence=sequence, event_time=now, run=replace(after, sequence=sequence))
        )
    for line in notices:
        sequence += 1
        events.append(RunEvent(sequence=sequence, event_time=now, notice=line))
    return replace(after, sequence=sequence), events


def _now() -> datetime:
    return datetime.now(UTC)
