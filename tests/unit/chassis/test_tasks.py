"""Work of several tasks ends as one call would."""

import asyncio

import pytest

from services.chassis.tasks import together
from services.core.errors import ManifestUnknown


async def value(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def failure() -> int:
    await asyncio.sleep(0)
    raise ManifestUnknown("no such manifest")


async def test_results_come_in_the_order_of_the_work() -> None:
    assert await together(value(number) for number in (3, 1, 2)) == [3, 1, 2]


async def test_nothing_to_do_is_done() -> None:
    assert await together([]) == []


async def test_the_first_failure_is_raised_by_itself_and_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def long() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 0

    with pytest.raises(ManifestUnknown, match="no such manifest") as raised:
        await together([long(), failure()])

    assert type(raised.value) is ManifestUnknown
    assert cancelled.is_set()


async def test_a_failure_within_nested_work_is_raised_by_itself() -> None:
    async def nested() -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(failure())
        return 0

    with pytest.raises(ManifestUnknown):
        await together([nested()])


async def test_a_cancelled_caller_cancels_the_work() -> None:
    task = asyncio.create_task(together([asyncio.Event().wait()]))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
