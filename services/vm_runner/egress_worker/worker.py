"""The egress worker of one run: asks the runner for connections, carries them, reports on them."""

import asyncio
import errno
import itertools
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Final

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.events import Opening
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.egress_worker import control
from services.vm_runner.egress_worker.connection import Connection
from services.vm_runner.egress_worker.control_socket import ControlSocket
from services.vm_runner.egress_worker.endings import Ended
from services.vm_runner.egress_worker.orders import (
    AllowanceAnswer,
    Configure,
    CredentialAnswer,
    Grant,
    Mode,
    PageAnswer,
    Refuse,
    Revoke,
    Secret,
    Stop,
    ToWorker,
    Update,
)
from services.vm_runner.egress_worker.page import serve_pages
from services.vm_runner.egress_worker.questions import Questions
from services.vm_runner.egress_worker.reports import (
    Admitted,
    Ask,
    Closed,
    Hello,
    Notice,
    OpenConnection,
    Reason,
    ToRunner,
)
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.sides import GuestSide, SideLost, SocketSide
from services.vm_runner.egress_worker.tls import GuestContexts, UpstreamContexts

_NOTICE_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 30.0


@dataclass(slots=True, eq=False)
class _Open:
    """A connection that is granted."""

    grant: Grant
    host: SocketSide | None
    connection: Connection | None
    task: "asyncio.Task[None] | None" = None
    revoked: str | None = None


