"""Waits for what a guest is to do: no longer than it may take, unless it can be seen to get on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.core.errors import GuestUnreachable

T = TypeVar("T")


async def _nothing() -> int:
    return 0


async def patiently(
    answer: Awaitable[T],
    *,
    seconds: float,
    what: str,
    progress: Callable[[], Awaitable[int]] = _nothing,
    on_progress: Callable[[], None] = lambda: None,
) -> T:
    """Returns the answer of a guest.

    Args:
        answer: is cancelled where it does not come.
        seconds: longest wait without progress.
        what: the guest is to do, for the error.
        progress: a measure that the host takes itself and that cannot grow for ever.
        on_progress: called when the time was over and the guest had got on.

    Raises:
        GuestUnreachable: the guest does not do it.
    """
    waiting = asyncio.ensure_future(answer)
    try:
        furthest = await progress()
        while not (await asyncio.wait({waiting}, timeout=seconds))[0]:
            came_to = await progress()
            if came_to <= furthest:
                raise GuestUnreachable(f"the guest did not {what} within {seconds:g} s")
            furthest = came_to
            on_progress()
        return waiting.result()
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
