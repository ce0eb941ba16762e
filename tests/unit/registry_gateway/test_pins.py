"""What is pinned is not removed, and what is unpinned during a prune is not either."""

import asyncio

import pytest

from services.core.digest import Digest
from services.registry_gateway.pins import Pins

A, B, C = (Digest.of(name.encode()) for name in "abc")


async def remaining(pins: Pins, *digests: Digest) -> frozenset[Digest]:
    """Returns which of the digests would be removed now."""
    offered: list[frozenset[Digest]] = []

    async def remove(batch: frozenset[Digest]) -> None:
        offered.append(batch)

    await pins.remove_unpinned(digests, remove)
    return offered[0]


async def test_a_pin_holds_until_its_last_session_ends() -> None:
    pins = Pins()
    async with pins.session() as outer:
        await outer.add([A, B])
        async with pins.session() as inner:
            await inner.add([A, A])
        assert await remaining(pins, A, B, C) == {C}
        assert pins.all() == {A, B}

    assert await remaining(pins, A, B, C) == {A, B, C}
    assert pins.all() == frozenset()


async def test_what_is_unpinned_during_a_prune_stays_for_that_prune() -> None:
    pins = Pins()
    with pins.pruning():
        async with pins.session() as session:
            await session.add([A])
        assert await remaining(pins, A, B) == {B}
        assert A in pins
    assert await remaining(pins, A, B) == {A, B}


async def test_nobody_is_pinned_while_a_batch_is_removed() -> None:
    pins = Pins()
    removing, go_on = asyncio.Event(), asyncio.Event()

    async def remove(_: frozenset[Digest]) -> None:
        removing.set()
        await go_on.wait()

    removal = asyncio.ensure_future(pins.remove_unpinned([A], remove))
    await removing.wait()
    async with pins.session() as session:
        pinning = asyncio.ensure_future(session.add([A]))
        await asyncio.sleep(0)
        assert not pinning.done()
        go_on.set()
        await asyncio.gather(removal, pinning)
        assert A in pins


async def test_a_session_that_fails_gives_its_pins_up() -> None:
    pins = Pins()
    with pytest.raises(ZeroDivisionError):
        async with pins.session() as session:
            await session.add([A])
            _ = 1 / 0

    assert A not in pins
