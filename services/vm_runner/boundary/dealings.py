"""What runner and egress worker of one run have to do with each other while one link lasts.

Each question of the worker is a task of its own: one that waits for a user or a slow name does
not delay another. What is open is known here, so that a change of the policy takes effect on it.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from services.core.egress.addresses import address_of_bytes
from services.core.egress.hosts import Host, HostKind, parse_host
from services.core.errors import CapacityExhausted, LnsError, SettingsInvalid, VmFailed
from services.vm_runner.boundary.audit_log import AuditLog
from services.vm_runner.boundary.boundary import BoundaryOutside, BoundedRun
from services.vm_runner.boundary.decider import Decider, Ruling
from services.vm_runner.boundary.held_secrets import HeldSecrets
from services.vm_runner.boundary.opening import Dialled, Refused, open_connection
from services.vm_runner.boundary.pages import Pages
from services.vm_runner.boundary.ports import WorkerLink
from services.vm_runner.boundary.recording import (
    closed_record,
    record_of,
    request_record,
    usage_record,
)
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.boundary.run_budgets import RunBudgets
from services.vm_runner.boundary.run_credentials import RunCredentials
from services.vm_runner.boundary.run_policy import LoadedPolicy, RunPolicy
from services.vm_runner.boundary.upstream_trust import upstream_trust
from services.vm_runner.egress_worker.orders import (
    Configure,
    Grant,
    Inspection,
    Limits,
    Mode,
    Refuse,
    Revoke,
    Update,
    UpstreamTrust,
)
from services.vm_runner.egress_worker.reports import (
    Admitted,
    AllowanceWanted,
    Ask,
    Closed,
    CredentialWanted,
    Hello,
    Notice,
    PageWanted,
    RequestDecided,
    ToRunner,
    Usage,
)

log = structlog.get_logger()

_PAGES_MOST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A connection that the worker carries."""

    host: Host
    port: int
    address: str = ""
    inspection: Inspection = field(default_factory=Inspection)


