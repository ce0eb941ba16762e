import asyncio
import math

import pytest

from services.chassis import context
from services.chassis.single_flight import SingleFlight
from services.core.errors import ManifestUnknown
from tests.support.eventually import eventually


class Work:
    """Work that waits for permission and notes how it went.

    Attributes:
        undoing: set when it was cancelled and cleans up.
        course: what happened, in its order.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.cancelled = 0
        self.allow = asyncio.Event()
        self.undoing = asyncio.Event()
        self.course: list[str] = []
        self.cleaned_up = asyncio.Event()
        self.cleaned_up.set()

    async def __call__(self) -> str:
        self.begun += 1
        self.course.append("begun")
        try:
            await self.allow.wait()
        except asyncio.CancelledError:
            self.undoing.set()
            await self.cleaned_up.wait()
            self.cancelled += 1
            self.course.append("undone")
            raise
        self.ended += 1
        self.course.append("ended")
        return "done"


async def test_ten_callers_of_one_key_share_one_piece_of_work() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()

    callers = [asyncio.ensure_future(flights.run("k", work)) for _ in range(10)]
    await eventually(lambda: work.begun == 1)
    work.allow.set()

    assert await asyncio.gather(*callers) == ["done"] * 10
    assert (work.begun, work.ended) == (1, 1)
    assert "k" not in flights


async def test_different_keys_do_not_wait_for_each_other() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    slow, fast = Work(), Work()
    fast.allow.set()

    waiting = asyncio.ensure_future(flights.run("slow", slow))
    assert await flights.run("fast", fast) == "done"
    slow.allow.set()
    await waiting


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    first, second = (asyncio.ensure_future(flights.run("k", work)) for _ in range(2))
    await eventually(lambda: work.begun == 1)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.allow.set()

    assert await second == "done"
    assert (work.begun, work.cancelled) == (1, 0)


async def test_the_last_caller_to_leave_ends_the_work_and_waits_for_its_end() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    work.cleaned_up.clear()
    callers = [asyncio.ensure_future(flights.run("k", work)) for _ in range(2)]
    await eventually(lambda: work.begun == 1)

    for caller in callers:
        caller.cancel()
    await work.undoing.wait()
    assert [caller.done() for caller in callers] == [True, False]
    work.cleaned_up.set()

    for caller in callers:
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert work.cancelled == 1
    assert "k" not in flights


async def test_a_caller_that_comes_while_the_work_is_being_undone_starts_it_anew() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    work.cleaned_up.clear()
    leaving = asyncio.ensure_future(flights.run("k", work))
    await eventually(lambda: work.begun == 1)
    leaving.cancel()
    await work.undoing.wait()

    coming = asyncio.ensure_future(flights.run("k", work))
    await eventually(lambda: flights._flights["k"].waiters == 1)
    work.cleaned_up.set()
    work.allow.set()

    assert await coming == "done"
    assert work.course == ["begun", "undone", "begun", "ended"]


async def test_an_error_reaches_every_caller_and_is_not_kept() -> None:
    flights: SingleFlight[str, str] = SingleFlight()

    async def fail() -> str:
        await asyncio.sleep(0)
        raise ManifestUnknown("x")

    results = await asyncio.gather(
        *(flights.run("k", fail) for _ in range(3)), return_exceptions=True
    )
    work = Work()
    work.allow.set()

    assert [type(result) for result in results] == [ManifestUnknown] * 3
    assert await flights.run("k", work) == "done"


async def test_the_work_does_not_inherit_the_deadline_of_whoever_came_first() -> None:
    flights: SingleFlight[str, float] = SingleFlight()

    async def remaining() -> float:
        return context.remaining()

    async def caller() -> float:
        context.set_remaining(1)
        return await flights.run("k", remaining)

    assert await asyncio.create_task(caller()) == math.inf
