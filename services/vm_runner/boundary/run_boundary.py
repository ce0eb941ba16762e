"""The boundary of one run: its worker, its policy, its audit log, while its machine lives.

The worker is started when the guest first wants a connection, so that a run which reaches out for
nothing costs nothing. It outlives this process; the next one takes it over with what it carries.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from services.core.errors import CapacityExhausted, LnsError
from services.vm_runner.boundary.audit_log import AuditLog
from services.vm_runner.boundary.boundary import APPROVE_SECONDS, BoundaryOutside, BoundedRun
from services.vm_runner.boundary.dealings import Dealings
from services.vm_runner.boundary.decider import Decider
from services.vm_runner.boundary.pages import Pages
from services.vm_runner.boundary.policy_place import writable_policy
from services.vm_runner.boundary.ports import WorkerLink
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.boundary.run_budgets import RunBudgets
from services.vm_runner.boundary.run_credentials import RunCredentials
from services.vm_runner.boundary.run_policy import RunPolicy
from services.vm_runner.boundary.trust import trust_environment
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.records.runs import Run

log = structlog.get_logger()

_LOOK_SECONDS = 0.4
"""How often the policy of a run with a worker is looked at: changes take effect within a second."""

_RETRY_SECONDS = 2.0


class RunBoundary:
    """One run's boundary."""

    def __init__(self, bounded: BoundedRun, outside: BoundaryOutside) -> None:
        self._bounded = bounded
        self._outside = outside
        self.audit = AuditLog(outside.files.audit(bounded.directory), publish=bounded.decided)
        self.policy = RunPolicy(
            outside.files,
            bounded.directory,
            project_file=self._project_file,
            planned=lambda: bounded.run().plan.policy,
        )
        self.credentials = RunCredentials(
            bounded.run,
            self.policy,
            outside.credentials,
            outside.approvals,
            approve_seconds=APPROVE_SECONDS,
        )
        self.budgets = RunBudgets(bounded, outside.files, self.policy, self.credentials)
        self._decider = Decider(bounded, outside, self.policy, self.audit)
        self._pages = Pages(self.policy, self._decider, self.audit, self.budgets)
        self._told_problem = ""
        self._safe_file = True

    async def prepare(self, run: Run) -> list[str]:
        """Prepares the policy before a run starts; returns notices for the user.

        A policy file that the run could write to is read once, now. What was answered for the run
        holds until it ends: a start by its restart policy keeps it, one by a user does not.
        """
        if run.restart_count == 0:
            await self._decider.forget()
        self._safe_file = await asyncio.to_thread(writable_policy, run) is None
        remark = ""
        if not self._safe_file:
            remark = await self.policy.keep_copy(Path(run.options.policy_file))
        remarks = [*filter(None, [remark]), *await self.credentials.prepare()]
        return [*remarks, *await self.budgets.prepare()]

    async def trust(self) -> str:
        """Returns the authority that programs of the guest are to trust, PEM.

        Every run has one, also where nothing is looked into yet: a rule for requests may come
        while it lives, and a program that has read its roots by then does not read them again.
        """
        authority = await self._outside.authorities.of(self._bounded.directory)
        return authority.certificate.decode()

    async def environment(self) -> dict[str, str]:
        """Returns the variables that programs of the guest get where they set none themselves."""
        return trust_environment() | await self.credentials.environment()

    def _project_file(self) -> Path | None:
        text = self._bounded.run().options.policy_file
        return Path(text) if text and self._safe_file else None

    @contextlib.asynccontextmanager
    async def serving(self, session: GuestSession) -> AsyncIterator[None]:
        """Serves the guest while the block runs; its worker goes on after that."""
        task = asyncio.create_task(self._serve(session))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def ended(self) -> None:
        """Sees to the end of what served a machine that has ended."""
        run_id = self._bounded.run().run_id
        self._outside.approvals.withdraw(run_id)
        await self._outside.workers.ended(run_id, self._bounded.directory)
        self.audit.close()

    async def _serve(self, session: GuestSession) -> None:
        self.audit.reopen()
        while True:
            try:
                link = await self._link(session)
                try:
                    await self._deal(link)
                finally:
                    await link.close()
                await self._worker_lost("ended")
            except LnsError as error:
                log.warning("egress_worker_failed", message=error.message)
                await self._worker_lost(f"failed: {error.message}")
            except OSError as error:
                await self._worker_lost(f"cannot be reached: {error}")
            except Exception:
                log.exception("egress_failed")
                await self._worker_lost("was given up: lns's log says more")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _link(self, session: GuestSession) -> WorkerLink:
        """Returns a link to the worker that lives, or to a new one once the guest wants it."""
        run_id, directory = self._bounded.run().run_id, self._bounded.directory
        link = await self._outside.workers.adopt(run_id, directory)
        if link is None:
            await self.budgets.worker_gone()
            await session.egress_wanted.wait()
            link = await self._outside.workers.start(run_id, directory)
        session.egress_wanted.clear()
        await self.audit.open()
        return link

    async def _deal(self, link: WorkerLink) -> None:
        dealings = Dealings(
            link,
            bounded=self._bounded,
            outside=self._outside,
            policy=self.policy,
            decider=self._decider,
            pages=self._pages,
            audit=self.audit,
            credentials=self.credentials,
            budgets=self.budgets,
        )
        watching = asyncio.create_task(self._watch_policy(dealings))
        try:
            await dealings.run()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch_policy(self, dealings: Dealings) -> None:
        held = b""
        while True:
            loaded = await self.policy.current()
            await self._tell_problem()
            if loaded.text != held:
                held = loaded.text
                await dealings.policy_changed(loaded)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tell_problem(self) -> None:
        if self.policy.problem != self._told_problem:
            self._told_problem = self.policy.problem
            if self._told_problem:
                await self._bounded.notice(self._told_problem)

    async def _worker_lost(self, text: str) -> None:
        with contextlib.suppress(CapacityExhausted):
            await self.audit.append(EgressRecord(kind=RecordKind.WORKER, reason=text))
        await self._bounded.notice(
            f"its egress worker {text}; open connections are lost, new ones get a new worker"
        )
