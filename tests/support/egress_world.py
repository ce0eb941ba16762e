"""An egress worker between a fake agent and a fake runner, with real servers behind it."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trustme

from services.vm_runner.channel.session import open_session
from services.vm_runner.egress_worker import control
from services.vm_runner.egress_worker.control_socket import receive_packet, send_packet
from services.vm_runner.egress_worker.guest_port import GuestPort
from services.vm_runner.egress_worker.orders import (
    Configure,
    Grant,
    Inspection,
    Leaf,
    Mode,
    Refuse,
    ToWorker,
    UpstreamTrust,
)
from services.vm_runner.egress_worker.reports import Ask, Hello, ToRunner
from services.vm_runner.egress_worker.tls import GuestContexts, UpstreamContexts
from services.vm_runner.egress_worker.worker import Worker
from tests.fakes.egress_agent import AgentConnection, FakeAgent

_Report = TypeVar("_Report", bound=ToRunner)


@dataclass(kw_only=True)
class Route:
    """How the fake runner treats a name.

    Attributes:
        target: where the name is served.
        mode: how its connections are treated.
        inspection: what holds for their requests.
        upstream: whom it trusts.
        by_address: whether the guest is taken to have asked for the address itself.
    """

    target: tuple[str, int] = ("127.0.0.1", 0)
    mode: Mode = Mode.PASS
    inspection: Inspection = field(default_factory=Inspection)
    upstream: UpstreamTrust = field(default_factory=UpstreamTrust)
    by_address: str = ""


class FakeRunner:
    """The runner's end of the control socket: grants what it has routes for."""

    def __init__(self, path: Path, authority: trustme.CA) -> None:
        self.path = path
        self.authority = authority
        self.routes: dict[str, Route] = {}
        self.names: dict[str, str] = {}
        self.reports: list[ToRunner] = []
        self.asks: list[Ask] = []
        self.answering: Callable[[ToRunner], Awaitable[None]] | None = None
        self._connections = 0
        self._news = asyncio.Event()

    def add(self, name: str, **route: object) -> str:
        """Gives a name an address of the guest's and returns that."""
        address = f"198.18.0.{len(self.names) + 1}"
        self.names[address] = name
        self.routes[name] = Route(**route)  # type: ignore[arg-type] - fields of a route
        return address

    async def connect(self) -> None:
        """Connects to the worker."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(self.path))
        self._socket.setblocking(False)
        self._task = asyncio.create_task(self._read())

    async def disconnect(self) -> None:
        """Dies, as far as the worker can see."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._socket.close()

    def say(self, order: ToWorker, connection: socket.socket | None = None) -> None:
        """Sends an order."""
        descriptors = (connection.fileno(),) if connection else ()
        send_packet(self._socket, control.encode(order), descriptors)

    async def wait_for(
        self, kind: type[_Report], test: Callable[[_Report], bool] = lambda _: True
    ) -> _Report:
        """Waits for a report of a kind that passes a test."""
        while True:
            for report in self.reports:
                if isinstance(report, kind) and test(report):
                    return report
            self._news.clear()
            await self._news.wait()

    def of_kind(self, kind: type[_Report]) -> list[_Report]:
        """Returns the reports of a kind so far."""
        return [report for report in self.reports if isinstance(report, kind)]

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, _ = receive_packet(self._socket)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(
                    self._socket, lambda ready=ready: ready.done() or ready.set_result(0)
                )
                try:
                    await ready
                finally:
                    loop.remove_reader(self._socket)
                continue
            if not data:
                return
            message = control.decode_to_runner(data)
            self.reports.append(message)
            self._news.set()
            if isinstance(message, Ask):
                self.asks.append(message)
                await self._decide(message)
            elif self.answering is not None and not isinstance(message, Hello):
                await self.answering(message)

    async def _decide(self, ask: Ask) -> None:
        name = ask.name or self.names.get(socket.inet_ntoa(ask.address[-4:]), "")
        route = self.routes.get(name)
        if route is None:
            self.say(Refuse(ticket=ask.ticket))
            return
        self._connections += 1
        dialled = None
        if route.mode is not Mode.PAGE:
            dialled = socket.create_connection(route.target)
        known = route.by_address or name
        leaf = self.authority.issue_cert(known) if route.mode is Mode.INSPECT else None
        grant = Grant(
            ticket=ask.ticket,
            connection=self._connections,
            mode=route.mode,
            port=ask.port,
            name="" if route.by_address else name,
            address=route.by_address or route.target[0],
            inspection=route.inspection,
            leaf=leaf_of(leaf) if leaf else None,
            upstream=route.upstream,
        )
        self.say(grant, dialled)
        if dialled is not None:
            dialled.close()


def leaf_of(certificate: trustme.LeafCert) -> Leaf:
    """Returns a certificate as a grant has it."""
    chain = b"".join(one.bytes() for one in certificate.cert_chain_pems)
    return Leaf(chain=chain, key=certificate.private_key_pem.bytes())


@dataclass(kw_only=True)
class EgressWorld:
    """A worker and its surroundings."""

    agent: FakeAgent
    runner: FakeRunner
    worker: Worker

    async def connect(self, name: str, port: int = 443) -> AgentConnection:
        """Connects a program of the guest to a name that has a route."""
        address = next(one for one, other in self.runner.names.items() if other == name)
        return await self.agent.connect(address, port)


_CONTEXTS: list[UpstreamContexts] = []


@contextlib.asynccontextmanager
async def egress_world() -> AsyncIterator[EgressWorld]:
    """Yields a worker in this process, between an agent and a runner."""
    if not _CONTEXTS:
        _CONTEXTS.append(UpstreamContexts())
    with tempfile.TemporaryDirectory(prefix="lns") as directory:
        path = Path(directory) / "egress.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        listener.listen(4)
        ours, theirs = socket.socketpair()
        runner = FakeRunner(path, trustme.CA())
        async with contextlib.AsyncExitStack() as stack:
            agent = FakeAgent(theirs)
            entering = asyncio.create_task(stack.enter_async_context(agent))
            session = await stack.enter_async_context(
                open_session(GuestPort(ours), answer_seconds=20)
            )
            await entering
            worker = Worker(
                session,
                listener,
                guest_contexts=GuestContexts(),
                upstream_contexts=_CONTEXTS[0],
            )
            task = asyncio.create_task(worker.serve())
            await runner.connect()
            runner.say(Configure(run="test"))
            try:
                yield EgressWorld(agent=agent, runner=runner, worker=worker)
            finally:
                await runner.disconnect()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        listener.close()
