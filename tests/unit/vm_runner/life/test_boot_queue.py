"""Places to boot: so many at once, in turn, none lost."""

import asyncio

import pytest

from services.vm_runner.life.boot_queue import BootQueue, Place


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_enter_and_the_others_wait_in_turn() -> None:
    queue = BootQueue(2)
    entered: list[tuple[int, Place]] = []

    async def come(number: int) -> None:
        entered.append((number, await queue.enter()))

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(come(number))
        for expected in ([0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
            await settle()
            assert [number for number, _ in entered] == expected
            entered[len(expected) - 2][1].leave()


async def test_a_place_is_left_once() -> None:
    queue = BootQueue(1)
    place = await queue.enter()
    place.leave()
    place.leave()
    await queue.enter()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.enter()


@pytest.mark.parametrize("cancelled_when", ["waiting", "its turn comes"])
async def test_who_gives_up_takes_no_place_with_it(cancelled_when: str) -> None:
    queue = BootQueue(1)
    place = await queue.enter()
    waiting = asyncio.create_task(queue.enter())
    await settle()
    if cancelled_when == "its turn comes":
        place.leave()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    place.leave()

    async with asyncio.timeout(1):
        (await queue.enter()).leave()
