"""The events of one run: kept, replayed, followed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from services.vm_runner.records.runs import RunEvent

_KEPT = 512


class History:
    """The last events of a run, in order."""

    def __init__(self) -> None:
        self._events: deque[RunEvent] = deque(maxlen=_KEPT)
        self._changed = asyncio.Event()

    def add(self, event: RunEvent) -> None:
        """Appends an event and wakes those who follow."""
        self._events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int) -> AsyncIterator[RunEvent]:
        """Yields the events behind a sequence, then new ones, until the run's removal."""
        while True:
            changed = self._changed
            for event in [event for event in self._events if event.sequence > after]:
                after = event.sequence
                yield event
                if event.removed:
                    return
            if changed is self._changed:
                await changed.wait()
