"""Egress workers, names and connections for tests of the boundary."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from services.chassis.blocking import Blocking
from services.core.egress.addresses import Address
from services.core.errors import VmFailed
from services.vm_runner.adapters.egress.authorities import RunAuthorities
from services.vm_runner.adapters.egress.boundary_files import BoundaryFiles
from services.vm_runner.boundary.approvals import Approvals
from services.vm_runner.boundary.boundary import BoundaryOutside, BoundarySettings
from services.vm_runner.boundary.ports import HostUnreachable
from services.vm_runner.boundary.run_credentials import CredentialSource
from services.vm_runner.egress_worker.orders import ToWorker
from services.vm_runner.egress_worker.reports import Hello, ToRunner
from tests.fakes.credentials import credential_source

SETTINGS = BoundarySettings(names=IPv4Network("198.18.0.0/15"), connections=64, waiting=32)


class FakeLink:
    """A link whose worker is the test: `say` is the worker's side, `heard` what it was told."""

    def __init__(self, hello: Hello) -> None:
        self.heard: asyncio.Queue[ToWorker] = asyncio.Queue()
        self.connections: list[socket.socket] = []
        self._said: asyncio.Queue[ToRunner | None] = asyncio.Queue()
        self._said.put_nowait(hello)
        self.closed = False

    def say(self, message: ToRunner) -> None:
        self._said.put_nowait(message)

    def end(self) -> None:
        self._said.put_nowait(None)

    async def hear(self) -> ToWorker:
        """Return the next order; fail if none comes."""
        async with asyncio.timeout(5):
            return await self.heard.get()

    async def messages(self) -> AsyncIterator[ToRunner]:
        while (message := await self._said.get()) is not None:
            yield message

    async def send(self, message: ToWorker, connection: socket.socket | None = None) -> None:
        await asyncio.sleep(0)
        if self.closed:
            raise BrokenPipeError
        if connection is not None:
            self.connections.append(connection.dup())
        self.heard.put_nowait(message)

    async def close(self) -> None:
        self.closed = True
        for connection in self.connections:
            connection.close()


@dataclass(slots=True)
class FakeWorkers:
    """Workers that are links to the test."""

    links: asyncio.Queue[FakeLink] = field(default_factory=asyncio.Queue)
    adopted: FakeLink | None = None
    fail: VmFailed | None = None
    started: int = 0
    ended_runs: list[str] = field(default_factory=list)

    async def adopt(self, run_id: str, directory: Path) -> FakeLink | None:
        link, self.adopted = self.adopted, None
        return link

    async def start(self, run_id: str, directory: Path) -> FakeLink:
        await asyncio.sleep(0)
        if self.fail is not None:
            raise self.fail
        self.started += 1
        link = FakeLink(Hello(version=1))
        self.links.put_nowait(link)
        return link

    async def ended(self, run_id: str, directory: Path) -> None:
        self.ended_runs.append(run_id)


@dataclass(slots=True)
class FakeNetwork:
    """A host with the names that a test gives; counts what is looked up and dialled."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None

    async def resolve(self, name: str) -> tuple[Address, ...]:
        self.looked_up.append(name)
        if self.gate is not None:
            await self.gate.wait()
        if name not in self.names:
            raise HostUnreachable(f"{name}: no such name")
        return tuple(ipaddress.ip_address(text) for text in self.names[name])

    async def dial(self, address: Address, port: int) -> socket.socket:
        self.dialled.append((str(address), port))
        if str(address) in self.dead:
            raise HostUnreachable(f"{address} port {port}: Connection refused")
        one, other = socket.socketpair()
        other.close()
        return one


def boundary_outside(
    blocking: Blocking,
    *,
    workers: FakeWorkers | None = None,
    network: FakeNetwork | None = None,
    approvals: Approvals | None = None,
    credentials: CredentialSource | None = None,
) -> BoundaryOutside:
    """Return the outside of a boundary: real files, and what else a test gives."""
    return BoundaryOutside(
        workers=workers or FakeWorkers(),
        network=network or FakeNetwork(),
        files=BoundaryFiles(blocking=blocking),
        authorities=RunAuthorities(blocking=blocking),
        approvals=approvals or Approvals(),
        credentials=credentials or credential_source(),
        settings=SETTINGS,
    )
