"""Budgets in a worker: requests that are asked for first, and what real streams say they used."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.vm_runner.egress_worker.orders import AllowanceAnswer
from services.vm_runner.egress_worker.reports import (
    AllowanceWanted,
    RequestDecided,
    ToRunner,
    Usage,
)
from tests.support.egress_world import EgressWorld
from tests.support.http1_world import (
    Client,
    Origin,
    inspected,
    reply,
    request,
)

ANTHROPIC = [
    (
        b'event: message_start\ndata: {"type":"message_start","message":{"model":"claude-x",'
        b'"usage":{"input_tokens":12,"output_tokens":1,"cache_read_input_tokens":5}}}\n\n'
    ),
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":34}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]
OPENAI = [
    b'data: {"model":"gpt-x","choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n',
    (
        b'data: {"model":"gpt-x","choices":[],"usage":{"prompt_tokens":17,"completion_tokens":34,'
        b'"prompt_tokens_details":{"cached_tokens":5}}}\n\n'
    ),
    b"data: [DONE]\n\n",
]
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITED: dict[str, Any] = {
    "budgets": ("anthropic",), "limited": True, "exact": True, "usage": "anthropic",
}  # fmt: skip


@pytest.fixture
def origin() -> Origin:
    return Origin()


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


def post(*headers: str, path: str = "/v1/messages") -> bytes:
    return request(path, *headers, "Content-Length: 2", method="POST") + b"{}"


async def until_end(client: Client) -> bytes:
    """Returns a chunked reply."""
    data = b""
    while not data.endswith(b"\r\n0\r\n\r\n"):
        data += await client.receive()
    return data


def answering(
    world: EgressWorld, granted: Callable[[int], bool] = lambda _: True
) -> Callable[[ToRunner], Awaitable[None]]:
    """Has the runner let requests through by their number."""

    async def answer(message: ToRunner) -> None:
        if isinstance(message, AllowanceWanted):
            world.runner.say(
                AllowanceAnswer(
                    request=message.request,
                    granted=granted(message.request),
                    error="the budget of anthropic is spent: 5.00USD of 5.00USD (100 %) is used",
                    how_to_allow="start another run",
                )
            )

    world.runner.answering = answer
    return answer


class Slow(Origin):
    """A server that sends its reply in pieces of one size, or byte by byte."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__()
        self._data, self._size = data, size

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        self.requests.append((head, b"{}"))
        for at in range(0, len(self._data), self._size):
            writer.write(self._data[at : at + self._size])
            await writer.drain()
        writer.close()


async def test_a_request_waits_for_its_allowance_and_a_refused_one_gets_a_429(
    world: EgressWorld, origin: Origin
) -> None:
    answering(world, lambda number: number == 1)
    async with inspected(world, origin, **LIMITED) as connect:
        client = await connect()
        assert (await client.ask(post()))[0] == 200

        await client.send(request("/v1/models"))
        status, head, body = await client.response()
    assert status == 429
    assert b"content-type: application/json" in head
    assert b"x-should-retry: false" in head  # clients of these APIs try again otherwise
    denial = json.loads(body)
    assert denial["error"].startswith("the budget of anthropic is spent: 5.00USD of 5.00USD")
    assert denial["how_to_allow"] == "start another run"
    assert len(origin.requests) == 1
    denied = await world.runner.wait_for(RequestDecided, lambda one: bool(one.status))
    assert (denied.status, denied.reason) == (429, "budget-spent")


