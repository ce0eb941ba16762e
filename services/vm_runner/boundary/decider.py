"""From what a guest asks for to a verdict: by the policy, a user, and earlier answers."""

import json
from dataclasses import dataclass

import structlog

from services.core.egress.decisions import Cause, Decision
from services.core.egress.hosts import Host, parse_host
from services.core.errors import LimitExceeded, LnsError
from services.core.run_plan import Verdict
from services.vm_runner.boundary.approvals import Approvals, Outcome, Question
from services.vm_runner.boundary.audit_log import AuditLog
from services.vm_runner.boundary.boundary import APPROVE_SECONDS, BoundaryOutside, BoundedRun
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.boundary.run_policy import LoadedPolicy, RunPolicy

log = structlog.get_logger()

ANSWERS_FILE = "approvals.json"
ANSWERS_MOST = 4096
"""Answers that are remembered for one run."""

_OUTCOMES = {
    Outcome.ALLOWED: "a user allowed it for this run",
    Outcome.DENIED: "a user denied it for this run",
    Outcome.EXPIRED: "no user answered in time",
    Outcome.WITHDRAWN: "the run ended before a user answered",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What becomes of a connection, and why.

    Attributes:
        allowed: whether it may be.
        decision: of the policy.
        reason: for a user; a user's answer if that decided.
    """

    allowed: bool
    decision: Decision
    reason: str

    @property
    def how_to_allow(self) -> str:
        """The command that would change it; empty where it is allowed."""
        return "" if self.allowed else self.decision.how_to_allow


class Decider:
    """Decides for one run."""

    def __init__(
        self, bounded: BoundedRun, outside: BoundaryOutside, policy: RunPolicy, audit: AuditLog
    ) -> None:
        self._bounded = bounded
        self._files = outside.files
        self._approvals: Approvals = outside.approvals
        self._policy = policy
        self._audit = audit
        self._answers: dict[tuple[str, int], bool] | None = None

    async def load(self) -> None:
        """Takes up what was answered for this run before."""
        if self._answers is not None:
            return
        self._answers = {}
        try:
            data = await self._files.read(self._bounded.directory / ANSWERS_FILE)
            for host, port, allowed in json.loads(data or b"[]"):
                self._answers[str(host), int(port)] = bool(allowed)
        except (ValueError, TypeError, OSError, LnsError):
            log.warning("answers_unreadable", run_id=self._bounded.run().run_id)

    async def forget(self) -> None:
        """Forgets what was answered for the run while it ran before."""
        await self.load()
        if not self._answers:
            return
        self._answers = {}
        await self._files.write(self._bounded.directory / ANSWERS_FILE, b"[]")

    def judge(self, loaded: LoadedPolicy, host: Host, port: int) -> Ruling | None:
        """Returns what is known without asking a user; None if a user has to be asked."""
        decision = loaded.policies.decide(host, port)
        answer = (self._answers or {}).get((str(host), port))
        if decision.verdict is Verdict.ALLOW:
            return Ruling(allowed=True, decision=decision, reason=decision.text)
        if answer is not None and (decision.verdict is Verdict.ASK or can_be_asked(decision)):
            reason = _OUTCOMES[Outcome.ALLOWED if answer else Outcome.DENIED]
            return Ruling(allowed=answer, decision=decision, reason=reason)
        if decision.verdict is Verdict.DENY:
            return Ruling(allowed=False, decision=decision, reason=decision.text)
        return None

    async def rule(self, host: Host, port: int) -> Ruling:
        """Decides on a connection; asks a user where the policy says so."""
        await self.load()
        loaded = await self._policy.current()
        known = self.judge(loaded, host, port)
        if known is not None:
            return known
        return await self.ask(loaded.policies.decide(host, port), host, port)

    async def ask(self, decision: Decision, host: Host, port: int, *, note: str = "") -> Ruling:
        """Asks a user, waits, and remembers the answer."""
        run = self._bounded.run()
        question = Question(run_id=run.run_id, host=str(host), port=port)
        seconds = run.options.approve_timeout or APPROVE_SECONDS
        try:
            outcome = await self._approvals.ask(
                question, run_name=run.name, seconds=seconds, origin=decision.place, note=note
            )
        except LimitExceeded as error:
            return Ruling(allowed=False, decision=decision, reason=error.message)
        if outcome in (Outcome.ALLOWED, Outcome.DENIED):
            await self._remember(question, outcome)
        allowed = outcome is Outcome.ALLOWED
        return Ruling(allowed=allowed, decision=decision, reason=_OUTCOMES[outcome])

    async def _remember(self, question: Question, outcome: Outcome) -> None:
        """Keeps an answer, once for all that waited for it."""
        answers = self._answers if self._answers is not None else {}
        key, allowed = (question.host, question.port), outcome is Outcome.ALLOWED
        if answers.get(key) is allowed:
            return
        if len(answers) >= ANSWERS_MOST:
            answers.pop(next(iter(answers)))
        answers[key] = allowed
        self._answers = answers
        entries = [[host, port, answer] for (host, port), answer in answers.items()]
        await self._files.write(
            self._bounded.directory / ANSWERS_FILE, json.dumps(entries).encode()
        )
        await self._audit.append(
            EgressRecord(
                kind=RecordKind.APPROVAL,
                verdict="allow" if allowed else "deny",
                host=question.host,
                port=question.port,
                reason=_OUTCOMES[outcome],
            )
        )

    def settle_pending(self, loaded: LoadedPolicy) -> None:
        """Answers what waits for a user and is decided by the policy as it is now."""
        run_id = self._bounded.run().run_id
        for approval in self._approvals.list(run_id):
            question = approval.question
            host = _host_of(question.host)
            if host is None or not question.port:
                continue
            verdict = loaded.policies.decide(host, question.port).verdict
            if verdict is Verdict.ALLOW:
                self._approvals.settle(question, Outcome.ALLOWED)


def can_be_asked(decision: Decision) -> bool:
    """Returns whether a user may allow for one run what a policy does not.

    What a route denies stays denied, and so do ranges and ports that only a rule opens.
    """
    return decision.cause in (Cause.DEFAULT, Cause.NO_OPINION)


def _host_of(text: str) -> Host | None:
    try:
        return parse_host(text)
    except LnsError:
        return None
