"""One piece of work for all who ask for the same thing at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.chassis import context
from services.chassis.tasks import settle

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class SingleFlight(Generic[K, T]):
    """Joins concurrent calls of one key: the first starts the work, all get its result or error.

    A cancelled caller does not cancel the others. When the last one is cancelled the work is, and
    that caller waits until it has ended: nothing runs unattended. The work has no deadline of its
    own, since it may serve callers with different ones. Results are not kept: a call after the end
    starts anew.
    """

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Returns what the work for `key` returns; calls `work` only if none is under way."""
        flight = self._flights.get(key)
        if flight is None or flight.waiters == 0:
            flight = self._start(key, work)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                flight.task.cancel()
                await settle(flight.task)

    def _start(self, key: K, work: Callable[[], Awaitable[T]]) -> _Flight[T]:
        async def fly(before: asyncio.Task[T] | None) -> T:
            if before is not None:  # cancelled, but still cleaning up after itself
                await asyncio.wait({before})
            return await work()

        leaving = self._flights.get(key)
        task = asyncio.get_running_loop().create_task(
            fly(leaving.task if leaving else None), context=context.detached()
        )
        flight = _Flight(task)
        self._flights[key] = flight

        def forget(_: asyncio.Task[T]) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]

        task.add_done_callback(forget)
        return flight
