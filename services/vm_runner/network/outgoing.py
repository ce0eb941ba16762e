"""Connections that the programs of a guest begin: decided here, carried to another run's guest.

The agent says to which address and port; the group that this host recorded says which run that is.
Everything else is refused, as a host without a listener would. Each connection is a task with two
streams and their windows between them, so that one that stands still holds up nothing else.

Egress (a later part) takes the same way: another kind of destination beside `Peers`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from services.core.errors import GuestUnreachable, LnsError
from services.vm_runner.channel.events import Opening
from services.vm_runner.channel.handles import GuestProcess, GuestStream
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.records import groups
from services.vm_runner.records.runs import Run

log = structlog.get_logger()

CONNECTIONS_MAX = 512
"""Connections that the programs of one run have begun and that are open; more are refused."""

_CONNECT_SECONDS = 10.0


class Peer(Protocol):
    """Another run of the group."""

    async def workload(self) -> tuple[GuestSession, GuestProcess] | None:
        """Waits until its workload can be reached; returns None if it does not live."""
        ...


Peers = Callable[[Run, str], Peer | None]
"""Returns the run that is a member of the given run's group by some name, if it is recorded."""


class Outgoing:
    """The connections that the programs of one run begin.

    Args:
        run: the run as it is recorded.
        peers: finds other runs of its group.
        boot_seconds: how long a peer that boots is waited for.
    """

    def __init__(self, run: Callable[[], Run], peers: Peers, *, boot_seconds: float) -> None:
        self._run = run
        self._peers = peers
        self._boot_seconds = boot_seconds

    @contextlib.asynccontextmanager
    async def serving(self, session: GuestSession) -> AsyncIterator[None]:
        """Answers what a guest asks for while the block runs."""
        task = asyncio.create_task(self.serve(session))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def serve(self, session: GuestSession) -> None:
        """Answers what a guest asks for until cancelled; its connections end with that."""
        async with asyncio.TaskGroup() as connections:
            open_now: set[asyncio.Task[None]] = set()
            while True:
                opening = await session.connections.next_opening()
                peer = self._destination(opening)
                if peer is None or len(open_now) >= CONNECTIONS_MAX:
                    session.connections.refuse(opening.ticket)
                    continue
                task = connections.create_task(self._connect(session, opening, peer))
                open_now.add(task)
                task.add_done_callback(open_now.discard)

    def _destination(self, opening: Opening) -> Peer | None:
        run = self._run()
        member = groups.member_at(run.group, opening.address) if run.group else None
        return self._peers(run, member) if member else None

    async def _connect(self, session: GuestSession, opening: Opening, peer: Peer) -> None:
        try:
            far = await self._reach(peer, opening.port)
            if far is None:
                session.connections.refuse(opening.ticket)
                return
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    near = await session.connections.admit(opening.ticket)
            except BaseException:
                far.reset()
                raise
            await carry(near, far)
        except (LnsError, TimeoutError) as error:
            log.debug("peer_connection_failed", port=opening.port, error=str(error))
        except Exception:  # a defect ends this connection, and no other of the run
            log.exception("peer_connection_failed", port=opening.port)

    async def _reach(self, peer: Peer, port: int) -> GuestStream | None:
        """Connects to a port of a peer; None if it does not live, or nobody listens there."""
        try:
            async with asyncio.timeout(self._boot_seconds):
                found = await peer.workload()
            if found is None or not port:
                return None
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await found[0].connections.connect(port)
        except (TimeoutError, LnsError):
            return None


async def carry(one: GuestStream, other: GuestStream) -> None:
    """Carries bytes between two streams, both ways, until both have ended; one may end first.

    Raises:
        GuestUnreachable: one of them broke; both are given up.
    """
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_carry_one_way(one, other))
            ways.create_task(_carry_one_way(other, one))
    except BaseException as error:
        one.reset()
        other.reset()
        if isinstance(error, BaseExceptionGroup):
            raise GuestUnreachable("the connection broke") from error
        raise
    one.leave()
    other.leave()


async def _carry_one_way(source: GuestStream, sink: GuestStream) -> None:
    ended = False
    while not ended:
        data, ended = await source.receive()
        await sink.write(data)  # what nobody reads any more is dropped; the other way may go on
        source.acknowledge(len(data))
    sink.finish()
    await sink.drain()
    source.acknowledge(0, ended=True)
