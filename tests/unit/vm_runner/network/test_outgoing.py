"""What becomes of the connections that a guest's programs begin."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.events import Opening
from services.vm_runner.network.outgoing import CONNECTIONS_MAX, Outgoing
from services.vm_runner.records.groups import Group
from services.vm_runner.records.runs import Run
from tests.support.eventually import eventually
from tests.support.runs import a_run

TEAM = Group(group_id="0123456789abcdef" * 2, name="team", members=("writer", "critic"))
CRITIC = IPv4Address("127.77.1.2")


class Stream:
    """A stream that carries nothing until it is let go."""

    def __init__(self) -> None:
        self.is_reset = False
        self._over = asyncio.Event()

    async def receive(self) -> tuple[bytes, bool]:
        await self._over.wait()
        raise GuestUnreachable("the session ended")

    def reset(self) -> None:
        self.is_reset = True
        self._over.set()


class Session:
    """A guest's session as far as `Outgoing` uses it."""

    def __init__(self) -> None:
        self.openings: asyncio.Queue[Opening] = asyncio.Queue()
        self.refused: list[int] = []
        self.defects: set[int] = set()
        self.admitted: dict[int, Stream] = {}
        self.gives_up = False

    @property
    def connections(self) -> "Session":
        return self

    def ask(self, ticket: int, address: IPv4Address = CRITIC, port: int = 80) -> None:
        self.openings.put_nowait(Opening(ticket=ticket, address=address, port=port))

    async def next_opening(self) -> Opening:
        return await self.openings.get()

    def refuse(self, ticket: int) -> None:
        self.refused.append(ticket)

    async def admit(self, ticket: int) -> Any:
        if ticket in self.defects:
            raise KeyError("a defect")
        if self.gives_up:
            raise GuestUnreachable("it has given up")
        self.admitted[ticket] = Stream()
        return self.admitted[ticket]


class Peer:
    """Another run, which boots until it is `up`, and then accepts at port 80."""

    def __init__(self, *, up: bool = True, alive: bool = True) -> None:
        self.up = asyncio.Event()
        if up:
            self.up.set()
        self.alive = alive
        self.streams: list[Stream] = []

    async def workload(self) -> Any:
        await self.up.wait()
        return (self, None) if self.alive else None

    @property
    def connections(self) -> "Peer":
        return self

    async def connect(self, port: int) -> Any:
        if port != 80:
            raise GuestUnreachable("nobody listens")
        self.streams.append(Stream())
        return self.streams[-1]


def member(name: str = "writer", group: Group | None = TEAM) -> Run:
    run = a_run()
    return replace(run, group=group, plan=replace(run.plan, member=name))


@contextlib.asynccontextmanager
async def served(
    peer: Peer | None, run: Run | None = None, *, boot_seconds: float = 5
) -> AsyncIterator[Session]:
    def peers(asker: Run, name: str) -> Any:
        assert (asker.group, name) == (TEAM, "critic")
        return peer

    session: Any = Session()
    outgoing = Outgoing(lambda: run or member(), peers, boot_seconds=boot_seconds)
    async with outgoing.serving(session):
        yield session


async def test_a_defect_in_one_connection_ends_that_one_and_no_other() -> None:
    peer = Peer()
    async with served(peer) as session:
        session.defects.add(1)
        session.ask(1)
        await eventually(lambda: bool(peer.streams) and peer.streams[0].is_reset)
        session.ask(2)
        await eventually(lambda: 2 in session.admitted)


async def test_a_member_of_the_group_is_connected_to() -> None:
    peer = Peer()
    async with served(peer) as session:
        session.ask(1)
        await eventually(lambda: 1 in session.admitted)

        assert session.refused == []
    assert session.admitted[1].is_reset
    assert peer.streams[0].is_reset


@pytest.mark.parametrize(
    "address",
    ["127.77.1.3", "127.77.0.1", "127.77.0.0", "127.0.0.1", "169.254.169.254", "0.0.0.0"],  # noqa: S104  # not listened at
)
async def test_an_address_that_stands_for_nobody_is_refused(address: str) -> None:
    async with served(Peer()) as session:
        session.ask(1, IPv4Address(address))
        await eventually(lambda: session.refused == [1])


async def test_a_run_without_a_group_reaches_nobody_whatever_its_guest_asks() -> None:
    async with served(Peer(), member(group=None)) as session:
        session.ask(1)
        await eventually(lambda: session.refused == [1])


@pytest.mark.parametrize(
    ("peer", "port"),
    [(None, 80), (Peer(alive=False), 80), (Peer(), 81), (Peer(), 0)],
    ids=["never made", "ended", "not listening", "no port"],
)
async def test_a_peer_that_does_not_answer_is_refused(peer: Peer | None, port: int) -> None:
    async with served(peer) as session:
        session.ask(1, port=port)
        await eventually(lambda: session.refused == [1])

        assert not session.admitted


async def test_a_peer_that_boots_is_waited_for_and_others_are_not_held_up() -> None:
    peer = Peer(up=False)
    async with served(peer) as session:
        session.ask(1)
        session.ask(2, IPv4Address("127.77.1.9"))
        await eventually(lambda: session.refused == [2])
        assert not session.admitted

        peer.up.set()
        await eventually(lambda: 1 in session.admitted)


async def test_a_peer_that_does_not_come_up_is_refused_in_the_end() -> None:
    async with served(Peer(up=False), boot_seconds=0.01) as session:
        session.ask(1)
        await eventually(lambda: session.refused == [1])


async def test_a_program_that_gave_up_leaves_nothing_at_its_peer() -> None:
    peer = Peer()
    async with served(peer) as session:
        session.gives_up = True
        session.ask(1)
        await eventually(lambda: bool(peer.streams) and peer.streams[0].is_reset)

        session.gives_up = False
        session.ask(2)
        await eventually(lambda: 2 in session.admitted)


async def test_open_connections_are_limited_and_have_room_again_afterwards() -> None:
    peer = Peer()
    async with served(peer) as session:
        for ticket in range(1, CONNECTIONS_MAX + 2):
            session.ask(ticket)
        await eventually(lambda: len(session.admitted) == CONNECTIONS_MAX)
        await eventually(lambda: session.refused == [CONNECTIONS_MAX + 1])

        peer.streams[0].reset()
        tickets = itertools.count(9999)

        def is_admitted_again() -> bool:
            session.ask(next(tickets))
            return max(session.admitted) >= 9999

        await eventually(is_admitted_again)
