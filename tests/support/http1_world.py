"""HTTP/1 through the egress worker: a program of the guest, a server, and what stands between."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import trustme

from services.core.egress.requests import CompiledRule, RouteRules
from services.core.integrations.definitions import InjectionKind
from services.vm_runner.egress_worker.orders import (
    Configure,
    Injection,
    Inspection,
    Mode,
    Placeholder,
    UpstreamTrust,
)
from tests.fakes.egress_agent import AgentConnection
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
