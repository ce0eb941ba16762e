"""Questions of requests to the runner, each open until it is answered, whichever runner does."""

import asyncio
import itertools
from typing import TypeVar

from services.vm_runner.egress_worker.control_socket import ControlSocket
from services.vm_runner.egress_worker.orders import AllowanceAnswer, CredentialAnswer, PageAnswer
from services.vm_runner.egress_worker.reports import (
    AllowanceWanted,
    CredentialWanted,
    PageWanted,
    ToRunner,
    Usage,
)

_Answer = TypeVar("_Answer", CredentialAnswer, AllowanceAnswer, PageAnswer)
_Question = CredentialWanted | AllowanceWanted | PageWanted


class Questions:
    """What is asked on behalf of requests.

    Args:
        control: by which it is asked and reported.
    """

    def __init__(self, control: ControlSocket) -> None:
        self._control = control
        self._open: dict[int, tuple[_Question, asyncio.Future[object]]] = {}
        self._left: dict[int, AllowanceWanted] = {}
        self._numbers = itertools.count(1)

    @property
    def open(self) -> list[_Question]:
        """Those without an answer."""
        return [question for question, _ in self._open.values()]

    async def report(self, message: ToRunner) -> None:
        """Reports; waits while the queue of reports is full."""
        await self._control.report(message)

    async def ask_credential(
        self, connection: int, credential: str, *, method: str, path: str
    ) -> CredentialAnswer:
        """Waits until a credential has come or has been refused."""
        number = next(self._numbers)
        wanted = CredentialWanted(
            request=number,
            connection=connection,
            credential=credential[:128],
            method=method,
            path=path[:1024],
        )
        return await self._ask(wanted, CredentialAnswer)

    async def ask_allowance(self, connection: int, budgets: tuple[str, ...]) -> AllowanceAnswer:
        """Waits until it is known whether budgets permit one more request."""
        number = next(self._numbers)
        wanted = AllowanceWanted(request=number, connection=connection, budgets=budgets)
        return await self._ask(wanted, AllowanceAnswer)

    async def ask_page(self, wanted: PageWanted) -> PageAnswer:
        """Waits for a page."""
        number = next(self._numbers)
        numbered = PageWanted(
            request=number,
            connection=wanted.connection,
            method=wanted.method,
            path=wanted.path,
            query=wanted.query,
            body=wanted.body,
        )
        return await self._ask(numbered, PageAnswer)

    def answer(self, answer: CredentialAnswer | AllowanceAnswer | PageAnswer) -> None:
        """Takes an answer; one to nothing is ignored."""
        _, waiting = self._open.get(answer.request, (None, None))
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
        elif (wanted := self._left.pop(answer.request, None)) is not None:
            self._control.say(usage_of_nothing(wanted))

    async def _ask(self, question: _Question, kind: type[_Answer]) -> _Answer:
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._open[question.request] = (question, waiting)
        self._control.ask(question)
        try:
            while True:
                answer = await waiting
                if isinstance(answer, kind):
                    return answer
                waiting = asyncio.get_running_loop().create_future()
                self._open[question.request] = (question, waiting)
        finally:
            del self._open[question.request]
            if isinstance(question, AllowanceWanted) and not waiting.done():
                self._left[question.request] = question  # its answer counts it


def usage_of_nothing(wanted: AllowanceWanted) -> Usage:
    """Returns the report on a request whose client had left when it was let through."""
    return Usage(
        connection=wanted.connection,
        budgets=wanted.budgets,
        allowance=wanted.request,
        requests=0,
    )
