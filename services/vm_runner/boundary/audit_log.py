"""The audit log of one run: the only writer of its chain, and what was recorded lately."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.chassis import tracing
from services.core.egress import audit
from services.core.errors import ContentCorrupt, LnsError
from services.vm_runner import metrics
from services.vm_runner.boundary.ports import AuditStorage
from services.vm_runner.boundary.records import EgressRecord, RecordKind

log = structlog.get_logger()

_KEPT = 2000


class AuditLog:
    """One run's log. `open` comes first."""

    def __init__(
        self, storage: AuditStorage, *, publish: Callable[[EgressRecord], None] = lambda _: None
    ) -> None:
        self._storage = storage
        self._publish = publish
        self._hash = audit.FIRST
        self._sequence = 0
        self._opened = False
        self._writing = asyncio.Lock()
        self._pending: list[bytes] = []
        self._changed = asyncio.Event()
        self._closed = False
        self.recent: deque[EgressRecord] = deque(maxlen=_KEPT)

    async def open(self) -> None:
        """Finds out where the chain stands; a second time it does nothing.

        A log whose last line was changed is gone on with: the break stays visible in it.
        """
        async with self._writing:
            if self._opened:
                return
            self._opened = True
            for data in (await self._storage.open()).splitlines(keepends=True):
                try:
                    line = audit.read_line(data)
                    self.recent.append(EgressRecord.of_line(line))
                except (ContentCorrupt, ValueError, TypeError):
                    log.warning("audit_line_broken")
                    continue
                self._sequence, self._hash = line.sequence, line.hash

    async def append(self, record: EgressRecord) -> EgressRecord:
        """Writes a record; returns it as it stands in the log, once it is in the file.

        Raises:
            CapacityExhausted: the disk is full; it is written with the next one.
        """
        _count(record)
        self._sequence += 1
        record = replace(record, sequence=self._sequence, time=datetime.now(UTC))
        sealed = audit.seal(record.values(), sequence=record.sequence, previous=self._hash)
        self._hash = sealed.hash
        self._pending.append(sealed.data)
        self.recent.append(record)
        self._publish(record)
        self._changed.set()
        self._changed = asyncio.Event()
        # The line is written, once, also if the caller is cancelled.
        await asyncio.shield(asyncio.ensure_future(self._write()))
        return record

    async def _write(self) -> None:
        async with self._writing:
            lines, self._pending = self._pending, []
            if not lines:
                return
            try:
                await self._storage.append(b"".join(lines))
            except LnsError:
                self._pending = lines + self._pending
                raise

    def read(self) -> AsyncIterator[bytes]:
        """Yields the log as it is on the disk, in pieces."""
        return self._storage.read()

    async def records(self, after: int = 0, *, follow: bool) -> AsyncGenerator[EgressRecord, None]:
        """Yields the records behind one, oldest first, and later ones until the run ends.

        A line that was changed is left out: `lns audit` finds it.
        """
        await self.open()
        async for line in self._lines():
            if line.sequence > after:
                after = line.sequence
                yield EgressRecord.of_line(line)
        while follow and not self._closed:
            changed = self._changed
            for record in [one for one in self.recent if one.sequence > after]:
                after = record.sequence
                yield record
            if changed is self._changed and not self._closed:
                await changed.wait()

    async def _lines(self) -> AsyncGenerator[audit.Line, None]:
        rest = b""
        async for piece in self._storage.read():
            *whole, rest = (rest + piece).split(b"\n")
            for data in whole:
                try:
                    yield audit.read_line(data + b"\n")
                except ContentCorrupt:
                    continue

    def close(self) -> None:
        """Ends the wait of all followers."""
        self._closed = True
        self._changed.set()

    def reopen(self) -> None:
        """Lets followers wait again: the run was started again."""
        self._closed = False


def _count(record: EgressRecord) -> None:
    if record.verdict:
        metrics.EGRESS_VERDICTS.labels(record.kind.value, record.verdict).inc()
        tracing.begin(
            "egress.decision", lns_egress_kind=record.kind.value, lns_egress_verdict=record.verdict
        ).end()
    if record.kind is RecordKind.CLOSED:
        metrics.EGRESS_BYTES.labels("out").inc(record.sent_bytes)
        metrics.EGRESS_BYTES.labels("in").inc(record.received_bytes)
