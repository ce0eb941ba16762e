"""Requests of HTTP/1 that no rule permits, or that two servers would read differently.

Numbers in brackets are the rows of ways out.
"""

import asyncio

import pytest

from services.vm_runner.egress_worker.orders import (
    Configure,
    Inspection,
    Limits,
    Mode,
    Update,
)
from services.vm_runner.egress_worker.reports import (
    Closed,
    Reason,
    RequestDecided,
    RequestVerdict,
)
from tests.support.egress_world import EgressWorld
from tests.support.http1_world import (
    Client,
    Origin,
    inspected,
    request,
    rules,
    served,
)


@pytest.mark.parametrize("in_clear", [True, False])
async def test_requests_that_rules_permit_pass_and_others_get_a_403(
    world: EgressWorld, origin: Origin, in_clear: bool
) -> None:
    listed = rules(("GET", "/repos/**"))
    async with inspected(world, origin, in_clear=in_clear, rules=listed) as connect:
        client = await connect()

        assert await client.ask(request("/repos/a")) == (200, b"hello")
        status, denial = await client.ask(request("/user"))
        assert status == 403
        port = 80 if in_clear else 443
        assert denial == {
            "error": "no rule permits GET /user",
            "host": f"api.test:{port}",
            "rule": "api.test permits only GET /repos/** (policy:1)",
            "how_to_allow": "run it with --policy FILE whose route api.test has the rule "
            "{method: GET, path: /user}",
        }
        # The connection lives on.
        assert await client.ask(request("/repos/b?x=1")) == (200, b"hello")

        seen = [head.split(b"\r\n")[0] for head, _ in origin.requests]
        assert seen == [b"GET /repos/a HTTP/1.1", b"GET /repos/b?x=1 HTTP/1.1"]
        decided = world.runner.of_kind(RequestDecided)
        assert [(one.path, one.verdict, one.status) for one in decided] == [
            ("/repos/a", RequestVerdict.ALLOWED, 0),
            ("/user", RequestVerdict.DENIED, 403),
            ("/repos/b", RequestVerdict.ALLOWED, 0),
        ]


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/repos/../user", ()),  # [27]
        ("/repos/%2e%2e/user", ()),
        ("/repos/..%2fuser", ()),
        ("/repos//../../user", ()),
        ("/repos/x", ("X-HTTP-Method-Override: DELETE",)),  # [28]
        ("/repos/%00", ()),
    ],
)
async def test_no_request_slips_past_a_rule(
    world: EgressWorld, origin: Origin, path: str, more: tuple[str, ...]
) -> None:
    async with inspected(
        world, origin, in_clear=True, rules=rules(("GET", "/repos/**"))
    ) as connect:
        status, _ = await (await connect()).ask(request(path, *more))

    assert status == 403
    assert origin.requests == []


async def test_new_rules_hold_from_the_next_request_on(world: EgressWorld, origin: Origin) -> None:
    async with inspected(world, origin, in_clear=True, rules=rules(("GET", "/a"))) as connect:
        client = await connect()
        assert (await client.ask(request("/b")))[0] == 403

        world.runner.say(Update(connection=1, inspection=Inspection(rules=rules(("GET", "/b")))))
        await asyncio.sleep(0.05)

        assert (await client.ask(request("/b")))[0] == 200


@pytest.mark.parametrize("mode", [Mode.PASS, Mode.INSPECT])
@pytest.mark.parametrize(
    "data",
    [
        request(host="evil.test"),  # [14]
        request(host="api.test:81"),
        request(host="api.test.evil.test"),
        request(host="user@api.test"),
        request("http://evil.test/"),  # [17]
        request("http://api.test/", host="evil.test"),
        request("https://api.test/"),
        request("ftp://api.test/"),
        request("api.test:443", method="CONNECT", host="api.test:443"),  # [18]
        request("evil.test:443", method="CONNECT", host="evil.test:443"),
    ],
)
async def test_a_request_for_another_host_gets_a_403(
    world: EgressWorld, origin: Origin, mode: Mode, data: bytes
) -> None:
    async with served(origin) as target:
        world.runner.add("api.test", target=target, mode=mode)
        client = Client(await world.connect("api.test", 80))
        status, _ = await client.ask(data)

    assert status == 403
    assert origin.requests == []


