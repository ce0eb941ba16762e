"""Bringing one blob into a registry, with as few bytes as can be.

Not at all where the repository has it, by mount where another one does, in one request where it is
small, in chunks that can be taken up where it is large.

What registries really do: an upload session can be
continued only where the registry says it is, and not at all after a cut inside a chunk (registry
2.8 answers 404: the blob begins anew). `Range: 0-0` is what a session without bytes answers too, so
our own count decides about the beginning.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode, urlsplit

from services.core.descriptor import Descriptor
from services.core.errors import (
    BlobUnknown,
    ContentCorrupt,
    LnsError,
    ManifestUnknown,
    RegistryProtocol,
    RegistryUnavailable,
)
from services.registry_gateway.adapters.registry.blob_offer import BlobOffer, UploadTarget
from services.registry_gateway.adapters.registry.exchange import Exchange, Request
from services.registry_gateway.adapters.registry.registry_errors import error_of
from services.registry_gateway.adapters.transport.http_reply import CHUNK_BYTES, Reply
from services.registry_gateway.ports import BlobSource, UploadSession, UploadSessions
from services.registry_gateway.progress import Meter, Stage, Stop

_CREATED: Final = 201
_ACCEPTED: Final = 202
_NO_CONTENT: Final = 204
_CHUNKS_REFUSED: Final = frozenset({400, 404, 405, 411, 413, 416})
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})\Z")
_OCTETS: Final = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPolicy:
    """When and how a blob goes in chunks.

    Attributes:
        least_bytes: blobs with fewer go in one request.
        chunk_bytes: size of one chunk: what is lost at most when the connection breaks.
    """

    least_bytes: int = 64 << 20
    chunk_bytes: int = 32 << 20


class _ChunksRefused(Exception):
    """The registry does not take chunks; the blob goes in one request."""


class Uploader:
    """Pushes blobs; used by many threads."""

    def __init__(self, exchange: Exchange, policy: ChunkPolicy, sessions: UploadSessions) -> None:
        self._exchange = exchange
        self._blobs = BlobOffer(exchange)
        self._policy = policy
        self._sessions = sessions

    def push(
        self,
        target: UploadTarget,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
        *,
        mount_from: Sequence[str],
    ) -> None:
        """Sees to it that the target has the blob; `meter.stage` says how it came there.

        Raises:
            ContentCorrupt: the source's bytes are not the blob's.
            RegistryUnavailable: the connection broke more often than is tried again.
        """
        there = self.offer(target, descriptor, mount_from, meter.stop)
        if there is not None:
            meter.finish(there)
            return
        upload = _Upload(target=target, descriptor=descriptor, source=source, meter=meter)
        try:
            if descriptor.size >= self._policy.least_bytes:
                self._push_chunked(upload)
            else:
                self._push_whole(upload)
        except _ChunksRefused:
            self._push_whole(upload)
        meter.finish(Stage.DONE)

    def _push_whole(self, upload: "_Upload") -> None:
        """Sends the blob in one request."""
        tries = _Tries(self._exchange, upload.meter)
        while True:
            try:
                session, _ = self._begin(upload.target, upload.meter)
                self._finish(upload, session)
            except RegistryUnavailable as error:
                tries.failed(error)
                if self._blobs.exists(upload.target, upload.meter.stop):  # only the answer was lost
                    return
            else:
                return

    def _push_chunked(self, upload: "_Upload") -> None:
        """Sends the blob in chunks, from where an earlier try or process left off."""
        tries = _Tries(self._exchange, upload.meter)
        session = self._taken_up(upload, self._sessions.load(upload.key))
        size = self._policy.chunk_bytes
        while True:
            before = session.offset if session else 0
            try:
                if session is None:
                    session, least = self._begin(upload.target, upload.meter)
                    size = max(size, least)
                while session.offset < upload.descriptor.size:
                    self._send_chunk(upload, session, size)
                    self._sessions.save(upload.key, session)
                self._finish(upload, session)
            except RegistryUnavailable as error:
                if session is not None and session.offset > before:
                    tries.progressed()
                tries.failed(error)
                if self._blobs.exists(upload.target, upload.meter.stop):
                    break
                session = self._taken_up(upload, session)
            else:
                break
        self._sessions.drop(upload.key)

    def offer(
        self, target: UploadTarget, descriptor: Descriptor, mount_from: Sequence[str], stop: Stop
    ) -> Stage | None:
        """See `BlobOffer.offer`."""
        return self._blobs.offer(target, descriptor, mount_from, stop)

    def _begin(self, target: UploadTarget, meter: Meter) -> tuple[UploadSession, int]:
        """Begins an upload; returns it with the least size of chunks that the registry takes."""
        request = Request(
            method="POST",
            url=target.uploads_url,
            access=target.access,
            headers={"Content-Length": "0"},
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code != _ACCEPTED:
                raise error_of(reply, what=target.what, not_found=ManifestUnknown)
            text = reply.headers.get("OCI-Chunk-Min-Length", "")
            least = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
            return UploadSession(location=target.location(reply)), least

    def _finish(self, upload: "_Upload", session: UploadSession) -> None:
        """Sends what is left and closes the upload."""
        target, meter = upload.target, upload.meter
        meter.stage, meter.done = Stage.UPLOADING, session.offset
        rest = (session.offset, upload.descriptor.size)
        separator = "&" if urlsplit(session.location).query else "?"
        query = urlencode({"digest": upload.descriptor.digest})
        request = replace(
            target.request("PUT", f"{session.location}{separator}{query}"),
            headers={**_OCTETS, "Content-Length": str(rest[1] - rest[0])},
            size=rest[1] - rest[0],
            body=lambda: _Body(upload, rest),
            retried=False,
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code not in (_CREATED, _NO_CONTENT):
                raise self._lost_or(reply, target)

    def _send_chunk(self, upload: "_Upload", session: UploadSession, size: int) -> None:
        target, meter, start = upload.target, upload.meter, session.offset
        end = min(start + size, upload.descriptor.size)
        meter.stage, meter.done = Stage.UPLOADING, start
        request = replace(
            target.request("PATCH", session.location),
            headers={
                **_OCTETS,
                "Content-Length": str(end - start),
                "Content-Range": f"{start}-{end - 1}",
            },
            body=lambda: _Body(upload, (start, end)),
            retried=False,
            size=end - start,
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code != _ACCEPTED:
                if start == 0 and reply.status_code in _CHUNKS_REFUSED:
                    raise _ChunksRefused
                raise self._lost_or(reply, target)
            session.location = target.location(reply)
            session.offset = _received(reply, lowest=start + 1, highest=end)
        meter.done = session.offset

    def _taken_up(self, upload: "_Upload", session: UploadSession | None) -> UploadSession | None:
        """Returns a session that the registry knows where we know it, or None if it is lost."""
        if session is None or session.offset == 0:
            return None
        try:
            request = upload.target.request("GET", session.location)
            with self._exchange.send(request, stop=upload.meter.stop) as reply:
                if reply.status_code != _NO_CONTENT:
                    return None
                if _received(reply, lowest=0, highest=session.offset) != session.offset:
                    return None
                if reply.headers.get("Location"):
                    session.location = upload.target.location(reply)
        except RegistryProtocol:
            return None
        return session

    def _lost_or(self, reply: Reply, target: UploadTarget) -> LnsError:
        """A session that is gone may begin anew; everything else is the registry's last word."""
        error = error_of(reply, what=target.what, not_found=BlobUnknown)
        if error.metadata.get("code") in ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"):
            return RegistryUnavailable(
                f"{target.what}: the registry lost the upload", metadata={"code": "lost"}
            )
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upload:
    """What goes where."""

    target: UploadTarget
    descriptor: Descriptor
    source: BlobSource
    meter: Meter

    @property
    def key(self) -> str:
        """What the upload is remembered by: the blob's own address."""
        return self.target.blob_url


