"""Priority: runs that start hold up what is done in the background."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from services.core.errors import GuestUnreachable
from services.vm_runner.machines import Machine


class Traffic:
    """Knows whether a run is about to start."""

    def __init__(self) -> None:
        self._starting = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._busy = asyncio.Event()

    def enter(self) -> None:
        """A run is about to start."""
        self._starting += 1
        self._quiet.clear()
        self._busy.set()

    def leave(self) -> None:
        """It has started, or will not."""
        self._starting -= 1
        if not self._starting:
            self._busy.clear()
            self._quiet.set()

    async def quiet(self) -> None:
        """Returns when no run is about to start."""
        await self._quiet.wait()

    @contextlib.asynccontextmanager
    async def giving_way(self, machine: Machine) -> AsyncIterator[None]:
        """Holds a machine's processors whenever a run starts while the block runs."""
        holding = asyncio.create_task(self._hold(machine))
        try:
            yield
        finally:
            holding.cancel()
            with contextlib.suppress(asyncio.CancelledError, GuestUnreachable):
                await holding

    async def _hold(self, machine: Machine) -> None:
        with contextlib.suppress(GuestUnreachable):  # it has ended: its user will notice
            while True:
                await self._busy.wait()
                await machine.pause()
                try:
                    await self._quiet.wait()
                finally:
                    await machine.resume()
