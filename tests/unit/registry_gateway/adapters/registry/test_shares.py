"""A registry that answers slowly keeps its own threads waiting and no other's."""

import asyncio
import threading

import pytest

from services.chassis.blocking import Blocking
from services.registry_gateway.adapters.registry.shares import Shares
from services.registry_gateway.progress import Stop


async def test_another_registry_is_asked_while_one_keeps_its_share_waiting() -> None:
    release = threading.Event()
    with Blocking(6) as threads:
        shares = Shares(threads, share=2)
        slow = [
            asyncio.ensure_future(shares.run("slow.example", Stop(), release.wait))
            for _ in range(20)
        ]
        answers = [await shares.run("other.example", Stop(), lambda: "ok") for _ in range(3)]
        release.set()
        await asyncio.gather(*slow)

    assert answers == ["ok"] * 3
    assert not shares._turns


async def test_who_is_cancelled_before_its_turn_never_begins() -> None:
    release, begun = threading.Event(), []
    with Blocking(4) as threads:
        shares = Shares(threads, share=1)
        first = asyncio.ensure_future(shares.run("a", Stop(), release.wait))
        second = asyncio.ensure_future(shares.run("a", Stop(), lambda: begun.append(1)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        release.set()
        await first

    assert not begun
    assert not shares._turns
