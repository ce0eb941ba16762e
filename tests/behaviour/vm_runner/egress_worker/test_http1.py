"""HTTP/1 that is looked into, in the clear and under TLS: what passes, what is answered and how.

Numbers in brackets are the rows of ways out.
"""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme

from services.core.egress.requests import CompiledRule, RouteRules
from services.core.integrations.definitions import InjectionKind
from services.vm_runner.egress_worker.orders import (
    Configure,
    CredentialAnswer,
    Injection,
    Inspection,
    Limits,
    Mode,
    Placeholder,
    Secret,
    Update,
    UpstreamTrust,
)
from services.vm_runner.egress_worker.reports import (
    Closed,
    CredentialWanted,
    Reason,
    RequestDecided,
    RequestVerdict,
    ToRunner,
    Usage,
)
from tests.fakes.egress_agent import AgentConnection, Reset
from tests.support.egress_world import EgressWorld

PLACEHOLDER = "ghp_lnsplaceholder0000000000000000000000"
SECRET = "ghp_realsecret"
UPSTREAM_CA = trustme.CA()

Serve = Callable[[bytes, bytes], bytes]


class Origin:
    """A server that records requests and answers each by a function of head and body."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.answer: Serve = lambda head, body: reply(b"hello")
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await read_body(head, reader)
                self.requests.append((head, body))
                writer.write(self.answer(head, body))
                await writer.drain()
        writer.close()


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lowered = head.lower()
    if b"content-length:" in lowered:
        size = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
        return await reader.readexactly(size)
    body = b""
    if b"transfer-encoding: chunked" in lowered:
        while True:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            body += line
            if not size:
                while (trailer := await reader.readline()) != b"\r\n":
                    body += trailer
                return body
            body += await reader.readexactly(size + 2)
    return body


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    length = b"content-length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, length, *headers, b"", body])


def request(path: str = "/", *headers: str, method: str = "GET", host: str = "api.test") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


def rules(*listed: tuple[str, str]) -> tuple[RouteRules, ...]:
    compiled = tuple(CompiledRule(method, path) for method, path in listed)
    return (RouteRules(rules=compiled, match="api.test", place="policy:1", source="policy"),)


def injection(kind: InjectionKind = InjectionKind.BEARER, **more: str) -> Injection:
    known = {"credential": "github", "domain": "api.test", "placeholder": PLACEHOLDER}
    return Injection(kind=kind, **{**known, **more})


@pytest.fixture
def origin() -> Origin:
    return Origin()


@contextlib.asynccontextmanager
async def served(origin: Origin, *, name: str = "") -> AsyncIterator[tuple[str, int]]:
    context = None
    if name:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        UPSTREAM_CA.issue_cert(name).configure_cert(context)
        context.set_alpn_protocols(["http/1.1"])
    server = await asyncio.start_server(origin.handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


class Client:
    """A program of the guest that speaks HTTP/1, maybe under TLS."""

    def __init__(self, connection: AgentConnection, tls: ssl.SSLObject | None = None) -> None:
        self._connection = connection
        self._tls = tls
        self._rest = b""

    async def send(self, data: bytes) -> None:
        if self._tls is None:
            await self._connection.write(data)
            return
        self._tls.write(data)
        await self._connection.write(self._tls_out.read())

    async def receive(self) -> bytes:
        if self._tls is None:
            return await self._connection.read()
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                data = await self._connection.read()
                if not data:
                    return b""
                self._tls_in.write(data)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    @classmethod
    async def over_tls(
        cls, world: EgressWorld, name: str, *, protocols: tuple[str, ...] = ("http/1.1",)
    ) -> "Client":
        connection = await world.connect(name)
        context = ssl.create_default_context()
        world.runner.authority.configure_trust(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
        client = cls(connection, tls)
        client._tls_in, client._tls_out = incoming, outgoing
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                if data := outgoing.read():
                    await connection.write(data)
                answer = await connection.read()
                if not answer:
                    raise EOFError from None
                incoming.write(answer)
            else:
                if data := outgoing.read():
                    await connection.write(data)
                return client

    _tls_in: ssl.MemoryBIO
    _tls_out: ssl.MemoryBIO

    async def response(self) -> tuple[int, bytes, bytes]:
        """Returns status, head and body of the next response."""
        data = self._rest
        while b"\r\n\r\n" not in data:
            more = await self.receive()
            if not more:
                raise EOFError(data)
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        size = 0
        if b"content-length:" in head.lower():
            size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < size:
            body += await self.receive()
        self._rest = body[size:]
        return int(head.split()[1]), head, body[:size]

    async def ask(self, data: bytes) -> tuple[int, dict[str, Any] | bytes]:
        await self.send(data)
        status, head, body = await self.response()
        return status, json.loads(body) if b"x-lns-reason" in head else body

    def finish(self) -> None:
        self._connection.finish()

    def reset(self) -> None:
        self._connection.reset()


@contextlib.asynccontextmanager
async def inspected(
    world: EgressWorld, origin: Origin, *, in_clear: bool = False, **inspection: Any
) -> AsyncIterator[Callable[[], Any]]:
    """Yields what makes clients of `api.test`, which is inspected."""
    async with served(origin, name="" if in_clear else "api.test") as target:
        ca = UPSTREAM_CA.cert_pem.bytes().decode()
        world.runner.add(
            "api.test",
            target=target,
            mode=Mode.INSPECT,
            inspection=Inspection(**inspection),
            upstream=UpstreamTrust(ca=ca),
        )

        async def client() -> Client:
            if in_clear:
                return Client(await world.connect("api.test", 80))
            return await Client.over_tls(world, "api.test")

        yield client


def configure(world: EgressWorld, *domains: str) -> None:
    placeholder = Placeholder(text=PLACEHOLDER, credential="github", domains=domains)
    world.runner.say(Configure(run="test", placeholders=(placeholder,)))


# ---- rules ----


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


# ---- hosts agree, and nothing is smuggled ----


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


# ---- what passes as it is ----


async def test_bodies_of_all_kinds_pass_both_ways(world: EgressWorld, origin: Origin) -> None:
    big = bytes(range(256)) * 4096
    origin.answer = lambda head, body: reply(body)
    async with inspected(world, origin) as connect:
        client = await connect()
        length = f"Content-Length: {len(big)}"
        assert await client.ask(request("/", length, method="PUT") + big) == (200, big)
        chunked = b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n"
        data = request("/", "Transfer-Encoding: chunked", method="POST") + chunked
        status, body = await client.ask(data)
        assert (status, body) == (200, chunked.removesuffix(b"\r\n"))


async def test_expect_continue_is_answered_by_the_host(world: EgressWorld, origin: Origin) -> None:
    async with inspected(world, origin) as connect:
        client = await connect()
        await client.send(request("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        assert (await client.response())[0] == 100
        await client.send(b"ok")
        assert (await client.response())[0] == 200
    assert origin.requests[0][1] == b"ok"


async def test_events_reach_the_program_as_they_come(world: EgressWorld, origin: Origin) -> None:
    going_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await writer.drain()
            await going_on.wait()
            going_on.clear()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin) as connect:
        client = await connect()
        await client.send(request())
        data = b""
        for number in range(3):
            while b"data: %d\n\n" % number not in data:
                data += await client.receive()
            going_on.set()
        assert await client.receive() == b""


async def test_a_websocket_is_opaque_after_its_101(world: EgressWorld, origin: Origin) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\n\r\nfirst"
        )
        while data := await reader.read(1000):
            writer.write(data[::-1])
            await writer.drain()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin, rules=rules(("GET", "/ws"))) as connect:
        client = await connect()
        await client.send(request("/ws", "Upgrade: websocket", "Connection: Upgrade"))
        data = b""
        while b"first" not in data:
            data += await client.receive()
        for frame in (b"\x81\x05hello", b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"):
            await client.send(frame)
            assert await client.receive() == frame[::-1]


async def test_an_early_reply_does_not_wait_for_the_body(
    world: EgressWorld, origin: Origin
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"too large", b"connection: close", status=b"413 Too Large"))
        await writer.drain()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request("/", "Content-Length: 1000000", method="POST") + b"x")
        status, _, body = await client.response()
    assert (status, body) == (413, b"too large")


async def test_a_program_that_hangs_up_ends_its_request_at_the_host(
    world: EgressWorld, origin: Origin
) -> None:
    gone = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    origin.handle = handle  # type: ignore[method-assign] - another server
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request())
        await world.runner.wait_for(RequestDecided)
        client._connection.reset()
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_a_reply_that_is_invalid_is_not_passed_on(
    world: EgressWorld, origin: Origin, answer: bytes
) -> None:
    origin.answer = lambda head, body: answer
    async with inspected(world, origin, in_clear=True) as connect:
        client = await connect()
        await client.send(request())
        with contextlib.suppress(Reset, EOFError):
            status, _, _ = await client.response()
            assert status in (101, 502)
        client.finish()
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.UPSTREAM_PROTOCOL


# ---- TLS ----


async def test_the_other_end_is_verified_by_the_name(world: EgressWorld, origin: Origin) -> None:
    async with served(origin, name="other.test") as target:
        ca = UPSTREAM_CA.cert_pem.bytes().decode()
        world.runner.add(
            "api.test", target=target, mode=Mode.INSPECT, upstream=UpstreamTrust(ca=ca)
        )
        client = await Client.over_tls(world, "api.test")
        status, denial = await client.ask(request())

    assert status == 502
    assert isinstance(denial, dict)
    assert "certificate is not valid" in denial["error"]
    assert origin.requests == []


async def test_a_private_ca_counts_only_where_it_is_named(
    world: EgressWorld, origin: Origin
) -> None:
    async with served(origin, name="api.test") as target:
        world.runner.add("api.test", target=target, mode=Mode.INSPECT)
        client = await Client.over_tls(world, "api.test")
        assert (await client.ask(request()))[0] == 502
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.UPSTREAM_TLS


async def test_a_client_without_alpn_is_served(world: EgressWorld, origin: Origin) -> None:
    async with inspected(world, origin):
        client = await Client.over_tls(world, "api.test", protocols=())
        assert await client.ask(request()) == (200, b"hello")


async def test_a_large_upload_and_download_under_tls(world: EgressWorld, origin: Origin) -> None:
    size = 8 << 20
    origin.answer = lambda head, body: reply(body)
    async with inspected(world, origin) as connect:
        client = await connect()
        body = b"\xab" * size
        sending = asyncio.create_task(
            client.send(request("/", f"Content-Length: {size}", method="POST") + body)
        )
        status, _, received = await client.response()
        await sending
    assert (status, len(received), received == body) == (200, size, True)


# ---- credentials ----


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
