"""What runs ask users for: each question once, however many connections wait."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from services.core.errors import ApprovalUnknown, LimitExceeded, RequestInvalid
from services.vm_runner.metrics import APPROVALS

PENDING_MOST = 256
"""Approvals that one run may wait for at a time."""

_NOTE_MOST = 500
_WATCH_MOST = 4096


class ApprovalKind(StrEnum):
    """What is waited for."""

    CONNECTION = "connection"
    CREDENTIAL = "credential"


class Outcome(StrEnum):
    """How an approval ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: of which run, for what. Equal questions wait together."""

    run_id: str
    host: str
    port: int = 0
    kind: ApprovalKind = ApprovalKind.CONNECTION
    integration: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A question that waits for an answer."""

    approval_id: str
    question: Question
    run_name: str
    origin: str
    note: str
    waiting: int
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    """An approval that waits no longer."""

    approval_id: str
    run_id: str
    outcome: Outcome


class Approvals:
    """Every approval of a node."""

    def __init__(self) -> None:
        self._pending: dict[Question, Approval] = {}
        self._answers: dict[Question, asyncio.Future[Outcome]] = {}
        self._watchers: set[asyncio.Queue[Approval | Settled | None]] = set()

    def list(self, *run_ids: str) -> list[Approval]:
        """Returns what is waited for, oldest first; of all runs if none is named."""
        return [
            one for one in self._pending.values() if not run_ids or one.question.run_id in run_ids
        ]

    async def ask(
        self, question: Question, *, run_name: str, seconds: float, origin: str = "", note: str = ""
    ) -> Outcome:
        """Waits for an answer, together with all that ask the same.

        Raises:
            LimitExceeded: the run waits for too much already.
        """
        known = self._pending.get(question)
        if known is None and len(self.list(question.run_id)) >= PENDING_MOST:
            raise LimitExceeded(f"the run waits for {PENDING_MOST} approvals already")
        answer = self._answers.get(question)
        if known is None or answer is None:
            answer = asyncio.get_running_loop().create_future()
            self._answers[question] = answer
            now = datetime.now(UTC)
            known = Approval(
                approval_id=secrets.token_hex(6),
                question=question,
                run_name=run_name,
                origin=origin,
                note="",
                waiting=0,
                create_time=now,
                expire_time=now + timedelta(seconds=seconds),
            )
            asyncio.get_running_loop().call_later(
                seconds, self._settle, known.approval_id, Outcome.EXPIRED
            )
        self._put(replace(known, waiting=known.waiting + 1, note=(note or known.note)[:_NOTE_MOST]))
        try:
            return await asyncio.shield(answer)
        finally:
            left = self._pending.get(question)
            if left is not None:
                self._pending[question] = replace(left, waiting=max(0, left.waiting - 1))

    def _put(self, approval: Approval) -> None:
        self._pending[approval.question] = approval
        self._tell(approval)

    def answer(self, text: str, *, allow: bool) -> Approval:
        """Answers an approval by its id, or a unique prefix of it; returns it as it was.

        Raises:
            ApprovalUnknown: no approval has that id.
            RequestInvalid: several ids begin so.
        """
        found = [one for one in self._pending.values() if one.approval_id.startswith(text)]
        if not text or not found:
            raise ApprovalUnknown(
                f"no approval {text[:40]!r} is waited for",
                hint="`lns approvals list` shows those that are; this one may have expired",
            )
        if len(found) > 1:
            raise RequestInvalid(f"{text!r} is the beginning of {len(found)} approvals")
        self._settle(found[0].approval_id, Outcome.ALLOWED if allow else Outcome.DENIED)
        return found[0]

    def settle(self, question: Question, outcome: Outcome) -> None:
        """Answers a question that a user does not have to answer any more."""
        if known := self._pending.get(question):
            self._settle(known.approval_id, outcome)

    def withdraw(self, run_id: str) -> None:
        """Takes back everything that a run waits for."""
        for one in self.list(run_id):
            self._settle(one.approval_id, Outcome.WITHDRAWN)

    def _settle(self, approval_id: str, outcome: Outcome) -> None:
        for question, approval in list(self._pending.items()):
            if approval.approval_id != approval_id:
                continue
            del self._pending[question]
            answer = self._answers.pop(question)
            if not answer.done():
                answer.set_result(outcome)
            self._tell(Settled(approval_id, question.run_id, outcome))

    def _tell(self, event: Approval | Settled) -> None:
        APPROVALS.set(len(self._pending))
        for watcher in list(self._watchers):
            if watcher.qsize() >= _WATCH_MOST:  # it does not read: it may come back and ask anew
                self._watchers.discard(watcher)
                watcher.put_nowait(None)
            else:
                watcher.put_nowait(event)

    async def watch(self, *run_ids: str) -> AsyncGenerator[Approval | Settled, None]:
        """Yields what is waited for, then what changes; ends for a reader that falls far behind."""
        watcher: asyncio.Queue[Approval | Settled | None] = asyncio.Queue()
        self._watchers.add(watcher)
        try:
            for approval in self.list(*run_ids):
                yield approval
            while (event := await watcher.get()) is not None:
                of_run = event.run_id if isinstance(event, Settled) else event.question.run_id
                if not run_ids or of_run in run_ids:
                    yield event
        finally:
            self._watchers.discard(watcher)
