"""The budgets of one run: asked before each request that counts for one, and updated with its cost.

One owner of the figures: this object, and its file in the run's directory, which is written before
a request is let through. Requests are counted when they are let through, so that their limit is
never exceeded; tokens, costs and bytes are known when a reply has ended, so that those limits are
exceeded by no more than the requests under way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final

import structlog

from services.core.budgets.limits import BudgetLimit, smallest
from services.core.budgets.metering import Metering, Tokens
from services.core.budgets.spending import (
    Spending,
    near_limits,
    refusal,
    standing_text,
)
from services.core.egress.hosts import Host, HostKind, is_below
from services.core.errors import LnsError, RequestInvalid
from services.core.integrations.definitions import IntegrationDefinition
from services.core.route_match import RouteMatch
from services.vm_runner.boundary.boundary import BoundedRun
from services.vm_runner.boundary.budget_record import BudgetRecord, decode_record
from services.vm_runner.boundary.ports import BoundaryFiles
from services.vm_runner.boundary.run_credentials import RunCredentials
from services.vm_runner.boundary.run_policy import RunPolicy
from services.vm_runner.egress_worker.orders import AllowanceAnswer, Inspection, ToWorker
from services.vm_runner.egress_worker.reports import AllowanceWanted, Usage

log = structlog.get_logger()

FILE: Final = "budgets.json"
OWED_MOST: Final = 16384
"""Requests that may be under way at a time."""

Send = Callable[[ToWorker], Awaitable[None]]


class RunBudgets:
    """The budgets of one run.

    Args:
        bounded: the run.
        files: where the figures are kept.
        policy: of the run, with limits of its own.
        credentials: of the run, which know its integrations.
    """

    def __init__(
        self,
        bounded: BoundedRun,
        files: BoundaryFiles,
        policy: RunPolicy,
        credentials: RunCredentials,
    ) -> None:
        self._bounded = bounded
        self._files = files
        self._policy = policy
        self._credentials = credentials
        self._record: BudgetRecord | None = None
        self._problem = ""
        self._loading = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._changes = 0
        self._written = 0

    # ---- what holds ----

    async def prepare(self) -> list[str]:
        """Checks the budgets of a run that starts; returns what a user should read.

        Raises:
            RequestInvalid: a budget is of no integration, or of what its replies do not report.
        """
        limits = await self.limits()
        for limit in limits:
            definition = await self._credentials.definition(limit.integration)
            if definition is None:
                raise RequestInvalid(
                    f"the budget {limit.integration}={limit.text} is of no integration",
                    hint="`lns integration list` shows their ids",
                )
            _check(limit, definition)
        counted = ", ".join(
            f"{one.integration}={one.text}" for one in limits if one.unit.needs_reports
        )
        if not counted:
            return []
        rule = "after one that reports nothing, further requests are refused"
        return [f"{counted} is counted by what replies report: {rule}"]

    async def limits(self) -> tuple[BudgetLimit, ...]:
        """Returns the limits that hold now: the smaller of the policy's and the run's own."""
        policy = (await self._policy.current()).policy
        return smallest((*policy.budgets, *self._bounded.run().options.budgets))

    async def inspection(self, host: Host, port: int, base: Inspection) -> Inspection:
        """Returns what holds for requests to a host, with what they count for."""
        limits = await self.limits()
        limited = tuple(dict.fromkeys(limit.integration for limit in limits))
        metered = [
            definition
            for definition in [await self._credentials.definition(name) for name in limited]
            if definition is not None and _is_at(definition, host, port)
        ]
        names = {one.id for one in metered}
        metered += [
            active.definition
            for active in await self._credentials.active()
            if active.id not in names and active.definition.metering and active.goes_to(host)
        ]
        meterings = [one.metering for one in metered if one.metering is not None]
        own = [limit for limit in limits if limit.integration in {one.id for one in metered}]
        return Inspection(
            rules=base.rules,
            injections=base.injections,
            budgets=tuple(one.id for one in metered),
            limited=bool(own),
            exact=any(limit.unit.needs_reports for limit in own),
            usage=meterings[0].api if meterings else "",
            free=meterings[0].free if meterings else (),
        )

    # ---- what is used ----

    async def answer(self, wanted: AllowanceWanted, send: Send) -> None:
        """Lets a request through, or not; what it counts is on the disk before."""
        names = await self._known(wanted.budgets)
        limits = [one for one in await self.limits() if one.integration in names]
        record = await self._load()
        refused = self._refusal(limits, record)
        if refused is None:
            if wanted.request not in record.owed:  # an earlier runner may have counted it
                record.owed[wanted.request] = names
                for name in names:
                    record.spending[name] = record.of(name).with_request()
            try:
                await self._save()
            except LnsError as fault:  # it stays counted: it may be in the file after all
                record.owed.pop(wanted.request, None)
                refused = f"what it counts cannot be recorded: {fault.message}", fault.hint
        error, how = refused or ("", "")
        await self._warn(limits, record)
        await send(
            AllowanceAnswer(
                request=wanted.request,
                granted=refused is None,
                error=error[:1024],
                how_to_allow=how[:1024],
            )
        )

    def _refusal(self, limits: list[BudgetLimit], record: BudgetRecord) -> tuple[str, str] | None:
        if self._problem:
            return self._problem, "start another run"
        if len(record.owed) >= OWED_MOST:
            return f"{OWED_MOST} requests are under way", "wait until some have ended"
        for limit in limits:
            refused = refusal([limit], record.of(limit.integration))
            if refused is not None:
                return refused
        return None

    async def take(self, usage: Usage) -> list[tuple[str, int]]:
        """Counts what a request cost; returns integrations and costs in picodollars.

        Raises:
            CapacityExhausted: it cannot be written; it is with the next one.
        """
        record = await self._load()
        counted = record.owed.pop(usage.allowance, None)
        costs: list[tuple[str, int]] = []
        for name in await self._known(usage.budgets) if counted is None else counted:
            definition = await self._credentials.definition(name)
            metering = definition.metering if definition is not None else None
            before = record.of(name)
            after = spent(before, usage, metering)
            record.spending[name] = after
            costs.append((name, after.picodollars - before.picodollars))
        limits = [one for one in await self.limits() if one.integration in usage.budgets]
        await self._warn(limits, record)
        await self._save()
        return costs

    async def _known(self, names: Iterable[str]) -> tuple[str, ...]:
        """Returns those of some names that are integrations: a worker may say anything."""
        return tuple(
            [name for name in names if await self._credentials.definition(name) is not None]
        )

    async def worker_gone(self) -> None:
        """Notes that what was under way will not be reported any more."""
        record = await self._load()
        if not record.owed:
            return
        names = {name for names in record.owed.values() for name in names}
        record.owed.clear()
        for name in names:
            definition = await self._credentials.definition(name)
            if definition is not None and definition.metering is not None:
                text = "requests were under way when the run's machine ended"
                record.spending[name] = replace(record.of(name), unread=text)
        await self._save()

    async def standing(self) -> dict[str, tuple[Spending, tuple[BudgetLimit, ...]]]:
        """Returns what was used, and the limits, of each integration that has either."""
        limits, record = await self.limits(), await self._load()
        names = dict.fromkeys((*(one.integration for one in limits), *record.spending))
        return {
            name: (record.of(name), tuple(one for one in limits if one.integration == name))
            for name in names
        }

    # ---- its file ----

    async def _load(self) -> BudgetRecord:
        async with self._loading:
            if self._record is None:
                data = await self._files.read(self._bounded.directory / FILE)
                try:
                    self._record = decode_record(data)
                except ValueError:
                    self._record = BudgetRecord()
                    self._problem = f"what the run has used is not known: {FILE} is damaged"
                    log.warning("budgets_damaged", run=self._bounded.run().run_id)
            return self._record

    async def _save(self) -> None:
        """Returns when the figures of now are in the file; several waiters share one write."""
        self._changes += 1
        mine = self._changes
        async with self._writing:
            if self._written >= mine or self._record is None or self._problem:
                return
            version = self._changes
            await self._files.write(self._bounded.directory / FILE, self._record.encode())
            self._written = version

    async def _warn(self, limits: Iterable[BudgetLimit], record: BudgetRecord) -> None:
        """Writes a notice about each limit at 80 % and when it is spent, once each."""
        for limit in limits:
            spending = record.of(limit.integration)
            is_spent = refusal([limit], spending) is not None
            key = f"{limit.integration}={limit.text}{' spent' if is_spent else ''}"
            if key in record.warned or not (is_spent or near_limits([limit], spending)):
                continue
            record.warned.add(key)
            text = spending.unknown(limit.unit) or standing_text(limit, spending)
            what = "is spent" if is_spent else "is nearly spent"
            await self._bounded.notice(f"its budget of {limit.integration} {what}: {text}")


def spent(before: Spending, usage: Usage, metering: Metering | None) -> Spending:
    """Returns what was used after a request that cost something. Pure."""
    tokens = Tokens(
        input=usage.input_tokens,
        output=usage.output_tokens,
        cache_read=usage.cache_read_tokens,
        cache_write=usage.cache_write_tokens,
        cache_write_long=usage.cache_write_long_tokens,
    )
    after = before.with_request() if usage.requests else before
    after = after.with_bytes(usage.sent, usage.received)
    price = metering.price(usage.model) if metering is not None else None
    after = after.with_tokens(tokens, price.cost(tokens) if price is not None else 0)
    if tokens.total and price is None and not after.unpriced:
        model = usage.model or "a model without a name"
        after = replace(after, unpriced=f"the price of {model} is not known")
    if usage.unread and not after.unread:
        after = replace(after, unread="a reply did not report its use, or was broken off before")
    return after


def _is_at(definition: IntegrationDefinition, host: Host, port: int) -> bool:
    """Returns whether a host is an integration's: of its routes, or where its secret goes."""
    if host.kind is not HostKind.NAME:
        return False
    if any(is_below(str(host), domain) for domain in definition.domains):
        return True
    for route in definition.routes:
        match = RouteMatch.parse(route.match)
        domain = f"*.{match.name}" if match.is_wildcard else match.name
        if match.port in (None, port) and is_below(str(host), domain):
            return True
    return False


def _check(limit: BudgetLimit, definition: IntegrationDefinition) -> None:
    if not limit.unit.needs_reports:
        return
    name = limit.integration
    if definition.metering is None:
        raise RequestInvalid(
            f"the budget {name}={limit.text} cannot be counted: replies of {name} do not report"
            " what they use in a form that lns reads",
            hint=f"--budget '{name}=1000-requests|20M-bytes' can be counted",
        )
    if limit.unit == "USD" and not definition.metering.prices:
        raise RequestInvalid(
            f"the budget {name}={limit.text} cannot be counted: the prices of {name} are not known",
            hint=f"--budget {name}=200k-tokens can be counted",
        )
