"""Credentials in HTTP/1: put in on the way to a host, masked on the way back.

Numbers in brackets are the rows of ways out.
"""

import asyncio
import base64
import json

import pytest

from services.vm_runner.egress_worker.orders import (
    CredentialAnswer,
    Secret,
)
from services.vm_runner.egress_worker.reports import (
    CredentialWanted,
    RequestDecided,
    ToRunner,
    Usage,
)
from tests.support.egress_world import EgressWorld
from tests.support.http1_world import (
    PLACEHOLDER,
    SECRET,
    Origin,
    configure,
    injection,
    inspected,
    reply,
    request,
)


async def test_a_secret_takes_its_placeholders_place_and_is_masked_on_the_way_back(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "api.test")
    world.runner.say(Secret(credential="github", value=SECRET))
    origin.answer = lambda head, body: reply(b"x", b"X-Echo: you sent " + SECRET.encode())
    async with inspected(world, origin, injections=(injection(),)) as connect:
        client = await connect()
        await client.send(request("/", f"Authorization: Bearer {PLACEHOLDER}"))
        _, head, _ = await client.response()

    assert f"Authorization: Bearer {SECRET}\r\n".encode() in origin.requests[0][0]
    assert PLACEHOLDER.encode() not in origin.requests[0][0]
    assert SECRET.encode() not in head
    assert b"you sent " + PLACEHOLDER.encode() in head
    (decided,) = world.runner.of_kind(RequestDecided)
    assert decided.credentials == ("github",)
    assert SECRET not in repr(world.runner.reports)


@pytest.mark.parametrize("in_body", [False, True])
async def test_a_placeholder_passes_to_its_own_host_elsewhere_in_a_request(
    world: EgressWorld, origin: Origin, in_body: bool
) -> None:
    configure(world, "api.test")
    world.runner.say(Secret(credential="github", value=SECRET))
    body = f'{{"history": "{PLACEHOLDER}"}}'.encode() if in_body else b""
    query = "" if in_body else f"?q={PLACEHOLDER}"
    async with inspected(world, origin, injections=(injection(),)) as connect:
        data = request(f"/{query}", f"Content-Length: {len(body)}", method="POST") + body
        assert (await (await connect()).ask(data))[0] == 200

    head, received = origin.requests[0]
    assert PLACEHOLDER.encode() in head + received


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


_ELSEWHERE = [
    request("/", f"Authorization: Bearer {PLACEHOLDER}"),
    request("/", "Authorization: Basic " + _encoded(f"x:{PLACEHOLDER}")),
    request(f"/?token={PLACEHOLDER}"),
    request("/?token=" + "".join(f"%{ord(c):02x}" for c in PLACEHOLDER)),
    request("/", "Cookie: a=" + _encoded("ab" + PLACEHOLDER + "cd")),
    request("/", f"Content-Length: {len(PLACEHOLDER)}", method="POST") + PLACEHOLDER.encode(),
    request("/", "Transfer-Encoding: chunked", method="POST")
    + f"{len(PLACEHOLDER):x}\r\n{PLACEHOLDER}\r\n0\r\n\r\n".encode(),
]


@pytest.mark.parametrize("data", _ELSEWHERE)
@pytest.mark.parametrize("in_clear", [True, False])
async def test_a_placeholder_goes_to_no_other_host_and_not_over_plain_http(  # [48]
    world: EgressWorld, origin: Origin, data: bytes, in_clear: bool
) -> None:
    configure(world, *(["api.test"] if in_clear else ["other.test"]))
    async with inspected(world, origin, in_clear=in_clear) as connect:
        client = await connect()
        status, denial = await client.ask(data)

    assert status == 403
    assert isinstance(denial, dict)
    assert "placeholder of github" in denial["error"]
    assert PLACEHOLDER not in json.dumps(denial)
    assert origin.requests == []


async def test_a_placeholder_that_is_split_over_writes_is_found(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "other.test")
    async with inspected(world, origin) as connect:
        client = await connect()
        await client.send(request("/", "Content-Length: 1000", method="POST") + b"x" * 100)
        for at in range(0, len(PLACEHOLDER), 5):
            await client.send(PLACEHOLDER[at : at + 5].encode())
            await asyncio.sleep(0.005)
        status, _, _ = await client.response()
    assert status == 403
    assert origin.requests == []