async def test_what_a_reply_used_is_reported_before_the_next_request_is_asked_for(
    world: EgressWorld, origin: Origin
) -> None:
    answering(world)
    origin.answer = lambda head, body: EVENTS + chunked(ANTHROPIC)
    async with inspected(world, origin, **LIMITED) as connect:
        client = await connect()
        for _ in range(3):
            await client.send(post())
            await until_end(client)
        await world.runner.wait_for(Usage, lambda one: one.allowance == 3)
    kinds = [
        (type(one), one.request if isinstance(one, AllowanceWanted) else one.allowance)
        for one in world.runner.reports
        if isinstance(one, AllowanceWanted | Usage)
    ]
    assert kinds == [(kind, number) for number in (1, 2, 3) for kind in (AllowanceWanted, Usage)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
@pytest.mark.parametrize(
    ("api", "pieces", "counts"),
    [("anthropic", ANTHROPIC, (12, 34, 5)), ("openai", OPENAI, (12, 34, 5))],
)
async def test_streams_are_read_however_they_are_cut_and_pass_unchanged(
    world: EgressWorld, api: str, pieces: list[bytes], counts: tuple[int, ...], size: int
) -> None:
    answering(world)
    origin = Slow(EVENTS + chunked(pieces), size)
    async with inspected(world, origin, **{**LIMITED, "usage": api}) as connect:
        client = await connect()
        await client.send(post())
        data = await until_end(client)
        usage = await world.runner.wait_for(Usage)
    assert data.lower() == (EVENTS + chunked(pieces)).lower()
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == counts
    assert (usage.exact, usage.unread, usage.requests, usage.allowance) == (True, False, 0, 1)


async def test_a_coded_reply_passes_as_it_is_and_is_read(
    world: EgressWorld, origin: Origin
) -> None:
    answering(world)
    packed = gzip.compress(json.dumps({"model": "m", "usage": {"output_tokens": 3}}).encode())
    coding = (b"Content-Encoding: gzip", b"Content-Type: application/json")
    origin.answer = lambda head, body: reply(packed, *coding)
    async with inspected(world, origin, **LIMITED) as connect:
        client = await connect()
        await client.send(post("Accept-Encoding: gzip, br"))
        _, _, body = await client.response()
        usage = await world.runner.wait_for(Usage)
    assert body == packed
    assert (usage.model, usage.output_tokens, usage.exact) == ("m", 3, True)
    assert b"accept-encoding: gzip\r\n" in origin.requests[0][0].lower()


@pytest.mark.parametrize(
    ("data", "answer", "unread"),
    [
        (post(), reply(b"{}", b"Content-Type: application/json"), True),
        (post(), reply(b"{}", b"Content-Type: application/json", status=b"529 Overloaded"), False),
        (post(path="/v1/messages/count_tokens"), reply(b"{}"), False),
        (request("/v1/models"), reply(b"{}"), False),
        (post(), EVENTS + chunked(OPENAI[:1]), True),
    ],
)
async def test_a_reply_that_does_not_say_what_it_used_is_reported_as_such(
    world: EgressWorld, origin: Origin, data: bytes, answer: bytes, unread: bool
) -> None:
    answering(world)
    origin.answer = lambda head, body: answer
    free = ("/v1/messages/count_tokens",)
    async with inspected(world, origin, **LIMITED, free=free) as connect:
        client = await connect()
        await client.send(data)
        await client.response()
        usage = await world.runner.wait_for(Usage)
    assert usage.unread is unread


async def test_a_reply_whose_reader_left_is_read_to_its_end(world: EgressWorld) -> None:
    answering(world)
    go_on = asyncio.Event()

    class Pausing(Origin):
        async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(EVENTS + chunked(ANTHROPIC[:1]).removesuffix(b"0\r\n\r\n"))
            await go_on.wait()
            writer.write(chunked(ANTHROPIC[1:]))
            await writer.drain()
            writer.close()

    async with inspected(world, Pausing(), **LIMITED) as connect:
        client = await connect()
        await client.send(post())
        await client.receive()
        client.reset()
        go_on.set()
        usage = await world.runner.wait_for(Usage)
    assert (usage.output_tokens, usage.unread) == (34, False)


async def test_a_request_that_was_given_up_is_not_taken_for_one_that_used_nothing(
    world: EgressWorld,
) -> None:
    answering(world)

    class Broken(Origin):
        async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    async with inspected(world, Broken(), **LIMITED) as connect:
        client = await connect()
        await client.send(post())
        usage = await world.runner.wait_for(Usage)
    assert (usage.unread, usage.exact) == (True, False)


async def test_without_limits_nothing_is_asked_and_use_is_reported_all_the_same(
    world: EgressWorld, origin: Origin
) -> None:
    async with inspected(world, origin, budgets=("anthropic",), usage="anthropic") as connect:
        client = await connect()
        assert (await client.ask(request()))[0] == 200
        usage = await world.runner.wait_for(Usage)
    assert (usage.budgets, usage.requests, usage.received) == (("anthropic",), 1, 5)
    assert world.runner.of_kind(AllowanceWanted) == []
