"""Blocking work off the event loop, in a bounded number of threads."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from services.chassis.tasks import settle

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Runs blocking functions in at most `limit` threads; further ones wait for their turn.

    The function sees the caller's context variables. A cancelled caller does not leave before its
    function has ended (a function that has not begun never begins): what the caller cleans up
    afterwards is no longer in use. A long function therefore takes a `threading.Event` that it
    looks at now and then, given as `cancel`; it is set when the caller is cancelled.

    A context manager; leaving it waits for the functions that run.
    """

    def __init__(self, limit: int, *, name: str = "blocking") -> None:
        self._executor = ThreadPoolExecutor(max_workers=limit, thread_name_prefix=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for running functions, drops those that have not begun."""
        self._executor.shutdown(cancel_futures=True)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns `function(*args, **kwargs)`, computed in a thread; raises what it raises."""
        return await self._run(functools.partial(function, *args, **kwargs), None)

    async def run_cancellable(
        self,
        cancel: threading.Event,
        function: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like `run`; sets `cancel` when the caller is cancelled, so that `function` can stop."""
        return await self._run(functools.partial(function, *args, **kwargs), cancel)

    async def _run(self, call: Callable[[], T], cancel: threading.Event | None) -> T:
        context = contextvars.copy_context()
        submitted = self._executor.submit(context.run, call)
        future = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if cancel is not None:
                cancel.set()
            submitted.cancel()
            await settle(future)
            raise