@pytest.mark.parametrize(
    "data",
    [
        request(host="API.TEST."),
        request(host="api.test:80"),
        request("http://api.test/"),
        request("http://api.test:80/?q=http://evil.test/"),
        b"\r\n" + request(),
    ],
)
async def test_a_request_for_the_connections_host_passes(
    world: EgressWorld, origin: Origin, data: bytes
) -> None:
    async with served(origin) as target:
        world.runner.add("api.test", target=target)
        client = Client(await world.connect("api.test", 80))

        assert await client.ask(data) == (200, b"hello")
    assert origin.requests[0][0] == data.removeprefix(b"\r\n")


async def test_a_second_request_with_another_host_gets_a_403(  # [16]
    world: EgressWorld, origin: Origin
) -> None:
    async with served(origin) as target:
        world.runner.add("api.test", target=target)
        client = Client(await world.connect("api.test", 80))
        await client.send(request() + request(host="evil.test") + request())

        assert [(await client.response())[0] for _ in range(3)] == [200, 403, 200]
    assert len(origin.requests) == 2


@pytest.mark.parametrize(
    "more",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),  # [22]
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5, 5",),
        ("Content-Length: +5",),
        ("Content-Length: -1",),
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("X: a\r\n folded",),  # [23]
        ("X: a\nHost: evil.test",),
        ("X: a\rb",),
        ("X: a\0",),
        ("X : a",),
        (": a",),
        ("no colon",),
        ("Host: evil.test",),
        (" X: a",),
    ],
)
async def test_what_two_servers_read_differently_gets_a_400_and_the_connection_ends(
    world: EgressWorld, origin: Origin, more: tuple[str, ...]
) -> None:
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request("/", *more, method="POST") + b"GET /smuggled HTTP/1.1\r\n\r\n")
        status, head, _ = await client.response()
        closed = None
        client.finish()
        closed = await world.runner.wait_for(Closed)

    assert status == 400
    assert b"connection: close" in head
    assert closed.reason is Reason.MALFORMED
    assert origin.requests == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5;x\r\nhello!\r\n0\r\n\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"\r\n",
    ],
)
async def test_chunks_that_are_invalid_end_the_connection(
    world: EgressWorld, origin: Origin, chunks: bytes
) -> None:
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request("/", "Transfer-Encoding: chunked", method="POST") + chunks)
        closed = await world.runner.wait_for(Closed)

    assert closed.reason is Reason.MALFORMED
    assert origin.requests == []


async def test_an_upgrade_to_h2c_is_not_passed_on(  # [24]
    world: EgressWorld, origin: Origin
) -> None:
    more = (
        "Connection: Upgrade, HTTP2-Settings, X-Kept",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
    )
    async with inspected(world, origin, in_clear=True) as connect:
        assert (await (await connect()).ask(request("/", *more)))[0] == 200

    head = origin.requests[0][0].lower()
    assert b"upgrade" not in head
    assert b"http2-settings" not in head
    assert b"connection: x-kept" in head


async def test_a_head_beyond_the_bound_gets_a_refusal(world: EgressWorld, origin: Origin) -> None:
    world.runner.say(Configure(run="test", limits=Limits(header_bytes=4096)))
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request("/", "X: " + "a" * 8000))
        status, _, body = await client.response()

    assert status == 400
    assert b"more than 4096 bytes" in body


async def test_half_a_request_line_gets_no_further(world: EgressWorld, origin: Origin) -> None:
    world.runner.say(Configure(run="test", limits=Limits(head_seconds=0.1)))
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(b"GE")
        closed = await world.runner.wait_for(Closed)

    assert (closed.reason, closed.sent) == (Reason.TIMEOUT, 0)
