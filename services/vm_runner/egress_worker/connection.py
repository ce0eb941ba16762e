"""One connection of a guest, from its grant to its end."""

import asyncio
import ssl
from typing import Final, Protocol

from services.core.egress.hosts import parse_host
from services.core.errors import RequestInvalid
from services.vm_runner.egress_worker import beginnings
from services.vm_runner.egress_worker.beginnings import Beginning
from services.vm_runner.egress_worker.client_identity import IdentityEngine
from services.vm_runner.egress_worker.endings import Ended
from services.vm_runner.egress_worker.frames import is_greeting
from services.vm_runner.egress_worker.http1 import Http1
from services.vm_runner.egress_worker.http1_requests import encode_answer
from services.vm_runner.egress_worker.http2 import serve_http2
from services.vm_runner.egress_worker.judge import Judge
from services.vm_runner.egress_worker.judge import Office as JudgeOffice
from services.vm_runner.egress_worker.meters import Meter
from services.vm_runner.egress_worker.orders import Grant, Inspection, Mode
from services.vm_runner.egress_worker.reports import Reason, ToRunner
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.sides import (
    Primed,
    Side,
    SideLost,
    SocketSide,
    both,
    pass_on,
    relay,
)
from services.vm_runner.egress_worker.tls import (
    H2,
    HTTP_1,
    PROTOCOLS,
    ClientEngine,
    GuestContexts,
    ServerEngine,
    TlsFailed,
    UpstreamContexts,
)
from services.vm_runner.egress_worker.tls_side import TlsSide

_HANDSHAKE_SECONDS: Final = 30.0


class Office(JudgeOffice, Protocol):
    """Where a connection reports, and asks."""

    async def report(self, message: ToRunner) -> None:
        """Reports; waits while the queue of reports is full."""
        ...


