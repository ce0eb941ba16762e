"""Counts what requests cost, by the budgets that they count for."""

from collections.abc import Callable, Sequence
from typing import Protocol

from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.orders import Inspection
from services.vm_runner.egress_worker.reports import Usage
from services.vm_runner.egress_worker.usage_reader import UsageReader


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

    def begin(self, status: int, headers: Sequence[Header], *, is_chunked: bool = False) -> "Reply":
        """Begins to read a reply; `is_chunked` says whether its chunks come with their sizes."""
        sent, self._sent = self._sent, 0
        inspection = self._inspection()
        usage = UsageReader(inspection.usage, status, headers, is_chunked=is_chunked)
        return Reply(self._connection, inspection.budgets, usage, self._office, sent)


class Reply:
    """Reads one reply as it passes."""

    def __init__(
        self,
        connection: int,
        budgets: tuple[str, ...],
        usage: UsageReader,
        office: UsageOffice,
        sent: int,
    ) -> None:
        self._connection = connection
        self._budgets = budgets
        self._usage = usage
        self._office = office
        self._sent = sent
        self._received = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Takes a piece of the body, as it is framed."""
        self._received += len(data)
        if self._budgets:
            self._usage.feed(data)

    async def end(self) -> None:
        """Reports what it cost, once: also of a reply that somebody broke off."""
        if not self._budgets or self._ended:
            return
        self._ended = True
        tokens = self._usage.end()
        await self._office.report(
            Usage(
                connection=self._connection,
                budgets=self._budgets,
                sent=self._sent,
                received=self._received,
                model=tokens.model,
                input_tokens=tokens.input_tokens,
                output_tokens=tokens.output_tokens,
                cache_read_tokens=tokens.cache_read_tokens,
                cache_write_tokens=tokens.cache_write_tokens,
                exact=tokens.exact,
            )
        )
