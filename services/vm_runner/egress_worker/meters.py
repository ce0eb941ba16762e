"""Counts what requests cost, by the budgets that they count for."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from services.core.route_match import path_matches
from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.orders import Inspection
from services.vm_runner.egress_worker.reports import Usage
from services.vm_runner.egress_worker.usage_reader import UsageReader

_USES_NOTHING: Final = ("GET", "HEAD", "OPTIONS", "DELETE")
_SWITCHING: Final = 101
_GOOD: Final = range(200, 300)


class UsageOffice(Protocol):
    """Where usage is reported."""

    async def report(self, message: Usage) -> None:
        """Reports; waits while the queue of reports is full."""
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

    def request(self, method: str, path: str, *, allowance: int, socket: bool) -> "Metered":
        """Begins to count a request that was let through.

        Args:
            method: of it.
            path: of it, normalised.
            allowance: the number under which the runner let it through, or 0.
            socket: whether it asks for a WebSocket.
        """
        inspection = self._inspection()
        may_use = socket or not (
            method.upper() in _USES_NOTHING
            or any(path_matches(pattern, path) for pattern in inspection.free)
        )
        return Metered(
            self._connection, inspection, self._office, allowance=allowance, may_use=may_use
        )


class Metered:
    """One request and its reply, read as they pass."""

    def __init__(
        self,
        connection: int,
        inspection: Inspection,
        office: UsageOffice,
        *,
        allowance: int,
        may_use: bool,
    ) -> None:
        self._connection = connection
        self._inspection = inspection
        self._office = office
        self._allowance = allowance
        self._may_use = may_use and bool(inspection.usage)
        self._usage: UsageReader | None = None
        self._status = 0
        self._sent = 0
        self._received = 0
        self._ended = False

    @property
    def began(self) -> bool:
        """Whether the reply began."""
        return bool(self._status)

    @property
    def is_read_out(self) -> bool:
        """Whether the reply is read to its end, even if the guest's program leaves."""
        return self._may_use and self._inspection.exact and not self._ended

    def count_sent(self, size: int) -> None:
        """Counts bytes of the request's body."""
        self._sent += size

    def begin(self, status: int, headers: Sequence[Header], *, is_chunked: bool = False) -> None:
        """Begins to read the reply; `is_chunked` says whether its chunks come with their sizes."""
        self._status = status
        self._usage = UsageReader(self._inspection.usage, status, headers, is_chunked=is_chunked)

    def switch(self) -> None:
        """Notes that another protocol follows, which does not report usage."""
        self._status = _SWITCHING
        self._may_use = bool(self._inspection.usage)

    def feed(self, data: bytes) -> None:
        """Takes a piece of the reply's body, as it is framed."""
        self._received += len(data)
        if self._usage is not None and self._inspection.budgets:
            self._usage.feed(data)

    async def end(self, *, whole: bool, taken: bool = True) -> None:
        """Reports what it cost, once.

        Args:
            whole: whether the reply came to its end.
            taken: whether the host may have acted on the request.
        """
        if not self._inspection.budgets or self._ended:
            return
        self._ended = True
        reported = self._usage.end() if self._usage is not None else UsageReader.nothing()
        tokens = reported.tokens
        failed = whole and self._status not in _GOOD
        known = failed or (whole and reported.exact)
        await self._office.report(
            Usage(
                connection=self._connection,
                budgets=self._inspection.budgets,
                allowance=self._allowance,
                requests=0 if self._allowance else 1,
                sent=self._sent,
                received=self._received,
                model=reported.model,
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                cache_read_tokens=tokens.cache_read,
                cache_write_tokens=tokens.cache_write,
                cache_write_long_tokens=tokens.cache_write_long,
                exact=reported.exact,
                unread=taken and self._may_use and not known,
            )
        )
