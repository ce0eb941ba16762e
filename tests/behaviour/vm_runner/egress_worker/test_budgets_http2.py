"""Budgets over HTTP/2: every stream is asked for, and its reply says what it used."""

import asyncio

import pytest

from services.vm_runner.egress_worker.reports import AllowanceWanted, RequestDecided, Usage
from tests.behaviour.vm_runner.egress_worker.test_budgets import (
    ANTHROPIC,
    LIMITED,
    OPENAI,
    answering,
)
from tests.behaviour.vm_runner.egress_worker.test_http2 import (
    Client,
    Headers,
    Origin,
    Served,
    h2_client,
)
from tests.support.egress_world import EgressWorld


@pytest.fixture
def origin() -> Origin:
    return Origin()


async def post(client: Client, *more: tuple[str, str]) -> int:
    stream = await client.begin("/v1/messages", *more, ends=False, method="POST")
    await client.send(stream, b"{}")
    return stream


async def test_a_spent_budget_answers_a_stream_with_a_429_and_the_connection_lives_on(
    world: EgressWorld, origin: Origin
) -> None:
    answering(world, lambda number: number != 2)
    async with h2_client(world, origin, **LIMITED) as client:
        assert await client.ask("/one") == (200, b"hello")
        stream = await client.begin("/two")
        status, denial = await client.reply(stream)
        assert await client.ask("/three") == (200, b"hello")

    assert status == 429
    assert client.replies[stream]["headers"]["x-should-retry"] == "false"
    assert denial["error"].startswith("the budget of anthropic is spent: 5.00USD of 5.00USD")
    assert [dict(one)[":path"] for one in origin.requests] == ["/one", "/three"]
    denied = [one for one in world.runner.of_kind(RequestDecided) if one.status]
    assert [(one.status, one.reason) for one in denied] == [(429, "budget-spent")]


async def test_streams_at_once_each_wait_for_an_allowance_of_their_own(
    world: EgressWorld, origin: Origin
) -> None:
    async with h2_client(world, origin, **LIMITED) as client:
        streams = [await post(client) for _ in range(3)]
        await world.runner.wait_for(AllowanceWanted, lambda one: one.request == 3)
        assert origin.requests == []
        answer = answering(world, lambda number: number != 1)
        for wanted in world.runner.of_kind(AllowanceWanted):
            await answer(wanted)
        statuses = [(await client.reply(stream))[0] for stream in streams]

    assert statuses == [429, 200, 200]
    assert len(origin.requests) == 2


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("api", "pieces"), [("anthropic", ANTHROPIC), ("openai", OPENAI)])
async def test_what_a_stream_of_events_used_is_read_however_its_frames_are_cut(
    world: EgressWorld, origin: Origin, api: str, pieces: list[bytes], size: int
) -> None:
    answering(world)
    whole = b"".join(pieces)

    def in_frames(served: Served, stream: int, *_: object) -> None:
        kind = ("content-type", "text/event-stream")
        served.h2.send_headers(stream, [(":status", "200"), kind])
        for at in range(0, len(whole), size):
            served.h2.send_data(stream, whole[at : at + size])
        served.h2.end_stream(stream)

    origin.answer = in_frames
    async with h2_client(world, origin, **{**LIMITED, "usage": api}) as client:
        assert await client.reply(await post(client)) == (200, whole)
        usage = await world.runner.wait_for(Usage)

    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (12, 34, 5)
    assert (usage.exact, usage.unread, usage.allowance) == (True, False, 1)


async def test_a_reply_that_the_program_leaves_is_not_taken_for_one_that_used_nothing(
    world: EgressWorld, origin: Origin
) -> None:
    answering(world)

    def begin(served: Served, stream: int, headers: Headers) -> bool:
        served.h2.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        served.h2.send_data(stream, b"event: ping\ndata: {}\n\n")
        return True

    origin.on_headers = begin
    async with h2_client(world, origin, **LIMITED) as client:
        stream = await post(client)
        await client.until(lambda: client.body(stream) != b"")
        client.h2.reset_stream(stream)
        await client.flush()
        usage = await asyncio.wait_for(world.runner.wait_for(Usage), 30)

    assert (usage.unread, usage.exact) == (True, False)


async def test_codings_that_cannot_be_read_are_left_out_of_what_a_program_accepts(
    world: EgressWorld, origin: Origin
) -> None:
    answering(world)
    async with h2_client(world, origin, **LIMITED) as client:
        await client.reply(await post(client, ("accept-encoding", "gzip, br, zstd")))

    assert dict(origin.requests[0])["accept-encoding"] == "gzip"