class Connection:
    """One connection.

    Args:
        grant: how it is treated.
        host: what was dialled.
        run: what holds for the run.
        office: where it reports.
        guest_contexts: certificates for names.
        upstream_contexts: roots.
    """

    def __init__(
        self,
        grant: Grant,
        host: SocketSide,
        *,
        run: RunState,
        office: Office,
        guest_contexts: GuestContexts,
        upstream_contexts: UpstreamContexts,
    ) -> None:
        self.grant = grant
        self.host = host
        self.judge = Judge(grant, run, office)
        self._run = run
        self._guest_contexts = guest_contexts
        self._upstream_contexts = upstream_contexts
        self._meter = Meter(grant.connection, lambda: self.judge.inspection, office)

    def update(self, inspection: Inspection) -> None:
        """Takes new rules."""
        self.judge.update(inspection)

    async def serve(self, guest: Side) -> None:
        """Carries it until it ends.

        Raises:
            Ended: by a decision of the worker's.
            SideLost: a side broke off.
        """
        near, far = Primed(guest), Primed(self.host)
        if self.grant.mode is Mode.PASS and await _speaks_first(near, far):
            greeting = await far.read()
            far.put_back(greeting)
            if not is_greeting(greeting):
                await self._answer_greeting(near, far)
                return
        beginning = await self._begin(near)
        self._check_name(beginning)
        match beginning.kind:
            case beginnings.Kind.NOTHING if self.grant.mode is Mode.INSPECT:
                return
            case beginnings.Kind.TLS if self.grant.mode is Mode.INSPECT:
                await self._terminate(near, far, beginning)
            case beginnings.Kind.HTTP_1 | beginnings.Kind.HTTP_2:
                is_h2 = beginning.kind is beginnings.Kind.HTTP_2
                await self._carry_http(near, far, is_h2=is_h2, in_clear=True)
            case _ if self.grant.mode is Mode.INSPECT:
                raise Ended(
                    Reason.NOT_HTTP,
                    "rules are about requests, and this is neither HTTP nor TLS",
                )
            case _:
                await relay(near, far)

    async def _answer_greeting(self, near: Primed, far: Primed) -> None:
        """Passes bytes where the host speaks first: then no HTTP follows."""

        async def guests() -> None:
            first = await near.read()
            near.put_back(first)
            beginning = beginnings.look(first) or Beginning(beginnings.Kind.OTHER)
            self._check_name(beginning)
            if beginning.kind in (beginnings.Kind.HTTP_1, beginnings.Kind.HTTP_2):
                raise Ended(Reason.MALFORMED, "a request behind a greeting of the host's")
            await pass_on(near, far)

        await both(guests(), pass_on(far, near))

    async def _begin(self, near: Primed) -> Beginning:
        if self.grant.mode is Mode.PASS:
            return await beginnings.begin(near)
        try:
            async with asyncio.timeout(self._run.limits.head_seconds):
                return await beginnings.begin(near)
        except TimeoutError:
            raise Ended(Reason.TIMEOUT, "no request came") from None

    def _check_name(self, beginning: Beginning) -> None:
        """Refuses TLS for another name than the connection's."""
        named = beginning.hello.server_name
        if not named or not (self.grant.name or self.grant.mode is Mode.INSPECT):
            return
        try:
            agrees = parse_host(named) == parse_host(self.grant.name or self.grant.address)
        except RequestInvalid:
            agrees = False
        if not agrees:
            name = self.grant.name or self.grant.address
            raise Ended(Reason.SNI_MISMATCH, f"TLS for {named[:253]!r} on a connection to {name}")

    async def _terminate(self, near: Primed, far: Primed, beginning: Beginning) -> None:
        name = self.grant.name or self.grant.address
        context = self._guest_contexts.get(name)
        if context is None:
            raise Ended(Reason.INTERNAL, f"no certificate for {name} came")
        offered = beginning.hello.protocols
        if offered and not set(offered) & set(PROTOCOLS):
            raise Ended(Reason.NOT_HTTP, "TLS for a protocol that is no HTTP")
        protocols = tuple(one for one in PROTOCOLS if one in offered)
        trust = self.grant.upstream
        try:
            trusted = self._upstream_contexts.get(trust.ca, protocols)
            upstream: ClientEngine | IdentityEngine
            if trust.identity is None:
                upstream = ClientEngine(trusted, name)
            else:
                roots = trusted.get_ca_certs(binary_form=True)
                upstream = IdentityEngine(trust.identity, roots, name, protocols)
            host = TlsSide(far, upstream)
            await _handshake(host)
        except (SideLost, ssl.SSLError, ValueError) as error:
            await self._explain(near, ServerEngine(context, HTTP_1), error)
            raise Ended(Reason.UPSTREAM_TLS, str(error)) from error
        guest = TlsSide(near, ServerEngine(context, upstream.protocol))
        try:
            await _handshake(guest)
        except SideLost as error:
            raise Ended(Reason.GUEST_TLS, str(error)) from error
        await self._carry_http(guest, host, is_h2=upstream.protocol == H2, in_clear=False)

    async def _explain(self, near: Primed, engine: ServerEngine, error: Exception) -> None:
        """Answers the first request, if it comes in HTTP/1, with what is wrong upstream."""
        guest = TlsSide(near, engine)
        try:
            await _handshake(guest)
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await guest.read()
                denied = self.judge.deny(
                    Reason.UPSTREAM_TLS,
                    f"{self.grant.name or self.grant.address} cannot be verified: {error}",
                    status=502,
                    how_to_allow="name its CA in the settings if it is a private one",
                )
                await guest.write(encode_answer(denied, closes=True))
                await guest.finish()
        except (SideLost, TimeoutError):
            return

    async def _carry_http(self, near: Side, far: Side, *, is_h2: bool, in_clear: bool) -> None:
        if is_h2:
            await serve_http2(
                near, far, self.judge, run=self._run, meter=self._meter, in_clear=in_clear
            )
        else:
            http = Http1(near, far, self.judge, run=self._run, meter=self._meter, in_clear=in_clear)
            await http.serve()


async def _handshake(side: TlsSide) -> None:
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            await side.handshake()
    except TimeoutError:
        raise TlsFailed("the handshake took too long") from None


async def _speaks_first(near: Primed, far: Primed) -> bool:
    """Waits until one side sends something; returns whether it is the host."""
    ahead = [near.read_ahead(), far.read_ahead()]
    await asyncio.wait(ahead, return_when=asyncio.FIRST_COMPLETED)
    return ahead[1].done() and not ahead[0].done()
