"""Functions that may never return: looks at files on a disk of the network, waits for a process.

Beside `Blocking`, which waits for its functions: there such a one would hold up all others, and the
end of the service.
"""

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OwnThreads:
    """Runs functions in a few threads of their own, each for a limited time.

    A function whose time is over goes on without its caller and keeps its thread until it returns,
    if it ever does. It is safe to leave alone then: it changes nothing that its caller cleans up.

    Args:
        limit: threads at the same time; further calls wait for their turn, within their time.
        seconds: time of a call.
        name: of the threads.
    """

    def __init__(self, limit: int, *, seconds: float, name: str) -> None:
        self._turns = asyncio.Semaphore(limit)
        self._seconds = seconds
        self._name = name

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns `function(*args, **kwargs)`, computed in a thread; raises what it raises.

        Raises:
            TimeoutError: it has not returned in time.
        """
        async with asyncio.timeout(self._seconds):
            await self._turns.acquire()
            return await self._start(functools.partial(function, *args, **kwargs))

    def _start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def finish(settle: Callable[[], None]) -> None:
            self._turns.release()
            if not answer.done():  # else nobody waits any more
                settle()

        def work() -> None:
            try:
                result = context.run(call)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                settle: Callable[[], None] = functools.partial(answer.set_exception, error)
            else:
                settle = functools.partial(answer.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left
                loop.call_soon_threadsafe(finish, settle)

        # A daemon: one that hangs does not keep the process from ending.
        threading.Thread(target=work, name=self._name, daemon=True).start()
        return answer
