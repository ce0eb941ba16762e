import asyncio
import contextlib
import threading

import pytest

from services.chassis.own_threads import OwnThreads


async def test_a_function_returns_what_it_returns_and_raises_what_it_raises() -> None:
    threads = OwnThreads(1, seconds=10, name="test")

    def fails() -> None:
        raise KeyError("no")

    assert await threads.run(lambda: 7) == 7
    with pytest.raises(KeyError):
        await threads.run(fails)


async def test_a_function_that_hangs_is_left_alone_and_holds_up_nobody_elsewhere() -> None:
    hangs = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            await OwnThreads(1, seconds=0.05, name="test").run(hangs.wait)
        assert await OwnThreads(1, seconds=10, name="test").run(lambda: 1) == 1
    finally:
        hangs.set()


async def test_a_place_that_a_hanging_function_keeps_is_free_when_it_returns() -> None:
    threads = OwnThreads(1, seconds=0.05, name="test")
    hangs = threading.Event()
    with pytest.raises(TimeoutError):
        await threads.run(hangs.wait)
    with pytest.raises(TimeoutError):
        await threads.run(lambda: 1)
    hangs.set()
    for _ in range(100):
        with contextlib.suppress(TimeoutError):
            assert await threads.run(lambda: 1) == 1
            break
    else:
        pytest.fail("the place was never free again")


async def test_no_more_functions_than_permitted_run_at_once() -> None:
    threads = OwnThreads(2, seconds=10, name="test")
    running, most = 0, 0
    lock = threading.Lock()
    both = threading.Event()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                both.set()
        both.wait(10)
        with lock:
            running -= 1

    await asyncio.gather(*(threads.run(work) for _ in range(8)))
    assert most == 2
