import asyncio
import contextvars
import threading

import pytest

from services.chassis.blocking import Blocking
from tests.support.eventually import eventually

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name")


async def test_a_function_runs_in_a_thread_and_sees_the_callers_context() -> None:
    def work(a: int, *, b: int) -> tuple[int, str, bool]:
        return a + b, NAME.get(), threading.current_thread() is threading.main_thread()

    NAME.set("here")
    with Blocking(1) as blocking:
        assert await blocking.run(work, 1, b=2) == (3, "here", False)


async def test_an_exception_reaches_the_caller() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with Blocking(1) as blocking, pytest.raises(OSError, match="No space left"):
        await blocking.run(fail)


async def test_no_more_than_the_limit_run_at_once() -> None:
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()
    gate = threading.Event()

    def work() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        gate.wait(10)
        with lock:
            running.pop()

    with Blocking(2) as blocking:
        tasks = [asyncio.ensure_future(blocking.run(work)) for _ in range(6)]
        await eventually(lambda: len(running) == 2)
        gate.set()
        await asyncio.gather(*tasks)

    assert max(most) == 2


async def test_a_cancelled_caller_leaves_when_its_function_has_ended() -> None:
    gate = threading.Event()
    begun = threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(10)

    with Blocking(1) as blocking:
        task = asyncio.ensure_future(blocking.run(work))
        await eventually(begun.is_set)
        task.cancel()
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancelled_caller_can_tell_its_function_to_stop() -> None:
    begun = threading.Event()
    stop = threading.Event()

    def work() -> bool:
        begun.set()
        return stop.wait(10)

    with Blocking(1) as blocking:
        task = asyncio.ensure_future(blocking.run_cancellable(stop, work))
        await eventually(begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


async def test_a_function_of_a_cancelled_caller_that_has_not_begun_never_begins() -> None:
    gate = threading.Event()
    begun: list[str] = []

    with Blocking(1) as blocking:
        first = asyncio.ensure_future(blocking.run(gate.wait, 10))
        second = asyncio.ensure_future(blocking.run(begun.append, "second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(second, 5)
        gate.set()
        await first

    assert begun == []