class _Tries:
    """Counts failures in a row and waits after each."""

    def __init__(self, exchange: Exchange, meter: Meter) -> None:
        self._exchange = exchange
        self._meter = meter
        self._failures = 0
        self._began = exchange.now()

    def progressed(self) -> None:
        """Begins to count anew."""
        self._failures, self._began = 0, self._exchange.now()

    def failed(self, error: RegistryUnavailable) -> None:
        """Waits before the next try; raises `error` if no try is left."""
        self._meter.stage = Stage.RETRYING
        if not self._exchange.wait(self._failures, error, self._began, self._meter.stop):
            raise error
        self._failures += 1


class _Body:
    """A part of a blob as the body of a request: counts, and can be stopped."""

    def __init__(self, upload: _Upload, part: tuple[int, int]) -> None:
        self._file = upload.source.open()
        self._left = part[1] - part[0]
        self._meter = upload.meter
        self._digest = upload.descriptor.digest
        self._file.seek(part[0])
        self._meter.done = part[0]

    def read(self, size: int = -1, /) -> bytes:
        self._meter.stop.check()
        wanted = min(self._left, size if size >= 0 else CHUNK_BYTES, CHUNK_BYTES)
        chunk = self._file.read(wanted)
        if not chunk and wanted:
            raise ContentCorrupt(
                f"blob {self._digest.short} is shorter than its size",
                metadata={"digest": self._digest},
            )
        self._left -= len(chunk)
        self._meter.advance(len(chunk))
        return chunk

    def close(self) -> None:
        self._file.close()


def _received(reply: Reply, *, lowest: int, highest: int) -> int:
    """Returns how many bytes a session has, by its `Range` where that is believable."""
    match = _RANGE.match(reply.headers.get("Range", ""))
    count = int(match[1]) + 1 if match else highest
    return count if lowest <= count <= highest else highest