async def test_another_token_than_the_placeholder_is_left_alone(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "api.test")
    async with inspected(world, origin, injections=(injection(),)) as connect:
        own = request("/", "Authorization: Bearer session-token-of-its-own")
        assert (await (await connect()).ask(own))[0] == 200
    assert origin.requests[0][0] == own


async def test_a_missing_secret_waits_and_then_comes_or_is_a_401(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "api.test")
    granted = iter([True, False])

    async def answer(message: ToRunner) -> None:
        if isinstance(message, CredentialWanted):
            grants = next(granted)
            if grants:
                world.runner.say(Secret(credential=message.credential, value=SECRET))
            world.runner.say(
                CredentialAnswer(
                    request=message.request, granted=grants, how_to_allow="lns connect github"
                )
            )

    world.runner.answering = answer
    async with inspected(world, origin, injections=(injection(),)) as connect:
        client = await connect()
        data = request("/", f"Authorization: Bearer {PLACEHOLDER}")
        assert (await client.ask(data))[0] == 200
        world.runner.say(Secret(credential="github", value=None))
        await asyncio.sleep(0.05)
        status, denial = await client.ask(data)

    assert status == 401
    assert isinstance(denial, dict)
    assert denial["how_to_allow"] == "lns connect github"
    assert len(origin.requests) == 1


async def test_a_rotated_secret_holds_from_the_next_request_on(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "api.test")
    world.runner.say(Secret(credential="github", value="first-secret"))
    async with inspected(world, origin, injections=(injection(),)) as connect:
        client = await connect()
        data = request("/", f"Authorization: Bearer {PLACEHOLDER}")
        await client.ask(data)
        world.runner.say(Secret(credential="github", value="second-secret"))
        await asyncio.sleep(0.05)
        await client.ask(data)
    sent = [head.split(b"Bearer ")[1].split(b"\r\n")[0] for head, _ in origin.requests]
    assert sent == [b"first-secret", b"second-secret"]


async def test_a_rotated_or_removed_secret_stays_masked(world: EgressWorld, origin: Origin) -> None:
    configure(world, "api.test")
    world.runner.say(Secret(credential="github", value="first-secret"))
    world.runner.say(Secret(credential="github", value="second-secret"))
    world.runner.say(Secret(credential="github"))
    origin.answer = lambda head, body: reply(b"", b"X-Echo: first-secret second-secret")
    async with inspected(world, origin, injections=(injection(),)) as connect:
        client = await connect()
        await client.send(request())
        _, head, _ = await client.response()
    assert f"X-Echo: {PLACEHOLDER} {PLACEHOLDER}".encode() in head


async def test_trace_reads_no_credential_back(world: EgressWorld, origin: Origin) -> None:  # [49]
    configure(world, "api.test")
    world.runner.say(Secret(credential="github", value=SECRET))
    async with inspected(world, origin, injections=(injection(),)) as connect:
        data = request("/", f"Authorization: Bearer {PLACEHOLDER}", method="TRACE")
        assert (await (await connect()).ask(data))[0] == 403
    assert origin.requests == []


async def test_what_a_stream_says_it_cost_is_reported(world: EgressWorld, origin: Origin) -> None:
    events = (
        b'data: {"message":{"model":"m","usage":{"input_tokens":7,"output_tokens":1}}}\n\n',
        b'data: {"usage":{"output_tokens":42}}\n\n',
    )
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in events) + b"0\r\n\r\n"
    origin.answer = lambda head, body: (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    )
    async with inspected(world, origin, budgets=("anthropic",), usage="anthropic") as connect:
        client = await connect()
        await client.send(request())
        data = b""
        while chunks not in data:
            data += await client.receive()
        usage = await world.runner.wait_for(Usage)
    assert (usage.model, usage.input_tokens, usage.output_tokens, usage.exact) == ("m", 7, 42, True)
