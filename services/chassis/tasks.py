"""Asynchronous work of several tasks: together, and not left behind."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from services.core.errors import LnsError

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs coroutines at the same time and returns their results in order.

    The first failure cancels the others and is raised by itself, not in a group. (An `except*`
    clause cannot do that: up to Python 3.11.3 what it raises is put into a group again.)

    Raises:
        Exception: what the first that failed raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [task.result() for task in tasks]


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


def first_error(errors: BaseExceptionGroup[LnsError]) -> LnsError:
    """Returns one of the errors of a group: its tasks failed for one reason."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LnsError)  # noqa: S101  # `except*` lets nothing else through
    return error
