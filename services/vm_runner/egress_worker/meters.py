"""Counts what requests cost, by the budgets that they count for."""

from collections.abc import Callable, Sequence
from typing import Protocol

from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.orders import Inspection
from services.vm_runner.egress_worker.reports import Usage


class UsageOffice(Protocol):
    """Where usage is reported."""

    async def report(self, message: Usage) -> None:
        """Reports; waits while there is no room for reports."""
        ...


class Meter:
    """Counts the requests of one connection.

    Args:
        connection: its number.
        inspection: what holds for it now.
        office: where usage is reported.
    """

    def __init__(
        self, connection: int, inspection: Callable[[], Inspection], office: UsageOffice
    ) -> None:
        self._connection = connection
        self._inspection = inspection
        self._office = office
        self._sent = 0

    def count_sent(self, size: int) -> None:
        """Counts bytes of the body of the next reply's request."""
        self._sent += size

    def begin(self, status: int, headers: Sequence[Header]) -> "Reply":
        """Begins to read a reply."""
        sent, self._sent = self._sent, 0
        return Reply(self._connection, self._inspection(), self._office, sent)


class Reply:
    """Reads one reply as it passes."""

    def __init__(
        self, connection: int, inspection: Inspection, office: UsageOffice, sent: int
    ) -> None:
        self._connection = connection
        self._budgets = inspection.budgets
        self._office = office
        self._sent = sent
        self._received = 0

    def feed(self, data: bytes) -> None:
        """Takes a piece of the body, as it is framed."""
        self._received += len(data)

    async def end(self) -> None:
        """Reports what it cost."""
        if self._budgets:
            await self._office.report(
                Usage(
                    connection=self._connection,
                    budgets=self._budgets,
                    sent=self._sent,
                    received=self._received,
                )
            )
