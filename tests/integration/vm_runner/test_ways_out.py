"""A guest whose agent is a hostile program: it speaks the wire protocol itself.

Everything is real but the guest: the worker's process, the runner's side of the boundary, the
host's sockets. A canary on the port that nothing may reach sees nobody.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import cast

import pytest

from services.chassis.blocking import Blocking
from services.core.egress import audit
from services.vm_runner.adapters.confinement.cgroups import Cgroups, find_place
from services.vm_runner.adapters.egress.host_network import HostNetwork
from services.vm_runner.adapters.egress.worker_processes import WorkerProcesses
from services.vm_runner.boundary.boundary import EGRESS_PORT, BoundarySettings, BoundedRun
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.channel.wire import Tag, encode_fields
from services.vm_runner.records.runs import RunOptions
from services.vm_runner.vmm_options import UserRange
from tests.fakes.egress import boundary_outside
from tests.fakes.egress_agent import AgentConnection, FakeAgent, Refused, Reset
from tests.support.runs import a_run

pytestmark = pytest.mark.integration

USERS = UserRange(first=1_900_000_000, count=1000)


@dataclass(slots=True)
class Server:
    """A server of the host that answers everything it hears."""

    port: int = 0
    visits: int = 0
    heard: bytes = b""
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        self.open.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.heard += data
                writer.write(b"answer")


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[Server]:
    one = Server()
    listening = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield one
        for writer in one.open:
            writer.transport.abort()


class Wanting:
    """A session that wants a host at its egress port."""

    def __init__(self) -> None:
        self.egress_wanted = asyncio.Event()
        self.egress_wanted.set()


class Looked(HostNetwork):
    """The host's network; remembers what is looked up."""

    def __init__(self, blocking: Blocking) -> None:
        names = {
            "api.test": "127.0.0.1", "rebind.test": "10.1.2.3", "meta.test": "169.254.169.254",
            "canary.test": "127.0.0.1", "evil.test": "127.0.0.1",
        }  # fmt: skip
        super().__init__(
            blocking=blocking,
            names={name: ipaddress.ip_address(text) for name, text in names.items()},
        )
        self.looked_up: list[str] = []

    async def resolve(self, name: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
        self.looked_up.append(name)
        return await super().resolve(name)


@dataclass(slots=True, kw_only=True)
class World:
    """A hostile guest and what it is kept from."""

    agent: FakeAgent
    allowed: Server
    canary: Server
    network: Looked
    directory: Path
    approvals_waiting: object

    async def open(self, where: str | bytes, port: int) -> AgentConnection:
        """Ask as no honest agent may: any name, any sixteen bytes."""
        tag = Tag.NAME if isinstance(where, str) else Tag.ADDRESS
        async with asyncio.timeout(20):
            return await self.agent.ask(encode_fields([(tag, where), (Tag.PORT, port)]))


@pytest.fixture
async def world(short_directory: Path) -> AsyncIterator[World]:
    directory = short_directory / "run"
    directory.mkdir()
    policy = short_directory / "lns-policy.yaml"
    arrived: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory / EGRESS_PORT.socket))
    listening.listen(1)
    listening.setblocking(False)

    async def accept() -> None:
        connection, _ = await asyncio.get_running_loop().sock_accept(listening)
        arrived.set_result(connection)

    run = replace(a_run(), options=RunOptions(policy_file=str(policy), approve_timeout=0.3))

    async def notice(text: str) -> None:
        print(text)  # noqa: T201 - what a failed test shows

    with Blocking(8) as blocking:
        async with server() as allowed, server() as canary:
            policy.write_text(
                "network:\n  defaultVerdict: deny\n  allowedRoutes:\n"
                f"  - {{match: 'api.test:{allowed.port}', verdict: allow}}\n"
                "  - {match: '*.wild.test', verdict: allow}\n"
                f"  - {{match: 'rebind.test', verdict: allow}}\n"
                f"  - {{match: 'meta.test', verdict: allow}}\n"
                f"  - {{match: 'ask.test', verdict: ask}}\n"
                f"  - {{match: '127.0.0.1/32:{allowed.port}', verdict: allow}}\n"
                f"  - {{match: 'host.lns.internal:{allowed.port}', verdict: allow}}\n"
            )
            network = Looked(blocking)
            outside = replace(
                boundary_outside(blocking),
                workers=WorkerProcesses(
                    cgroups=Cgroups(find_place(is_root=os.geteuid() == 0)),
                    users=USERS,
                    view_required=False,
                ),
                network=network,
                settings=BoundarySettings(names=IPv4Network("198.18.0.0/15")),
            )
            boundary = RunBoundary(
                BoundedRun(run=lambda: run, directory=directory, notice=notice), outside
            )
            accepting = asyncio.ensure_future(accept())
            async with boundary.serving(cast("GuestSession", Wanting())):
                async with asyncio.timeout(30):
                    connection = await arrived
                async with FakeAgent(connection) as agent:
                    yield World(
                        agent=agent, allowed=allowed, canary=canary, network=network,
                        directory=directory, approvals_waiting=outside.approvals,
                    )  # fmt: skip
            await accepting
            listening.close()
            await boundary.ended()


