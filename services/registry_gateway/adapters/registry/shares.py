"""Threads for work on registries, of which each registry has a share.

A registry that answers slowly keeps its own threads waiting and no other's: without shares, sixteen
slow answers of one registry held every thread, and no other registry could be asked.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from services.chassis.blocking import Blocking
from services.registry_gateway.progress import Stop

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Turns:
    free: asyncio.Semaphore
    users: int = field(default=0)


class Shares:
    """Runs work on registries in threads; used by one event loop."""

    def __init__(self, blocking: Blocking, *, share: int) -> None:
        """Starts no thread.

        Args:
            blocking: the threads of all registries together.
            share: how many of them one registry may have at a time.
        """
        self._blocking = blocking
        self._share = share
        self._turns: dict[str, _Turns] = {}

    async def run(
        self, host: str, stop: Stop, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Returns what `work` returns, computed in a thread of the share of `host`.

        `stop` is set when the caller is cancelled; who is cancelled before its turn never begins.
        """
        async with self._turn(host):
            return await self._blocking.run_cancellable(stop, work, *args, **kwargs)

    @contextlib.asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(host, _Turns(asyncio.Semaphore(self._share)))
        turns.users += 1
        try:
            async with turns.free:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[host]