class Dealings:
    """The dealings with one worker over one link."""

    def __init__(
        self,
        link: WorkerLink,
        *,
        bounded: BoundedRun,
        outside: BoundaryOutside,
        policy: RunPolicy,
        decider: Decider,
        pages: Pages,
        audit: AuditLog,
        credentials: RunCredentials,
        budgets: RunBudgets,
    ) -> None:
        self._link = link
        self._bounded = bounded
        self._outside = outside
        self._policy = policy
        self._decider = decider
        self._pages = pages
        self._audit = audit
        self._credentials = credentials
        self._budgets = budgets
        self._secrets = HeldSecrets(credentials, link.send, self._begin)
        self._open: dict[int, _Open] = {}
        self._next = 1 + max((record.connection for record in audit.recent), default=0)
        self._answering: set[int] = set()
        self._pages_open = 0
        self._leaves: set[str] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup

    def _begin(self, answer: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(answer)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        return task

    async def run(self) -> None:
        """Deals with the worker until its socket ends.

        Raises:
            VmFailed: it broke the rules.
            OSError: it is gone.
        """
        await self._decider.load()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._tasks.create_task(self._listen())
                self._abandon()
        except* (OSError, LnsError) as errors:
            raise _first(errors) from errors

    async def _listen(self) -> None:
        await self._configure()
        async for message in self._link.messages():
            await self._take(message)

    async def _configure(self) -> None:
        settings = self._outside.settings
        await self._link.send(
            Configure(
                run=self._bounded.run().run_id,
                limits=Limits(connections=settings.connections, waiting=settings.waiting),
                placeholders=await self._credentials.placeholders(),
            )
        )

    def _abandon(self) -> None:
        """Cancels what is still under way: the worker has ended."""
        for task in self._answers:
            task.cancel()

    async def _take(self, message: ToRunner) -> None:
        match message:
            case Hello():
                await self._greeted(message)
            case Ask():
                await self._asked(message)
            case PageWanted():
                await self._page_wanted(message)
            case CredentialWanted():
                self._begin(self._credentials.answer(message, self._link.send))
            case AllowanceWanted():
                self._begin(self._budgets.answer(message, self._link.send))
            case Usage():
                await self._used(message)
            case RequestDecided():
                await self._request_decided(message)
            case Closed():
                await self._closed(message)
            case Notice():
                await self._bounded.notice(message.text)
            case Admitted():
                if message.errno:
                    self._open.pop(message.connection, None)

    async def _greeted(self, hello: Hello) -> None:
        """Takes over what an earlier runner granted; each has to be permitted now."""
        for one in hello.connections:
            self._next = max(self._next, one.connection + 1)
            try:
                host = parse_host(one.name or one.address)
            except LnsError as error:
                raise VmFailed("an egress worker has a connection to no host") from error
            self._open[one.connection] = _Open(host=host, port=one.port, address=one.address)
        if hello.connections:
            await self.policy_changed(await self._policy.current())

    # ---- connections ----

    async def _asked(self, ask: Ask) -> None:
        if ask.ticket in self._answering:
            raise VmFailed("an egress worker asked twice for one connection")
        settings = self._outside.settings
        if len(self._answering) >= settings.waiting or len(self._open) >= settings.connections:
            await self._record_refusal(
                ask.name or "an address", ask.port,
                reason=f"the run has {len(self._open)} connections open and {len(self._answering)} "
                "waiting: no further one is taken",
            )  # fmt: skip
            await self._refuse(ask, "limit")
            return
        self._answering.add(ask.ticket)
        self._begin(self._answer(ask))

    async def _answer(self, ask: Ask) -> None:
        try:
            try:
                host = parse_host(ask.name) if ask.name else Host(
                    address=address_of_bytes(ask.address)
                )  # fmt: skip
            except LnsError as error:
                await self._record_refusal(ask.name, ask.port, reason=error.message)
                await self._refuse(ask, "no-host")
                return
            ruling = await self._decider.rule(host, ask.port)
            if not ruling.allowed:
                await self._record(ruling, host, ask.port, verdict="deny")
                await self._refuse(ask, "denied")
                return
            await self._grant(ask, host, ruling)
        except SettingsInvalid as error:
            await self._record_refusal(ask.name, ask.port, reason=error.message)
            await self._refuse(ask, "settings")
        except CapacityExhausted as error:  # nothing is let through that cannot be recorded
            await self._refuse(ask, "unrecorded")
            await self._bounded.notice(f"nothing is let through: {error.message}")
        finally:
            self._answering.discard(ask.ticket)

    async def _grant(self, ask: Ask, host: Host, ruling: Ruling) -> None:
        if host.kind is HostKind.PAGE:
            grant = Grant(
                ticket=ask.ticket, connection=self._take_number(), mode=Mode.PAGE,
                port=ask.port, name=str(host),
            )  # fmt: skip
            self._open[grant.connection] = _Open(host=host, port=ask.port)
            await self._link.send(grant)
            return
        loaded = await self._policy.current()
        dialled = await open_connection(
            host, ask.port, policies=loaded.policies, network=self._outside.network
        )
        if isinstance(dialled, Refused):
            refusal = dialled.decision
            denied = ruling if refusal is None else replace(ruling, allowed=False, decision=refusal)
            await self._record(
                replace(denied, reason=dialled.reason), host, ask.port,
                verdict="deny" if refusal else "allow", address=dialled.address,
            )  # fmt: skip
            await self._refuse(ask, "unreachable")
            return
        await self._hand_over(ask, host, ruling, dialled)

    async def _hand_over(self, ask: Ask, host: Host, ruling: Ruling, dialled: Dialled) -> None:
        number = self._take_number()
        inspection = await self._inspection(host, ask.port, ruling)
        await self._secrets.hold_for(host)
        name = "" if host.address is not None else str(host)
        settings, files = self._outside.settings, self._outside.files
        try:
            leaf, upstream = None, UpstreamTrust()
            if _looks_into(inspection):
                upstream = await upstream_trust(host, settings, files)
            if _looks_into(inspection) and (name or dialled.address) not in self._leaves:
                authority = await self._outside.authorities.of(self._bounded.directory)
                leaf = await authority.leaf(name or dialled.address)
            await self._record(
                ruling, host, ask.port, verdict="allow", address=dialled.address, connection=number
            )
            self._open[number] = _Open(
                host=host, port=ask.port, address=dialled.address, inspection=inspection
            )
            await self._link.send(
                Grant(
                    ticket=ask.ticket,
                    connection=number,
                    mode=Mode.INSPECT if _looks_into(inspection) else Mode.PASS,
                    port=ask.port,
                    name=name,
                    address=dialled.address,
                    inspection=inspection,
                    leaf=leaf,
                    upstream=upstream,
                ),
                dialled.connection,
            )
            if leaf is not None:
                self._leaves.add(name or dialled.address)
        finally:
            dialled.connection.close()

    async def _inspection(self, host: Host, port: int, ruling: Ruling) -> Inspection:
        plain = Inspection(
            rules=ruling.decision.rules, injections=await self._credentials.injections(host)
        )
        return await self._budgets.inspection(host, port, plain)

    def _take_number(self) -> int:
        self._next += 1
        return self._next - 1

    async def _refuse(self, ask: Ask, reason: str) -> None:
        await self._link.send(Refuse(ticket=ask.ticket, reason=reason))

    async def _record_refusal(self, host: str, port: int, *, reason: str) -> None:
        await self._audit.append(
            EgressRecord(
                kind=RecordKind.CONNECTION, verdict="deny", host=host, port=port, reason=reason
            )
        )

    # ---- what becomes of them ----

    async def _record(
        self, ruling: Ruling, host: Host, port: int, *, verdict: str, address: str = "",
        connection: int = 0,
    ) -> None:  # fmt: skip
        record = record_of(
            ruling, host, port, verdict=verdict, address=address, connection=connection
        )
        await self._audit.append(record)

    async def _request_decided(self, told: RequestDecided) -> None:
        one = self._open.get(told.connection)
        host, port = (str(one.host), one.port) if one else (told.host, 0)
        await self._audit.append(request_record(told, host, port))

    async def _used(self, told: Usage) -> None:
        one = self._open.get(told.connection)
        costs = await self._budgets.take(told)
        host, port = (str(one.host), one.port) if one else ("", 0)
        for integration, cost in costs:
            await self._audit.append(usage_record(told, host, port, integration, cost))

    async def _closed(self, told: Closed) -> None:
        one = self._open.pop(told.connection, None)
        if one is None or one.host.kind is HostKind.PAGE:
            return
        await self._audit.append(closed_record(told, str(one.host), one.port, one.address))

    async def _page_wanted(self, wanted: PageWanted) -> None:
        if self._pages_open >= _PAGES_MOST:
            raise VmFailed("an egress worker asked for too many pages at once")
        self._pages_open += 1
        self._begin(self._answer_page(wanted))

    async def _answer_page(self, wanted: PageWanted) -> None:
        try:
            await self._link.send(await self._pages.answer(wanted))
        finally:
            self._pages_open -= 1

    # ---- the policy ----

    async def policy_changed(self, loaded: LoadedPolicy) -> None:
        """Applies a changed policy to open connections and to what waits."""
        await self._audit.append(
            EgressRecord(
                kind=RecordKind.POLICY,
                origin=str(self._policy.path),
                reason=f"{len(loaded.policy.routes)} routes hold from here on",
            )
        )
        if await self._credentials.take_up():
            await self._configure()
        self._decider.settle_pending(loaded)
        await self._credentials.settle_pending()
        await self._secrets.give_back()
        for number, one in list(self._open.items()):
            if one.host.kind is HostKind.PAGE:
                continue
            ruling = self._decider.judge(loaded, one.host, one.port)
            if ruling is None or not ruling.allowed:
                text = "the policy asks for it now" if ruling is None else ruling.reason
                await self._link.send(Revoke(connection=number, reason=text[:1024]))
                continue
            inspection = await self._inspection(one.host, one.port, ruling)
            if inspection != one.inspection:
                await self._renew(number, one, inspection)

    async def _renew(self, number: int, one: _Open, inspection: Inspection) -> None:
        """Gives an open connection new rules; one that was passed through cannot get any."""
        if _looks_into(inspection) != _looks_into(one.inspection):
            looks = _looks_into(inspection)
            text = "the policy looks into its requests now" if looks else "new rules"
            await self._link.send(Revoke(connection=number, reason=text))
            return
        self._open[number] = replace(one, inspection=inspection)
        await self._link.send(Update(connection=number, inspection=inspection))


def _looks_into(inspection: Inspection) -> bool:
    return bool(inspection.rules or inspection.injections or inspection.budgets)


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)  # noqa: S101 - `except*` lets nothing else through
    return error
