"""HTTP/2 that is looked into: judged stream by stream, passed frame by frame.

Numbers in brackets are the rows of ways out.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
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
from tests.support.eventually import eventually

PLACEHOLDER = "sk-lns-placeholder-000000000000"
SECRET = "sk-the-real-one"
CA = trustme.CA()

Headers = list[tuple[str, str]]


class Origin:
    """An HTTP/2 server whose streams a function answers."""

    def __init__(self) -> None:
        self.requests: list[Headers] = []
        self.resets: list[int] = []
        self.trailers: list[Headers] = []
        self.bodies: dict[int, bytes] = {}
        self.answer: Callable[[Served, int, Headers, bytes], None] = lambda served, stream, *_: (
            served.reply(stream, b"hello")
        )
        self.settings: dict[int, int] = {}
        self.on_data: Callable[[Served, int, bytes], None] | None = None
        self.on_headers: Callable[[Served, int, Headers], bool] = lambda *_: False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await Served(self, writer).serve(reader)
        writer.close()


class Served:
    """One connection of an origin."""

    def __init__(self, origin: Origin, writer: asyncio.StreamWriter) -> None:
        self.origin = origin
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self._writer = writer
        self._heads: dict[int, Headers] = {}
        self._pending: dict[int, tuple[bytes, Headers | None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        self.h2.update_settings(self.origin.settings)
        self.h2.initiate_connection()
        self.flush()
        while data := await reader.read(65536):
            for event in self.h2.receive_data(data):
                self._on_event(event)
            self.flush()

    def _on_event(self, event: h2.events.Event) -> None:
        origin = self.origin
        match event:
            case h2.events.RequestReceived():
                headers = [(str(one[0]), str(one[1])) for one in event.headers]
                origin.requests.append(headers)
                self._heads[event.stream_id] = headers
                origin.bodies[event.stream_id] = b""
                if origin.on_headers(self, event.stream_id, headers):
                    self._heads.pop(event.stream_id)
            case h2.events.DataReceived():
                origin.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if origin.on_data is not None:
                    origin.on_data(self, event.stream_id, event.data)
            case h2.events.TrailersReceived():
                origin.trailers.append([(str(one[0]), str(one[1])) for one in event.headers])
            case h2.events.StreamEnded():
                if event.stream_id in self._heads:
                    head = self._heads.pop(event.stream_id)
                    origin.answer(self, event.stream_id, head, origin.bodies[event.stream_id])
            case h2.events.StreamReset():
                origin.resets.append(event.stream_id)
            case h2.events.WindowUpdated():
                for stream in list(self._pending):
                    self._send_pending(stream)

    def reply(
        self, stream: int, body: bytes, *more: tuple[str, str], trailers: Headers | None = None
    ) -> None:
        self.h2.send_headers(stream, [(":status", "200"), *more])
        self._pending[stream] = (body, trailers)
        self._send_pending(stream)

    def _send_pending(self, stream: int) -> None:
        body, trailers = self._pending[stream]
        while body:
            size = min(
                len(body),
                self.h2.local_flow_control_window(stream),
                self.h2.max_outbound_frame_size,
            )
            if not size:
                self._pending[stream] = (body, trailers)
                self.flush()
                return
            self.h2.send_data(stream, body[:size])
            body = body[size:]
        del self._pending[stream]
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
        else:
            self.h2.end_stream(stream)
        self.flush()

    def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())


class Client:
    """A program of the guest that speaks HTTP/2, under TLS or with prior knowledge."""

    def __init__(self, connection: AgentConnection, tls: ssl.SSLObject | None) -> None:
        self.connection = connection
        self._tls = tls
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.replies: dict[int, dict[str, Any]] = {}
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None
        self._changed = asyncio.Event()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    @classmethod
    async def connect(cls, world: EgressWorld, *, in_clear: bool = False) -> "Client":
        connection = await world.connect("api.test", 80 if in_clear else 443)
        client = cls(connection, None)
        if not in_clear:
            context = ssl.create_default_context()
            world.runner.authority.configure_trust(context)
            context.set_alpn_protocols(["h2", "http/1.1"])
            client._tls = context.wrap_bio(
                client._incoming, client._outgoing, server_hostname="api.test"
            )
            await client._handshake()
            assert client._tls.selected_alpn_protocol() == "h2"
        client.h2.initiate_connection()
        await client.flush()
        client.task = asyncio.create_task(client._read())
        return client

    task: asyncio.Task[None]

    async def _handshake(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                if data := self._outgoing.read():
                    await self.connection.write(data)
                answer = await self.connection.read()
                if not answer:
                    raise EOFError from None
                self._incoming.write(answer)
            else:
                if data := self._outgoing.read():
                    await self.connection.write(data)
                return

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if not data:
            return
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        await self.connection.write(data)

    async def _read(self) -> None:
        with contextlib.suppress(Reset, h2.exceptions.ProtocolError):
            while data := await self._receive():
                for event in self.h2.receive_data(data):
                    self._on_event(event)
                await self.flush()
                self._changed.set()
        self.goaway = self.goaway if self.goaway is not None else -1
        self._changed.set()

    async def _receive(self) -> bytes:
        if self._tls is None:
            return await self.connection.read()
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                data = await self.connection.read()
                if not data:
                    return b""
                self._incoming.write(data)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                headers = {str(one[0]): str(one[1]) for one in event.headers}
                self._reply(event.stream_id)["headers"] = headers
            case h2.events.InformationalResponseReceived():
                self._reply(event.stream_id)["informational"] = True
            case h2.events.DataReceived():
                self._reply(event.stream_id)["body"] += event.data
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self._reply(event.stream_id)["trailers"] = {
                    str(one[0]): str(one[1]) for one in event.headers
                }
            case h2.events.StreamEnded():
                self._reply(event.stream_id)["ended"] = True
            case h2.events.StreamReset():
                self.resets[event.stream_id] = event.error_code
            case h2.events.ConnectionTerminated():
                self.goaway = event.error_code

    def _reply(self, stream: int) -> dict[str, Any]:
        return self.replies.setdefault(
            stream, {"headers": {}, "body": b"", "trailers": {}, "ended": False}
        )

    def body(self, stream: int) -> bytes:
        return bytes(self.replies.get(stream, {}).get("body", b""))

    async def until(self, test: Callable[[], bool]) -> None:
        while not test():
            self._changed.clear()
            await self._changed.wait()

    async def begin(
        self, path: str = "/", *more: tuple[str, str], ends: bool = True, **pseudo: str
    ) -> int:
        stream = self.h2.get_next_available_stream_id()
        named = {
            "method": "GET",
            "scheme": "https",
            "authority": "api.test",
            "path": path,
            **pseudo,
        }
        headers = [(f":{name}", value) for name, value in named.items() if value]
        self.h2.send_headers(stream, [*headers, *more], end_stream=ends)
        await self.flush()
        return stream

    async def reply(self, stream: int) -> tuple[int, Any]:
        def is_there() -> bool:
            ended = self.replies.get(stream, {}).get("ended", False)
            return ended or stream in self.resets or self.goaway is not None

        await self.until(is_there)
        reply = self.replies.get(stream)
        if reply is None or not reply["headers"]:
            return 0, self.resets.get(stream)
        body = reply["body"]
        is_ours = "x-lns-reason" in reply["headers"]
        return int(reply["headers"][":status"]), json.loads(body) if is_ours and body else body

    async def ask(self, path: str = "/", *more: tuple[str, str], **pseudo: str) -> tuple[int, Any]:
        return await self.reply(await self.begin(path, *more, **pseudo))

    async def send(self, stream: int, body: bytes, *, ends: bool = True) -> None:
        while body and stream not in self.resets:
            window = self.h2.local_flow_control_window(stream)
            size = min(len(body), window, self.h2.max_outbound_frame_size)
            if not size:
                self._changed.clear()
                await self._changed.wait()
                continue
            self.h2.send_data(stream, body[:size])
            body = body[size:]
            await self.flush()
        if ends and stream not in self.resets:
            self.h2.end_stream(stream)
            await self.flush()

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def origin() -> Origin:
    return Origin()


@contextlib.asynccontextmanager
async def h2_client(
    world: EgressWorld,
    origin: Origin,
    *,
    in_clear: bool = False,
    mode: Mode = Mode.INSPECT,
    **inspection: Any,
) -> AsyncIterator[Client]:
    context = None
    if not in_clear:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        CA.issue_cert("api.test").configure_cert(context)
        context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(origin.handle, "127.0.0.1", 0, ssl=context)
    world.runner.add(
        "api.test",
        target=server.sockets[0].getsockname(),
        mode=mode,
        inspection=Inspection(**inspection),
        upstream=UpstreamTrust(ca=CA.cert_pem.bytes().decode()),
    )
    client = await Client.connect(world, in_clear=in_clear)
    try:
        yield client
    finally:
        await client.close()
        server.close()


def rules(*listed: tuple[str, str]) -> tuple[RouteRules, ...]:
    compiled = tuple(CompiledRule(method, path) for method, path in listed)
    return (RouteRules(rules=compiled, match="api.test", place="policy:1", source="policy"),)


def configure(world: EgressWorld, *domains: str) -> None:
    placeholder = Placeholder(text=PLACEHOLDER, credential="openai", domains=domains)
    world.runner.say(Configure(run="test", placeholders=(placeholder,)))


INJECTION = Injection(
    credential="openai", kind=InjectionKind.BEARER, domain="api.test", placeholder=PLACEHOLDER
)


async def test_a_refused_stream_gets_a_403_and_the_connection_lives_on(
    world: EgressWorld, origin: Origin
) -> None:
    async with h2_client(world, origin, rules=rules(("GET", "/ok/**"))) as client:
        assert await client.ask("/ok/1") == (200, b"hello")
        status, denial = await client.ask("/no")
        assert status == 403
        assert denial["error"] == "no rule permits GET /no"
        assert denial["host"] == "api.test:443"
        assert await client.ask("/ok/2") == (200, b"hello")
    decided = world.runner.of_kind(RequestDecided)
    assert [one.verdict for one in decided] == [
        RequestVerdict.ALLOWED,
        RequestVerdict.DENIED,
        RequestVerdict.ALLOWED,
    ]


async def test_a_large_refused_upload_costs_no_credit(world: EgressWorld, origin: Origin) -> None:
    async with h2_client(world, origin, rules=rules(("POST", "/ok"))) as client:
        for _ in range(4):
            stream = await client.begin("/no", method="POST", ends=False)
            with contextlib.suppress(h2.exceptions.ProtocolError):
                await client.send(stream, bytes(1 << 20))
            assert (await client.reply(stream))[0] == 403
        stream = await client.begin("/ok", method="POST", ends=False)
        await client.send(stream, bytes(1 << 20))
        assert (await client.reply(stream))[0] == 200
    assert max(map(len, origin.bodies.values())) == 1 << 20


async def test_many_refusals_leave_the_windows_right(world: EgressWorld, origin: Origin) -> None:
    big = bytes(300_000)
    origin.answer = lambda served, stream, *_: served.reply(stream, big)
    async with h2_client(world, origin, rules=rules(("GET", "/ok"))) as client:
        for _ in range(300):
            assert (await client.ask("/no"))[0] == 403
        for _ in range(3):
            assert await client.ask("/ok") == (200, big)


async def test_bodies_pass_at_the_pace_of_both_ends(world: EgressWorld, origin: Origin) -> None:
    body = bytes(range(256)) * 8192
    origin.answer = lambda served, stream, _, received: served.reply(stream, received)
    async with h2_client(world, origin) as client:
        streams = [await client.begin("/", method="POST", ends=False) for _ in range(3)]
        await asyncio.gather(*(client.send(stream, body) for stream in streams))
        for stream in streams:
            assert await client.reply(stream) == (200, body)


async def test_grpc_both_ways_with_trailers(world: EgressWorld, origin: Origin) -> None:
    def echo(served: Served, stream: int, data: bytes) -> None:
        served.h2.send_data(stream, data[::-1])

    def begin(served: Served, stream: int, headers: Headers) -> bool:
        served.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        return False

    def end(served: Served, stream: int, headers: Headers, body: bytes) -> None:
        served.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    origin.on_data, origin.on_headers, origin.answer = echo, begin, end
    async with h2_client(world, origin) as client:
        stream = await client.begin(
            "/pkg.Service/Method", ("te", "trailers"), method="POST", ends=False
        )
        for message in (b"\x00\x00\x00\x00\x01a", b"\x00\x00\x00\x00\x01b"):
            await client.send(stream, message, ends=False)
            await client.until(
                lambda m=message: client.replies.get(stream, {}).get("body", b"").endswith(m[::-1])
            )
        client.h2.send_headers(stream, [("x-end", "1")], end_stream=True)
        await client.flush()
        assert (await client.reply(stream))[0] == 200
        assert client.replies[stream]["trailers"] == {"grpc-status": "0"}
    assert origin.trailers == [[("x-end", "1")]]


async def test_a_reply_of_trailers_alone_passes(world: EgressWorld, origin: Origin) -> None:
    def end(served: Served, stream: int, headers: Headers, body: bytes) -> None:
        served.h2.send_headers(stream, [(":status", "200"), ("grpc-status", "12")], end_stream=True)

    origin.answer = end
    async with h2_client(world, origin) as client:
        stream = await client.begin("/", method="POST")
        await client.reply(stream)
        assert client.replies[stream]["headers"]["grpc-status"] == "12"


@pytest.mark.parametrize(
    ("pseudo", "more"),
    [
        ({"authority": "evil.test"}, ()),  # [15]
        ({"authority": "api.test:444"}, ()),
        ({"authority": "", "path": "/"}, ()),
        ({"method": "CONNECT", "scheme": "", "path": "", "authority": "evil.test:443"}, ()),
        ({"method": "CONNECT", "scheme": "", "path": "", "authority": "api.test:443"}, ()),
        ({"path": "/ok/../no"}, ()),
        ({"method": "CONNECT", "protocol": "connect-udp"}, ()),  # [26]
    ],
)
async def test_what_is_for_another_host_or_a_tunnel_gets_a_403(
    world: EgressWorld, origin: Origin, pseudo: dict[str, str], more: Headers
) -> None:
    async with h2_client(world, origin, rules=rules(("*", "/ok/**"))) as client:
        path = pseudo.pop("path", "/ok/1")
        status, _ = await client.ask(path, *more, **pseudo)
        assert status == 403
        assert (await client.ask("/ok/1"))[0] == 200
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    ("pseudo", "more"),
    [
        ({}, [("host", "evil.test")]),
        ({"scheme": "http"}, []),
        ({"path": "no-slash"}, []),
        ({}, [("Upper", "x")]),
        ({}, [("transfer-encoding", "chunked")]),
        ({}, [("connection", "upgrade")]),
        ({}, [("x", "a\r\nb: c")]),
        ({}, [(":late", "x")]),
        ({}, [("x", "y"), (":path", "/other")]),
        ({"unknown": "x"}, []),
    ],
)
async def test_a_malformed_request_gets_a_400(
    world: EgressWorld, origin: Origin, pseudo: dict[str, str], more: Headers
) -> None:
    async with h2_client(world, origin) as client:
        path = pseudo.pop("path", "/")
        assert (await client.ask(path, *more, **pseudo))[0] == 400
        assert (await client.ask())[0] == 200
    assert len(origin.requests) == 1


async def test_a_websocket_by_extended_connect_is_judged_like_a_get(
    world: EgressWorld, origin: Origin
) -> None:
    origin.settings = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
    origin.on_headers = lambda served, stream, headers: (
        served.h2.send_headers(stream, [(":status", "200")]) or True
    )
    origin.on_data = lambda served, stream, data: served.h2.send_data(stream, data[::-1])
    async with h2_client(world, origin, rules=rules(("GET", "/ws"))) as client:
        stream = await client.begin("/ws", method="CONNECT", protocol="websocket", ends=False)
        await client.send(stream, b"\x81\x02hi", ends=False)
        await client.until(lambda: client.body(stream) == b"ih\x02\x81")
        denied = await client.begin("/no", method="CONNECT", protocol="websocket", ends=False)
        assert (await client.reply(denied))[0] == 403


async def test_prior_knowledge_in_the_clear_is_judged_too(  # [25]
    world: EgressWorld, origin: Origin
) -> None:
    async with h2_client(world, origin, in_clear=True, mode=Mode.PASS) as client:
        assert (await client.ask(scheme="http"))[0] == 200
        assert (await client.ask(scheme="http", authority="evil.test"))[0] == 403
    assert len(origin.requests) == 1


async def test_a_secret_takes_its_place_and_is_masked_on_the_way_back(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "api.test")
    world.runner.say(Secret(credential="openai", value=SECRET))
    origin.answer = lambda served, stream, *_: served.reply(stream, b"", ("x-echo", SECRET))
    async with h2_client(world, origin, injections=(INJECTION,)) as client:
        for _ in range(3):
            stream = await client.begin("/", ("authorization", f"Bearer {PLACEHOLDER}"))
            await client.reply(stream)
            assert client.replies[stream]["headers"]["x-echo"] == PLACEHOLDER
    assert all(("authorization", f"Bearer {SECRET}") in one for one in origin.requests)


async def test_a_request_that_waits_for_its_secret_holds_up_no_other(
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "api.test")
    waiting: list[int] = []

    async def answer(message: ToRunner) -> None:
        if isinstance(message, CredentialWanted):
            waiting.append(message.request)

    world.runner.answering = answer
    origin.answer = lambda served, stream, _, body: served.reply(stream, body or b"none")
    async with h2_client(world, origin, injections=(INJECTION,)) as client:
        stream = await client.begin(
            "/", ("authorization", f"Bearer {PLACEHOLDER}"), method="POST", ends=False
        )
        await client.send(stream, b"its body")
        for _ in range(3):
            assert await client.ask() == (200, b"none")

        world.runner.say(Secret(credential="openai", value=SECRET))
        world.runner.say(CredentialAnswer(request=waiting[0], granted=True))
        assert await client.reply(stream) == (200, b"its body")

        late = await client.begin("/", ("authorization", f"Bearer {PLACEHOLDER}"))
        assert (await client.reply(late))[0] == 200


async def test_a_placeholder_for_another_host_is_refused_in_head_body_and_trailers(  # [48]
    world: EgressWorld, origin: Origin
) -> None:
    configure(world, "other.test")
    async with h2_client(world, origin) as client:
        assert (await client.ask("/", ("authorization", f"Bearer {PLACEHOLDER}")))[0] == 403
        assert (await client.ask(f"/?q={PLACEHOLDER}"))[0] == 403

        stream = await client.begin("/", method="POST", ends=False)
        await client.send(stream, PLACEHOLDER[:9].encode(), ends=False)
        await client.send(stream, PLACEHOLDER[9:].encode(), ends=False)
        status, denial = await client.reply(stream)
        assert status == 403
        assert "placeholder of openai" in denial["error"]

        stream = await client.begin("/", method="POST", ends=False)
        client.h2.send_headers(stream, [("x", PLACEHOLDER)], end_stream=True)
        await client.flush()
        assert (await client.reply(stream))[0] == 403
        assert (await client.ask())[0] == 200
    assert PLACEHOLDER.encode() not in b"".join(origin.bodies.values())
    assert origin.trailers == []


async def test_more_streams_than_the_bound_are_refused(
    world: EgressWorld, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.runner.say(Configure(run="test", limits=Limits(streams=3)))
    origin.answer = lambda *_: None
    async with h2_client(world, origin) as client:
        await client.until(lambda: client.h2.remote_settings.max_concurrent_streams == 3)
        monkeypatch.setattr(type(client.h2), "open_outbound_streams", property(lambda _: 0))
        streams = [await client.begin() for _ in range(4)]
        await client.until(lambda: bool(client.resets))
    assert client.resets == {streams[3]: 7}


async def test_a_reset_reaches_the_other_end(world: EgressWorld, origin: Origin) -> None:
    origin.answer = lambda *_: None
    async with h2_client(world, origin) as client:
        stream = await client.begin()
        await eventually(lambda: bool(origin.requests))
        client.h2.reset_stream(stream)
        await client.flush()
        await eventually(lambda: bool(origin.resets))

        origin.answer = lambda served, number, *_: served.h2.reset_stream(number, 11)
        assert await client.ask() == (0, 11)


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + bytes(4),  # a window update that is none
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",  # a frame without end
        b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff",  # headers that are none
        b"\x00\x00\x00\x09\x04\x00\x00\x00\x01",  # a continuation of nothing
        b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8),
        b"\x00\x00\x05\x04\x00\x00\x00\x00\x00" + bytes(5),  # settings that are none
        b"\x00\x00\x04\x05\x04\x00\x00\x00\x01" + bytes(4),  # a push by a client
        b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82",  # an even number
    ],
)
async def test_what_is_no_http2_ends_the_connection(
    world: EgressWorld, origin: Origin, data: bytes
) -> None:
    async with h2_client(world, origin, in_clear=True) as client:
        assert (await client.ask(scheme="http"))[0] == 200
        await client.connection.write(data)
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.MALFORMED


async def test_continuation_frames_without_end_are_cut_off(
    world: EgressWorld, origin: Origin
) -> None:
    async with h2_client(world, origin, in_clear=True) as client:
        await client.connection.write(b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82")
        with contextlib.suppress(Reset):
            for _ in range(100):
                frame = b"\x00\x10\x00\x09\x00\x00\x00\x00\x01" + b"\x82" * 4096
                await client.connection.write(frame)
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.MALFORMED
    assert origin.requests == []


async def test_a_table_that_unfolds_to_megabytes_is_cut_off(
    world: EgressWorld, origin: Origin
) -> None:
    async with h2_client(world, origin, in_clear=True) as client:
        name = b"\x40\x01x\x7f\x81\x1e" + b"a" * 4000  # enters the table
        block = b"\x82\x86\x84" + name + b"\xbe" * 60_00
        for at in range(0, len(block), 16000):
            piece = block[at : at + 16000]
            last = 4 if at + 16000 >= len(block) else 0
            kind = 1 if not at else 9
            head = len(piece).to_bytes(3, "big") + bytes((kind, last)) + b"\x00\x00\x00\x01"
            await client.connection.write(head + piece)
        closed = await world.runner.wait_for(Closed)
    assert closed.reason is Reason.MALFORMED


async def test_a_reply_that_is_broken_off_is_counted_too(
    world: EgressWorld, origin: Origin
) -> None:
    def begin(served: Served, stream: int, headers: Headers) -> bool:
        served.h2.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        served.h2.send_data(stream, b'data: {"usage": {"input_tokens": 9}}\n\n')
        return True

    origin.on_headers = begin
    async with h2_client(world, origin, budgets=("b",), usage="anthropic") as client:
        stream = await client.begin()
        await client.until(lambda: client.body(stream).endswith(b"\n\n"))
        client.h2.reset_stream(stream)
        await client.flush()
        usage = await world.runner.wait_for(Usage)
    assert (usage.input_tokens, usage.exact) == (9, True)
