import asyncio

import pytest

from services.core.errors import GuestUnreachable
from services.vm_runner.life.patience import patiently


async def never() -> None:
    await asyncio.Event().wait()


async def test_an_answer_is_returned() -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    assert await patiently(seven(), seconds=60, what="count") == 7


async def test_an_answer_s_error_is_raised() -> None:
    async def fails() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        await patiently(fails(), seconds=60, what="count")


async def test_a_guest_that_never_answers_has_failed() -> None:
    with pytest.raises(GuestUnreachable, match=r"did not set the machine up within 0\.01 s"):
        await patiently(never(), seconds=0.01, what="set the machine up")


async def test_a_guest_that_gets_on_may_take_longer_and_others_go_first() -> None:
    sizes = iter([0, 10, 20, 20, 20])
    let_go = []

    async def progress() -> int:
        return next(sizes)

    with pytest.raises(GuestUnreachable):
        await patiently(
            never(),
            seconds=0.001,
            what="fill a volume",
            progress=progress,
            on_progress=lambda: let_go.append(True),
        )
    assert len(let_go) == 2


async def test_what_is_given_up_is_cancelled() -> None:
    ended = asyncio.Event()

    async def waits() -> None:
        try:
            await never()
        finally:
            ended.set()

    with pytest.raises(GuestUnreachable):
        await patiently(waits(), seconds=0.001, what="answer")
    assert ended.is_set()
