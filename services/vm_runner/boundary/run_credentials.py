"""The credentials of one run: placeholders in its guest, secrets in its worker.

A secret goes to the worker only before a connection to one of its own domains is granted, or when a
request with its placeholder waits for it; and only if the run's policy or a user permits the
integration.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.core.egress.hosts import Host
from services.core.errors import LimitExceeded, LnsError
from services.core.integrations.catalogue import Catalogue
from services.core.integrations.definitions import IntegrationDefinition
from services.vm_runner.boundary.approvals import ApprovalKind, Approvals, Outcome, Question
from services.vm_runner.boundary.run_policy import RunPolicy
from services.vm_runner.credentials.active import (
    ActiveIntegration,
    active_integrations,
    placeholder_environment,
    run_catalogue,
    wanted_ids,
)
from services.vm_runner.credentials.credential import Missing, SecretValue
from services.vm_runner.credentials.integrations import Integrations
from services.vm_runner.credentials.vault import Vault
from services.vm_runner.egress_worker.orders import (
    CredentialAnswer,
    Injection,
    Placeholder,
    Secret,
    ToWorker,
)
from services.vm_runner.egress_worker.reports import CredentialWanted
from services.vm_runner.records.runs import Run

log = structlog.get_logger()

Send = Callable[[ToWorker], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSource:
    """Where boundaries have integrations and secrets from."""

    integrations: Integrations
    vault: Vault


class RunCredentials:
    """The credentials of one run.

    Args:
        run: the run as it is recorded now.
        policy: of the run.
        source: of integrations and secrets.
        approvals: of the node.
        approve_seconds: how long to wait for a user if the run names no time.
    """

    def __init__(
        self,
        run: Callable[[], Run],
        policy: RunPolicy,
        source: CredentialSource,
        approvals: Approvals,
        *,
        approve_seconds: float,
    ) -> None:
        self._run = run
        self._policy = policy
        self._source = source
        self._approvals = approvals
        self._approve_seconds = approve_seconds
        self._active: tuple[ActiveIntegration, ...] | None = None
        self._catalogue: Catalogue | None = None
        self._allowed: set[str] = set()

    # ---- what a run uses ----

    async def prepare(self) -> list[str]:
        """Finds the integrations of a run that starts; returns notices for the user.

        Raises:
            NameTaken: its bundle brings an integration under the id of another.
            ArtifactInvalid: an integration cannot be used, or the user's file of them.
        """
        run = self._run()
        self._allowed.clear()
        self._catalogue = None
        permitted = (await self._policy.current()).policy.integrations
        if not wanted_ids(run.plan, permitted):
            self._active = ()
            return []
        self._catalogue = await self._read_catalogue()
        self._active, unknown = active_integrations(run.plan, permitted, self._catalogue)
        return [
            f"no integration is called {name}, so nothing of it is set: see lns integration list"
            for name in unknown
        ]

    async def active(self) -> tuple[ActiveIntegration, ...]:
        """Returns the integrations that the run uses; none where they cannot be found any more."""
        if self._active is None:  # of a run that an earlier service started
            try:
                await self.prepare()
            except LnsError as error:
                log.warning("integrations_unusable", message=error.message)
                return ()
        return self._active or ()

    async def take_up(self) -> bool:
        """Takes up integrations that the policy permits by now; says whether any is new.

        None is dropped: the guest may have its placeholder, which goes nowhere else for it, and
        whether its secret may be used is asked of the policy each time.
        """
        before = await self.active()
        permitted = (await self._policy.current()).policy.integrations
        known = [one.id for one in before]
        if set(permitted) <= set(known):
            return False
        try:
            if self._catalogue is None:
                self._catalogue = await self._read_catalogue()
        except LnsError as error:
            log.warning("integrations_unusable", message=error.message)
            return False
        wanted = (*known, *permitted)
        self._active, _ = active_integrations(self._run().plan, wanted, self._catalogue)
        return self._active != before

    async def definition(self, identifier: str) -> IntegrationDefinition | None:
        """Returns any integration that the run may name, as it was when the run was started.

        Raises:
            NameTaken: its bundle brings an integration under the id of another.
            ArtifactInvalid: an integration cannot be used, or the user's file of them.
        """
        if self._catalogue is None:
            self._catalogue = await self._read_catalogue()
        return self._catalogue.find(identifier)

    async def _read_catalogue(self) -> Catalogue:
        return run_catalogue(await self._source.integrations.catalogue(), self._run().plan)

    async def environment(self) -> dict[str, str]:
        """Returns the variables in which the workload finds placeholders."""
        return placeholder_environment(await self.active())

    async def placeholders(self) -> tuple[Placeholder, ...]:
        """Returns the placeholders, and where each may appear."""
        return tuple(
            Placeholder(
                text=one.credential.placeholder,
                credential=one.id,
                domains=one.credential.domains,
            )
            for one in await self.active()
        )

    async def injections(self, host: Host) -> tuple[Injection, ...]:
        """Returns the places in requests to a host that secrets go to."""
        return tuple(
            Injection(
                credential=one.id,
                kind=rule.kind,
                domain=rule.domain,
                placeholder=one.credential.placeholder,
                header=rule.header,
                integration=one.id,
            )
            for one in await self.active()
            if one.goes_to(host)
            for rule in one.credential.injections
        )

    # ---- secrets ----

    async def may_use(self, identifier: str) -> bool:
        """Returns whether the policy, the bundle itself or a user permits an integration."""
        brought = {one.id for one in self._run().plan.integrations}
        permitted = (await self._policy.current()).policy.integrations
        return identifier in permitted or identifier in brought or identifier in self._allowed

    async def for_host(self, host: Host) -> tuple[ActiveIntegration, ...]:
        """Returns the permitted integrations whose secrets go to a host."""
        return tuple(
            [one for one in await self.active() if one.goes_to(host) and await self.may_use(one.id)]
        )

    async def follow(self, one: ActiveIntegration, send: Send, first: asyncio.Event) -> None:
        """Sends the worker a secret, and each later value of it; sets `first` after the first one.

        A secret that is not available any more is taken from the worker.
        """
        async for found in self._source.vault.follow(one.definition, self._project):
            value = found.value if isinstance(found, SecretValue) else None
            await send(Secret(credential=one.id, value=value))
            first.set()

    async def answer(self, wanted: CredentialWanted, send: Send) -> None:
        """Answers a request that waits for a secret: at once, or when a user has acted."""
        one = next((each for each in await self.active() if each.id == wanted.credential), None)
        if one is None:
            await send(CredentialAnswer(request=wanted.request, granted=False))
            return
        found = await self._had(one)
        granted = isinstance(found, SecretValue)
        if isinstance(found, SecretValue):
            await send(Secret(credential=one.id, value=found.value))
        how = found.how if isinstance(found, Missing) else ""
        await send(CredentialAnswer(request=wanted.request, granted=granted, how_to_allow=how))

    async def settle_pending(self) -> None:
        """Answers what waits for a user's permission and is permitted by the policy now."""
        for approval in self._approvals.list(self._run().run_id):
            question = approval.question
            if question.kind is not ApprovalKind.CREDENTIAL:
                continue
            one = next(
                (each for each in await self.active() if each.id == question.integration), None
            )
            if one is None or not await self.may_use(one.id):
                continue
            found = await self._source.vault.secret(one.definition, self._project)
            if isinstance(found, SecretValue):
                self._approvals.settle(question, Outcome.ALLOWED)

    async def _had(self, one: ActiveIntegration) -> SecretValue | Missing:
        """Returns the secret, after a user has permitted or stored it if that is needed."""
        found = await self._source.vault.secret(one.definition, self._project)
        if isinstance(found, SecretValue) and await self.may_use(one.id):
            return found
        outcome = await self._ask(one)
        if outcome is Outcome.ALLOWED:
            self._allowed.add(one.id)
            return await self._source.vault.secret(one.definition, self._project)
        if isinstance(found, Missing):
            return found
        return Missing(
            f"the policy does not permit the use of {one.id}",
            f"lns policy allow --integration {one.id}",
        )

    async def _ask(self, one: ActiveIntegration) -> Outcome:
        """Asks a user; storing a missing secret counts as an answer."""
        run = self._run()
        question = Question(
            run_id=run.run_id,
            host=one.credential.domains[0],
            kind=ApprovalKind.CREDENTIAL,
            integration=one.id,
        )
        connecting = asyncio.create_task(self._settle_when_connected(one, question))
        try:
            return await self._approvals.ask(
                question,
                run_name=run.name,
                seconds=run.options.approve_timeout or self._approve_seconds,
                origin=f"the integration {one.id}",
            )
        except LimitExceeded:
            return Outcome.DENIED
        finally:
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connecting

    async def _settle_when_connected(self, one: ActiveIntegration, question: Question) -> None:
        if not await self.may_use(one.id):
            return  # the user's permission is missing, not the secret
        async for found in self._source.vault.follow(one.definition, self._project):
            if isinstance(found, SecretValue):
                self._approvals.settle(question, Outcome.ALLOWED)
                return

    @property
    def _project(self) -> str:
        """The folder of the project that the run was started in; empty for none."""
        path = self._run().options.policy_file
        return str(Path(path).parent) if path else ""