def mapped(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


OPENINGS: tuple[tuple[str | bytes, str], ...] = (
    ("evil.test", "canary"),
    ("canary.test", "canary"),
    ("api.test", "canary"),
    ("API.TEST.", "canary"),
    ("api.test.evil.test", "allowed"),
    ("evilapi.test", "allowed"),
    ("sub.api.test", "allowed"),
    ("wild.test", "canary"),
    ("wild.test.evil.test", "canary"),
    ("xn--pi-7ka.test", "allowed"),
    ("api.test\\.evil.test", "allowed"),
    ("api.test@evil.test", "canary"),
    ("127.0.0.1", "canary"),
    ("2130706433", "canary"),
    ("0x7f000001", "canary"),
    ("0177.0.0.1", "canary"),
    ("127.1", "canary"),
    ("[::1]", "canary"),
    ("::ffff:127.0.0.1", "canary"),
    ("localhost", "canary"),
    ("host.lns.internal", "canary"),
    ("x.lns.internal", "canary"),
    ("lns.internal", "canary"),
    ("rebind.test", "canary"),
    ("meta.test", "canary"),
    ("ask.test", "canary"),
    ("../../etc/passwd", "canary"),
    (" ", "canary"),
    ("a" * 253, "canary"),
    ("c2VjcmV0.evil.test", "canary"),
    (mapped("127.0.0.1"), "canary"),
    (mapped("127.0.0.2"), "allowed"),
    (mapped("::1"), "canary"),
    (mapped("10.0.0.1"), "canary"),
    (mapped("169.254.169.254"), "canary"),
    (mapped("0.1.2.3"), "canary"),
    (mapped("224.0.0.251"), "canary"),
    (mapped("255.255.255.255"), "canary"),
    (mapped("198.18.1.0"), "canary"),
    (mapped("64:ff9b::7f00:1"), "canary"),
    (mapped("2002:7f00:1::"), "canary"),
    (mapped("::7f00:1"), "canary"),
    (mapped("fe80::1"), "canary"),
    (mapped("fd00::1"), "canary"),
    (mapped("2001:db8::1"), "canary"),
    (mapped("8.8.8.8"), "canary"),
)


async def test_a_forged_opening_reaches_nothing_that_the_policy_does_not_name(
    world: World,
) -> None:
    ports = {"allowed": world.allowed.port, "canary": world.canary.port}
    for where, port in OPENINGS:
        with pytest.raises(Refused):
            await world.open(where, ports[port])
            raise AssertionError(f"{where!r} was reached")
    for port in (0, 22, 53, 853):
        with pytest.raises(Refused):
            await world.open("api.test", port)

    assert (world.canary.visits, world.allowed.visits) == (0, 0)
    # No name is looked up before it is allowed.
    assert set(world.network.looked_up) == {"rebind.test", "meta.test"}
    lines = (world.directory / "audit.jsonl").read_bytes().splitlines(keepends=True)
    denied = [line for line in audit.verified(lines) if line.values.get("verdict") == "deny"]
    assert len(denied) >= len(OPENINGS)
    assert all(line.values["reason"] for line in denied)


async def test_what_the_policy_names_is_reached_by_the_same_program(world: World) -> None:
    for where in ("api.test", "Api.Test", mapped("127.0.0.1"), "host.lns.internal"):
        connection = await world.open(where, world.allowed.port)
        await connection.write(b"\x00 not http, not tls")
        assert await connection.read_until(b"answer")
        connection.reset()
    assert world.canary.visits == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"GET http://evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
    ],
    ids=["another host", "absolute form", "CONNECT"],
)
async def test_a_connection_to_one_host_carries_no_request_for_another(
    world: World, sent: bytes
) -> None:
    connection = await world.open("api.test", world.allowed.port)
    with contextlib.suppress(Reset, EOFError):
        await connection.write(sent)
        async with asyncio.timeout(20):
            assert b" 403 " in await connection.read()
    assert b"evil.test" not in world.allowed.heard


async def test_an_address_stands_for_a_name_in_its_own_run_only(world: World) -> None:
    """What the agent of a run gives out means nothing here: names are asked for as names."""
    connection = await world.open("api.test", world.allowed.port)
    connection.reset()
    visits = world.allowed.visits
    for last in range(4):
        with pytest.raises(Refused):
            await world.open(mapped(f"198.18.1.{last}"), world.allowed.port)

    assert (world.canary.visits, world.allowed.visits) == (0, visits)
