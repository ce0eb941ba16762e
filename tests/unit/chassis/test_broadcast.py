import pytest

from services.chassis.broadcast import Broadcast
from services.core.errors import AttachLagging


async def test_every_watcher_gets_what_is_published_while_it_watches() -> None:
    broadcast: Broadcast[int] = Broadcast()
    broadcast.publish(1)

    with broadcast.watching() as one:
        broadcast.publish(2)
        with broadcast.watching() as other:
            broadcast.publish(3)
            assert [await anext(one), await anext(one), await anext(other)] == [2, 3, 3]
    broadcast.publish(4)


async def test_a_reader_that_is_too_far_behind_is_let_go_and_holds_nobody_up() -> None:
    broadcast: Broadcast[int] = Broadcast()

    with broadcast.watching() as slow:
        for number in range(5000):
            broadcast.publish(number)
        read = []
        with pytest.raises(AttachLagging, match="were not read"):
            async for number in slow:
                read.append(number)  # noqa: PERF401 - what was read before the failure counts

    assert read == list(range(4096))