class Worker:
    """Everything of one run.

    Args:
        session: with the guest's agent on the egress port.
        listener: where runners connect.
        guest_contexts: certificates for names.
        upstream_contexts: roots.
    """

    def __init__(
        self,
        session: GuestSession,
        listener: socket.socket,
        *,
        guest_contexts: GuestContexts,
        upstream_contexts: UpstreamContexts,
    ) -> None:
        self.run = RunState()
        self._session = session
        self._control = ControlSocket(listener, greet=self._greet, handle=self._handle)
        self._guest_contexts = guest_contexts
        self._upstream_contexts = upstream_contexts
        self._asked: dict[int, Ask] = {}
        self._open: dict[int, _Open] = {}
        self._questions = Questions(self._control)
        self._noticed: dict[Reason, float] = {}
        self._stopped = asyncio.Event()
        self._connections: asyncio.TaskGroup

    async def serve(self) -> None:
        """Works until the guest's port is gone or the runner says that the run is over."""
        async with asyncio.TaskGroup() as self._connections:
            tasks = [
                self._connections.create_task(one)
                for one in (self._control.serve(), self._take_openings())
            ]
            ends = [
                asyncio.ensure_future(self._session.ended.wait()),
                asyncio.ensure_future(self._stopped.wait()),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, *ends, *(one.task for one in self._open.values() if one.task)):
                task.cancel()

    # ---- what the guest asks ----

    async def _take_openings(self) -> None:
        while True:
            opening = await self._session.connections.next_opening()
            limits = self.run.limits
            if len(self._open) >= limits.connections or len(self._asked) >= limits.waiting:
                self._session.connections.refuse(opening.ticket)
                self._notice(
                    Reason.LIMIT,
                    f"connections are refused: {len(self._open)} are open "
                    f"and {len(self._asked)} wait",
                )
                continue
            ask = ask_of(opening)
            self._asked[opening.ticket] = ask
            self._control.ask(ask)

    def _notice(self, reason: Reason, text: str) -> None:
        """Tells the run's notices, seldom however often it happens."""
        now = time.monotonic()
        if now - self._noticed.get(reason, -_NOTICE_SECONDS) >= _NOTICE_SECONDS:
            self._noticed[reason] = now
            self._control.say(Notice(reason=reason, text=text))

    # ---- what the runner says ----

    def _greet(self) -> list[ToRunner]:
        connections = tuple(
            OpenConnection(
                connection=number,
                port=one.grant.port,
                name=one.grant.name,
                address=one.grant.address,
                sent=one.host.sent if one.host else 0,
                received=one.host.received if one.host else 0,
            )
            for number, one in itertools.islice(self._open.items(), 1024)
        )
        hello = Hello(version=control.VERSION, connections=connections)
        return [hello, *self._asked.values(), *self._questions.open]

    def _handle(self, order: ToWorker, connection: socket.socket | None) -> None:
        if isinstance(order, Grant):
            self._grant(order, connection)
            return
        if connection is not None:
            connection.close()
        match order:
            case Refuse():
                if self._asked.pop(order.ticket, None) is not None:
                    self._session.connections.refuse(order.ticket)
            case Configure():
                self.run.configure(order)
            case Secret():
                self.run.take_secret(order)
            case Update():
                one = self._open.get(order.connection)
                if one is not None and one.connection is not None:
                    one.connection.update(order.inspection)
            case Revoke():
                self._revoke(order)
            case CredentialAnswer() | AllowanceAnswer() | PageAnswer():
                self._questions.answer(order)
            case Stop():
                self._stopped.set()

    def _revoke(self, order: Revoke) -> None:
        one = self._open.get(order.connection)
        if one is not None and one.task is not None:
            one.revoked = order.reason
            one.task.cancel()

    def _grant(self, grant: Grant, connection: socket.socket | None) -> None:
        is_wanted = self._asked.pop(grant.ticket, None) is not None
        if not is_wanted or (connection is None) != (grant.mode is Mode.PAGE):
            if connection is not None:
                connection.close()
            if is_wanted:
                self._session.connections.refuse(grant.ticket)
            return
        if grant.leaf is not None:
            try:
                self._guest_contexts.add(grant.name or grant.address, grant.leaf)
            except (ValueError, TypeError) as error:
                self._notice(Reason.INTERNAL, f"a certificate cannot be used: {error}")
        host = None if connection is None else SocketSide(connection)
        one = _Open(grant, host, None)
        if host is not None:
            one.connection = Connection(
                grant,
                host,
                run=self.run,
                office=self._questions,
                guest_contexts=self._guest_contexts,
                upstream_contexts=self._upstream_contexts,
            )
        self._open[grant.connection] = one
        one.task = self._connections.create_task(self._carry(one))

    # ---- connections ----

    async def _carry(self, one: _Open) -> None:
        """Carries one connection from its admission to its report."""
        number = one.grant.connection
        guest: GuestSide | None = None
        reason, text = Reason.NONE, ""
        try:
            try:
                stream = await self._session.connections.admit(one.grant.ticket)
            except GuestUnreachable:
                self._control.say(Admitted(connection=number, errno=errno.ECONNRESET))
                return
            guest = GuestSide(stream)
            self._control.say(Admitted(connection=number))
            await self._serve(one, guest)
            await guest.settle(_DRAIN_SECONDS)
        except Ended as error:
            reason, text = error.reason, error.text
            await guest.settle(_DRAIN_SECONDS) if guest else None
        except SideLost as error:
            reason, text = Reason.UPSTREAM_LOST, str(error)
        except asyncio.CancelledError:
            if one.revoked is None:
                raise
            reason, text = Reason.REVOKED, one.revoked
        except Exception as error:  # noqa: BLE001 - a fault in one connection ends that one only
            # Where it happened, and no values: they may be a guest's or a secret.
            print("".join(traceback.format_tb(error.__traceback__)), type(error), file=sys.stderr)
            reason, text = Reason.INTERNAL, type(error).__name__
        finally:
            del self._open[number]
            if guest is not None:
                guest.close()
            if one.host is not None:
                one.host.close()
        await self._control.report(
            Closed(
                connection=number,
                sent=one.host.sent if one.host else 0,
                received=one.host.received if one.host else 0,
                requests=one.connection.judge.permitted if one.connection else 0,
                reason=reason,
                text=text[:1024],
            )
        )

    async def _serve(self, one: _Open, guest: GuestSide) -> None:
        if one.connection is not None:
            await one.connection.serve(guest)
        else:
            number = one.grant.connection
            await serve_pages(guest, number, run=self.run, office=self._questions)


def ask_of(opening: Opening) -> Ask:
    """Returns what a guest asks for; port 0 becomes 1, at which nothing is allowed."""
    port = opening.port or 1
    if opening.address is None:
        return Ask(ticket=opening.ticket, port=port, name=opening.name)
    address = opening.address
    whole = bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed  # noqa: PLR2004 - version of IP
    return Ask(ticket=opening.ticket, port=port, address=whole)
