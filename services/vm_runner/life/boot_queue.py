"""How many microVMs boot at once; further ones wait, first come first served.

A boot keeps a processor busy for its whole time. Twenty at once on two processors would all be
slow, and those that are slowest would be taken for lost.
"""

import asyncio
from collections import deque

from services.vm_runner.snapshots.traffic import Traffic


class BootQueue:
    """Places for machines that boot.

    Args:
        places: how many there are.
        traffic: what gives way while anybody has a place or waits for one.
    """

    def __init__(self, places: int, traffic: Traffic | None = None) -> None:
        self._free = places
        self._traffic = traffic or Traffic()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> "Place":
        """Waits for a place."""
        self._traffic.enter()
        try:
            return await self._enter()
        except BaseException:
            self._traffic.leave()
            raise

    async def _enter(self) -> "Place":
        if self._free > 0:
            self._free -= 1
            return Place(self)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self._pass_on()
            raise
        return Place(self)

    def leave(self) -> None:
        """Gives a place to whoever has waited longest."""
        self._traffic.leave()
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Place:
    """A place in the queue, until it is left."""

    def __init__(self, queue: BootQueue) -> None:
        self._queue: BootQueue | None = queue

    def leave(self) -> None:
        """Lets the next machine boot; leaving twice is leaving once."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.leave()
