"""The question in `lns run`: what its run waits for, answered where the run is watched.

Without a terminal of the run's own it is a line among the lines. Where the terminal is the run's,
its output is held, the question stands on a screen of its own, and the screen is given back: by the
terminal where the program used the ordinary one, by the program where it draws on the alternate one
and is notified that the size changed. So nothing of the program's is garbled.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from lns.egress.v1 import credential_service_pb2 as credential_pb
from lns.egress.v1 import egress_service_pb2 as pb

from lns.client.running.approving import answer, subject_of
from services.core.errors import ApprovalUnknown, LnsError
from services.core.run_plan import Verdict
from services.core.text import printable

if TYPE_CHECKING:
    from lns.egress.v1.credential_service_pb2_grpc import CredentialServiceStub
    from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub

_RETRY_SECONDS = 1.0
_NOTE_WIDTH = 200
_ANSWERS = {
    "a": (Verdict.ALLOW, False),
    "aa": (Verdict.ALLOW, True),
    "d": (Verdict.DENY, False),
    "dd": (Verdict.DENY, True),
}
_KEYS = "a allow for this run, aa always, d deny for this run, dd always; then Enter"
_STORE = "k"
_CREDENTIAL_KEYS = (
    "k type the key, which is stored and not shown; a allow the stored one for this run, "
    "aa always, d deny for this run; then Enter"
)


class Asker(Protocol):
    """The person's side."""

    def asking(self, lines: list[str]) -> "contextlib.AbstractAsyncContextManager[Answers]":
        """Shows a question while the block runs."""
        ...


class Answers(Protocol):
    """What a person types while a question stands."""

    async def line(self) -> str:
        """Returns the next line that is typed."""
        ...

    async def secret(self) -> str:
        """Returns the next line that is typed; it is not shown."""
        ...

    async def say(self, text: str) -> None:
        """Shows a line below the question."""
        ...


class Prompter:
    """Asks about every approval of a run, one after the other.

    Args:
        egress: answers approvals.
        credentials: stores keys that are typed.
        run_id: of the run.
        asker: at whose terminal it is asked; None where nobody can be asked.
        note: shows a line.
    """

    def __init__(
        self,
        egress: "EgressServiceStub",
        credentials: "CredentialServiceStub",
        run_id: str,
        asker: Asker | None,
        note: Callable[[str], None],
    ) -> None:
        self._egress = egress
        self._credentials = credentials
        self._run_id = run_id
        self._asker = asker
        self._note = note
        self._open: dict[str, pb.Approval] = {}
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def prompting(self) -> AsyncIterator[None]:
        """Asks while the block runs."""
        tasks = [asyncio.ensure_future(self._watch()), asyncio.ensure_future(self._ask())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(LnsError):
                request = pb.WatchApprovalsRequest(run=self._run_id)
                async for event in self._egress.WatchApprovals(request):
                    self._take(event)
            await asyncio.sleep(_RETRY_SECONDS)

    def _take(self, event: pb.WatchApprovalsResponse) -> None:
        if event.HasField("settled"):
            self._open.pop(event.settled.approval_id, None)
        else:
            is_new = event.asked.approval_id not in self._open
            self._open[event.asked.approval_id] = event.asked
            if is_new and self._asker is None:
                asked = event.asked
                way = f"`lns approvals allow {asked.approval_id}` lets it"
                if asked.kind == pb.Approval.KIND_CREDENTIAL:
                    way = f"`lns connect {asked.integration}` stores it; {way}"
                self._note(f"lns: {asked.run_name} asks for {subject_of(asked)}; {way}")
        self._changed.set()
        self._changed = asyncio.Event()

    async def _ask(self) -> None:
        if self._asker is None:
            return
        while True:
            changed = self._changed
            approval = next(iter(self._open.values()), None)
            if approval is None:
                await changed.wait()
                continue
            with contextlib.suppress(LnsError, OSError):
                await self._ask_about(self._asker, approval)
            self._open.pop(approval.approval_id, None)

    async def _ask_about(self, asker: Asker, approval: pb.Approval) -> None:
        note = f"It says: {printable(approval.note)[:_NOTE_WIDTH]}" if approval.note else ""
        origin = f"({printable(approval.origin)})" if approval.origin else ""
        name = printable(approval.run_name)
        lines = [
            f"lns: {name} asks for {subject_of(approval)} {origin}".rstrip(),
            *([note] if note else []),
            _keys(approval),
        ]
        async with asker.asking(lines) as answers:
            settled = asyncio.ensure_future(self._settled(approval.approval_id))
            try:
                while True:
                    typing = asyncio.ensure_future(answers.line())
                    await asyncio.wait({typing, settled}, return_when=asyncio.FIRST_COMPLETED)
                    if not typing.done():
                        typing.cancel()
                        return
                    if await self._took(approval, typing.result(), answers):
                        return
            finally:
                settled.cancel()

    async def _took(self, approval: pb.Approval, text: str, answers: Answers) -> bool:
        """Answers by what was typed; returns whether that was an answer."""
        word = text.strip().lower()
        is_credential = approval.kind == pb.Approval.KIND_CREDENTIAL
        if word != _STORE or not is_credential:
            chosen = _ANSWERS.get(word)
        else:
            chosen = (Verdict.ALLOW, False)
        if chosen is None:
            await answers.say(_keys(approval))
            return False
        verdict, always = chosen
        try:
            if word == _STORE:
                await self._store(approval, answers)
            await answer(self._egress, approval, verdict, always=always)
        except ApprovalUnknown:
            return True  # what was stored has answered it, or nobody waits any more
        except (LnsError, OSError) as error:
            await answers.say(f"lns: {error.message if isinstance(error, LnsError) else error}")
            return False
        return True

    async def _store(self, approval: pb.Approval, answers: Answers) -> None:
        """Stores the key that is typed.

        Raises:
            LnsError: it is no key, or cannot be stored.
        """
        await answers.say(f"the key of {printable(approval.integration)}, then Enter:")
        value = (await answers.secret()).strip("\r\n")
        await self._credentials.PutCredential(
            credential_pb.PutCredentialRequest(integration=approval.integration, value=value)
        )

    async def _settled(self, approval_id: str) -> None:
        while approval_id in self._open:
            await self._changed.wait()


def _keys(approval: pb.Approval) -> str:
    is_credential = approval.kind == pb.Approval.KIND_CREDENTIAL
    return _CREDENTIAL_KEYS if is_credential else _KEYS
