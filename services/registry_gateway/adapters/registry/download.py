"""Bringing one blob: resumed where it broke off, in ranges where the way is long, verified.

A broken body is taken up again with a `Range` request; only a `206` whose `Content-Range` continues
exactly where we are is accepted, everything else starts the blob anew. Over a connection with
latency, a large blob comes in segments over several connections at once; they are written in order,
so that what lies on the disk is always a beginning of the blob and can be taken up.
"""

import contextlib
import re
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from services.core.descriptor import Descriptor
from services.core.errors import (
    BlobUnknown,
    ContentCorrupt,
    RegistryUnavailable,
)
from services.registry_gateway.adapters.registry.exchange import Exchange, Request
from services.registry_gateway.adapters.registry.registry_errors import error_of
from services.registry_gateway.adapters.transport.http_reply import (
    HostUnknown,
    Reply,
    TooLong,
    Truncated,
)
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.ports import Ingest
from services.registry_gateway.progress import Meter, Stage, Stop

_OK: Final = 200
_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416
_PROGRESS_BYTES: Final = 1 << 20
"""A connection that brought less than this counts as one more failure in a row."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")


class _NoRanges(Exception):
    """The registry does not continue a blob where it is asked to."""


@dataclass(slots=True, kw_only=True)
class _Attempts:
    """What the tries for one blob have shown."""

    began: float
    resumed: bool
    """Whether bytes of an earlier connection are part of what has arrived."""
    ranges: bool = True
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPolicy:
    """When and how a blob comes in segments.

    Attributes:
        least_bytes: blobs with less to come are fetched in one piece.
        least_latency: seconds to an answer below which more connections do not help.
        segment_bytes: size of one segment.
        connections: segments that are under way at a time for one blob.
        buffers: segments in memory for all blobs together.
    """

    least_bytes: int = 32 << 20
    least_latency: float = 0.015
    segment_bytes: int = 8 << 20
    connections: int = 4
    buffers: int = 8


class Downloader:
    """Brings blobs; used by many threads. A context manager."""

    def __init__(self, exchange: Exchange, policy: SegmentPolicy) -> None:
        self._exchange = exchange
        self._policy = policy
        self._segments = ThreadPoolExecutor(
            max_workers=policy.buffers, thread_name_prefix="gateway-segment"
        )
        self._buffers = threading.BoundedSemaphore(policy.buffers)

    def close(self) -> None:
        """Waits for segments under way."""
        self._segments.shutdown(cancel_futures=True)

    def fetch(self, request: Request, what: str, sink: Ingest, meter: Meter) -> None:
        """Brings the rest of a blob into its ingest and commits it.

        Args:
            request: the GET of the blob, without a range.
            what: the repository, for messages.
            sink: where it goes, from its position on.
            meter: counts, and stops the transfer.

        Raises:
            BlobUnknown: the repository does not have it.
            ContentCorrupt: what came is not the blob.
            RegistryUnavailable: the connection broke more often than is tried again.
        """
        state = _Attempts(began=self._exchange.now(), resumed=sink.position > 0)
        while True:
            before = sink.position
            meter.stage, meter.done = Stage.DOWNLOADING, before
            try:
                if before < sink.descriptor.size:
                    self._fetch_rest(request, what, sink, meter, ranges=state.ranges)
                sink.commit()
            except _NoRanges:
                state.ranges = False
                sink.restart()
            except ContentCorrupt:
                # A beginning from before may be at fault: the blob gets one chance from scratch.
                if not state.resumed:
                    raise
                state.resumed = state.ranges = False
                sink.restart()
            except HostUnknown:
                raise
            except RegistryUnavailable as error:
                meter.stage = Stage.RETRYING
                if state.ranges and sink.position - before >= _PROGRESS_BYTES:
                    state.failures, state.began = 0, self._exchange.now()
                if not self._exchange.wait(state.failures, error, state.began, meter.stop):
                    raise
                state.failures += 1
                if not state.ranges:
                    sink.restart()
                elif sink.position:
                    state.resumed = True
            else:
                return

    def _fetch_rest(
        self, request: Request, what: str, sink: Ingest, meter: Meter, *, ranges: bool
    ) -> None:
        rest = sink.descriptor.size - sink.position
        latency = self._exchange.http.latency(Origin.of_url(request.url)) or 0.0
        long_way = latency >= self._policy.least_latency
        # Where others have every buffer, one connection does: nobody waits for a slow registry.
        if (
            ranges
            and long_way
            and rest >= self._policy.least_bytes
            and self._buffers.acquire(blocking=False)
        ):
            self._fetch_segments(request, what, sink, meter)
        else:
            self._fetch_stream(request, what, sink, meter)

    def _fetch_stream(self, request: Request, what: str, sink: Ingest, meter: Meter) -> None:
        start, size = sink.position, sink.descriptor.size
        with self._open(request, what, meter.stop, start, size) as reply:
            try:
                for chunk in reply.chunks(size - start):
                    sink.write(chunk)
                    meter.advance(len(chunk))
            except TooLong as error:
                raise _longer(what, sink.descriptor) from error
        if sink.position < size:
            raise Truncated(f"{what}: blob {sink.descriptor.digest.short} broke off")

    def _fetch_segments(self, request: Request, what: str, sink: Ingest, meter: Meter) -> None:
        size, step = sink.descriptor.size, self._policy.segment_bytes
        starts = deque(range(sink.position, size, step))
        under_way: deque[Future[bytes]] = deque()
        stop = Stop()
        held = True  # the first segment's buffer
        with contextlib.ExitStack() as stack:
            stack.enter_context(meter.stop.waking(stop.set))
            stack.callback(self._abandon, under_way, stop)
            while starts or under_way:
                while starts and len(under_way) < self._policy.connections:
                    if not held and not self._buffers.acquire(blocking=False):
                        break
                    held = False
                    start = starts.popleft()
                    wanted = (start, min(start + step, size), size)
                    under_way.append(
                        self._segments.submit(self._segment, request, what, stop, wanted)
                    )
                segment = under_way[0].result()
                sink.write(segment)
                meter.advance(len(segment))
                under_way.popleft()
                held = bool(starts) and not under_way  # the last one is not given away
                if not held:
                    self._buffers.release()

    def _abandon(self, under_way: deque[Future[bytes]], stop: Stop) -> None:
        stop.set()
        wait(under_way)
        for _ in under_way:
            self._buffers.release()

    def _segment(
        self, request: Request, what: str, stop: Stop, wanted: tuple[int, int, int]
    ) -> bytes:
        start, end, size = wanted
        with self._open(request, what, stop, start, size, end=end) as reply:
            try:
                data = b"".join(reply.chunks(end - start))
            except TooLong as error:
                raise ContentCorrupt(
                    f"{what}: the registry sends more than was asked for"
                ) from error
        if len(data) != end - start:
            raise Truncated(f"{what}: a segment broke off")
        return data

    def _open(
        self,
        request: Request,
        what: str,
        stop: Stop,
        start: int,
        size: int,
        *,
        end: int | None = None,
    ) -> Reply:
        """Sends the GET for the bytes from `start` to `end` and checks that they are what comes."""
        headers = dict(request.headers)
        ranged = start > 0 or end is not None
        if ranged:
            headers["Range"] = f"bytes={start}-{(end or size) - 1}"
        asked = Request(
            method="GET",
            url=request.url,
            access=request.access,
            headers=headers,
            retried=False,
            size=(end or size) - start,
        )
        reply = self._exchange.send(asked, stop=stop)
        try:
            self._check(reply, what, (start, end or size, size), ranged=ranged)
        except BaseException:
            reply.close()
            raise
        return reply

    def _check(
        self, reply: Reply, what: str, wanted: tuple[int, int, int], *, ranged: bool
    ) -> None:
        start, end, size = wanted
        if ranged and reply.status_code in (_OK, _NOT_SATISFIABLE):
            raise _NoRanges
        if ranged and reply.status_code == _PARTIAL:
            if not _continues(reply.headers.get("Content-Range", ""), wanted):
                raise _NoRanges
        elif reply.status_code != _OK:
            raise error_of(reply, what=what, not_found=BlobUnknown)
        # `Content-Encoding` decides nothing: web servers guess it from the bytes of a layer
        # (`x-gzip`), and the digest says whether the bytes are the blob's.
        if reply.length is not None and reply.length != end - start:
            encoding = reply.headers.get("Content-Encoding", "")
            encoded = f", encoded as {encoding[:40]!r}" if encoding else ""
            raise ContentCorrupt(
                f"{what}: the registry offers {reply.length} bytes{encoded}"
                f" where the blob has {size}"
            )


def _longer(what: str, blob: Descriptor) -> ContentCorrupt:
    return ContentCorrupt(
        f"{what}: blob {blob.digest} is longer than its {blob.size} bytes",
        metadata={"digest": blob.digest},
    )


def _continues(content_range: str, wanted: tuple[int, int, int]) -> bool:
    start, end, size = wanted
    match = _CONTENT_RANGE.match(content_range)
    if match is None:
        return False
    total = match[3]
    return (int(match[1]), int(match[2])) == (start, end - 1) and total in ("*", str(size))
