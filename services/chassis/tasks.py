"""Waiting for asynchronous work that must not be left behind."""

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def settle(future: asyncio.Future[T]) -> None:
    """Waits for the end of `future`, whatever it is and however often the waiter is cancelled.

    For clean-up in a task that is being cancelled already: the cancellation goes on afterwards.
    """
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # seen, so that asyncio does not report it as forgotten
