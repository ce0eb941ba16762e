"""An event of which a test sees that a task waits for it."""

import asyncio
from typing import Literal


class Awaited(asyncio.Event):
    """An event.

    Attributes:
        reached: set as soon as a task waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        """Waits until the event is set."""
        self.reached.set()
        return await super().wait()
