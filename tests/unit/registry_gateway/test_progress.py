"""Streams see what changed, whenever they look; work ends with whoever waits for it."""

import asyncio
import threading
from contextlib import aclosing

import pytest

from services.core.digest import Digest
from services.core.errors import DeadlineExceeded
from services.registry_gateway.progress import Board, Meter, Snapshot, Stage, Stop, follow

A, B = Digest.of(b"a"), Digest.of(b"b")


def test_a_board_shows_what_changed_since_it_was_looked_at() -> None:
    board, one, two = Board(), Meter(A, 10), Meter(B, 20)
    board.add(one)
    board.add(two)
    assert [shown.digest for shown in board.changes()] == [A, B]
    assert board.changes() == []

    two.stage = Stage.DOWNLOADING
    two.advance(5)

    assert board.changes() == [Snapshot(digest=B, stage=Stage.DOWNLOADING, done=5, total=20)]
    one.finish(Stage.EXISTS)
    two.advance(15)
    two.finish(Stage.DONE)
    assert [shown.done for shown in board.changes()] == [10, 20]
    assert (board.moved, board.existing) == (20, 1)


def test_a_transfer_that_takes_another_s_place_is_shown_instead() -> None:
    board, first, second = Board(), Meter(A, 10), Meter(A, 10)
    board.add(first)
    first.advance(7)
    board.add(second)

    (shown,) = board.changes()
    assert shown.done == 0
    assert board.moved == 0


async def test_what_is_followed_yields_changes_and_at_last_the_result() -> None:
    board, meter = Board(), Meter(A, 2)
    board.add(meter)
    step = asyncio.Event()

    async def work() -> str:
        meter.advance(1)
        await step.wait()
        meter.advance(1)
        return "done"

    seen: list[object] = []
    async with aclosing(follow(work(), board, period=0.001)) as events:
        async for event in events:
            seen.append(event.done if isinstance(event, Snapshot) else event)
            step.set()

    assert seen == [1, 2, "done"]


async def test_a_failure_of_the_work_is_raised_after_its_last_changes() -> None:
    board, meter = Board(), Meter(A, 2)
    board.add(meter)

    async def work() -> None:
        meter.advance(1)
        raise DeadlineExceeded("late")

    seen = []
    with pytest.raises(DeadlineExceeded):
        async with aclosing(follow(work(), board)) as events:
            async for event in events:
                seen.append(event)  # noqa: PERF401 - what came before the failure counts
    assert len(seen) == 1


async def test_whoever_stops_following_ends_the_work() -> None:
    board, ended = Board(), asyncio.Event()
    board.add(Meter(A, 1))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async with aclosing(follow(work(), board, period=0.001)) as events:
        await anext(events)

    assert ended.is_set()


def test_a_stop_wakes_whoever_waits_now_or_later() -> None:
    stop, woken = Stop(), threading.Event()
    with stop.waking(woken.set):
        assert not woken.is_set()
        stop.set()
        assert woken.is_set()

    later = threading.Event()
    with stop.waking(later.set):
        assert later.is_set()
    with pytest.raises(DeadlineExceeded):
        stop.check()


def test_a_stop_that_was_not_set_stops_nobody() -> None:
    stop, woken = Stop(), threading.Event()
    with stop.waking(woken.set):
        stop.check()
    stop.set()
    assert not woken.is_set()
