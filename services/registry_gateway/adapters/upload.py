"""Bringing one blob into a registry, with as few bytes as can be.

Not at all where it is there, by mount where it is near, in one request where it is small, in chunks
that can be taken up where it is large. What registries really do: an upload session can be
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
from services.registry_gateway.adapters.authenticator import Access
from services.registry_gateway.adapters.exchange import Exchange, Request
from services.registry_gateway.adapters.http_client import CHUNK_BYTES, Reply
from services.registry_gateway.adapters.origin import Origin, check_target, resolve_url
from services.registry_gateway.adapters.registry_errors import error_of
from services.registry_gateway.ports import BlobSource, UploadSession, UploadSessions
from services.registry_gateway.progress import Meter, Stage, Stop

_CREATED: Final = 201
_ACCEPTED: Final = 202
_OK: Final = 200
_NO_CONTENT: Final = 204
_MAX_MOUNTS: Final = 3
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTarget:
    """Where a blob goes.

    Attributes:
        what: the repository, for messages.
        blob_url: the blob's own URL.
        uploads_url: where upload sessions begin.
        access: what is asked for there.
    """

    what: str
    blob_url: str
    uploads_url: str
    access: Access


class _ChunksRefused(Exception):
    """The registry does not take chunks; the blob goes in one request."""


class Uploader:
    """Pushes blobs; used by many threads."""

    def __init__(self, exchange: Exchange, policy: ChunkPolicy, sessions: UploadSessions) -> None:
        self._exchange = exchange
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
                if self._exists(upload.target, upload.meter.stop):  # only the answer was lost
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
                if self._exists(upload.target, upload.meter.stop):
                    break
                session = self._taken_up(upload, session)
            else:
                break
        self._sessions.drop(upload.key)

    def offer(
        self, target: UploadTarget, descriptor: Descriptor, mount_from: Sequence[str], stop: Stop
    ) -> Stage | None:
        """Says whether the target has the blob or could mount it; else None."""
        if self._exists(target, stop):
            return Stage.EXISTS
        for path in mount_from[:_MAX_MOUNTS]:
            if self._mount(target, descriptor, path, stop):
                return Stage.MOUNTED
        return None

    def _exists(self, target: UploadTarget, stop: Stop) -> bool:
        request = Request(method="HEAD", url=target.blob_url, access=target.access, headers={})
        with self._exchange.send(request, stop=stop) as reply:
            return reply.status_code == _OK

    def _mount(self, target: UploadTarget, descriptor: Descriptor, path: str, stop: Stop) -> bool:
        query = urlencode({"mount": descriptor.digest, "from": path})
        request = Request(
            method="POST",
            url=f"{target.uploads_url}?{query}",
            access=target.access.and_pull(path),
            headers={"Content-Length": "0"},
        )
        try:
            with self._exchange.send(request, stop=stop) as reply:
                if reply.status_code == _ACCEPTED:
                    self._cancel(target, self._location(target, reply), stop)
                return reply.status_code == _CREATED
        except LnsError:
            stop.check()
            return False  # a mount only saves time: what is wrong shows when the bytes go

    def _cancel(self, target: UploadTarget, location: str, stop: Stop) -> None:
        with self._exchange.send(self._to(target, "DELETE", location), stop=stop):
            pass

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
            return UploadSession(location=self._location(target, reply)), least

    def _finish(self, upload: "_Upload", session: UploadSession) -> None:
        """Sends what is left and closes the upload."""
        target, meter = upload.target, upload.meter
        meter.stage, meter.done = Stage.UPLOADING, session.offset
        rest = (session.offset, upload.descriptor.size)
        separator = "&" if urlsplit(session.location).query else "?"
        query = urlencode({"digest": upload.descriptor.digest})
        request = replace(
            self._to(target, "PUT", f"{session.location}{separator}{query}"),
            headers={**_OCTETS, "Content-Length": str(rest[1] - rest[0])},
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
            self._to(target, "PATCH", session.location),
            headers={
                **_OCTETS,
                "Content-Length": str(end - start),
                "Content-Range": f"{start}-{end - 1}",
            },
            body=lambda: _Body(upload, (start, end)),
            retried=False,
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code != _ACCEPTED:
                if start == 0 and reply.status_code in _CHUNKS_REFUSED:
                    raise _ChunksRefused
                raise self._lost_or(reply, target)
            session.location = self._location(target, reply)
            session.offset = _received(reply, lowest=start + 1, highest=end)
        meter.done = session.offset

    def _taken_up(self, upload: "_Upload", session: UploadSession | None) -> UploadSession | None:
        """Returns a session that the registry knows where we know it, or None if it is lost."""
        if session is None or session.offset == 0:
            return None
        try:
            request = self._to(upload.target, "GET", session.location)
            with self._exchange.send(request, stop=upload.meter.stop) as reply:
                if reply.status_code != _NO_CONTENT:
                    return None
                if _received(reply, lowest=0, highest=session.offset) != session.offset:
                    return None
                if reply.headers.get("Location"):
                    session.location = self._location(upload.target, reply)
        except RegistryProtocol:
            return None
        return session

    def _to(self, target: UploadTarget, method: str, url: str) -> Request:
        return Request(
            method=method,
            url=url,
            access=target.access,
            headers={},
            home=Origin.of_url(target.uploads_url),
        )

    def _location(self, target: UploadTarget, reply: Reply) -> str:
        location = reply.headers.get("Location", "")
        if not location:
            raise RegistryProtocol(f"{target.what}: the registry began an upload without a place")
        return check_target(Origin.of_url(target.uploads_url), resolve_url(reply.url, location))

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
        """Waits before the next try; raises `error` if there is none."""
        self._meter.stage = Stage.RETRYING
        if not self._exchange.wait(self._failures, error, self._began, self._meter.stop):
            raise error
        self._failures += 1


class _Body:
    """A part of a blob as the body of a request: counts, and stops when told to."""

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
