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
from typing import BinaryIO, Final
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
from services.registry_gateway.adapters.exchange import Exchange, Request
from services.registry_gateway.adapters.http_client import CHUNK_BYTES, Reply
from services.registry_gateway.adapters.origin import Origin, check_target, resolve_url
from services.registry_gateway.adapters.registry_errors import error_of
from services.registry_gateway.ports import BlobSource
from services.registry_gateway.progress import Meter, Stage, Stop

_CREATED: Final = 201
_ACCEPTED: Final = 202
_OK: Final = 200
_NO_CONTENT: Final = 204
_MAX_MOUNTS: Final = 3
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
        scopes: what a token must permit.
    """

    what: str
    blob_url: str
    uploads_url: str
    scopes: frozenset[str]


@dataclass(slots=True, kw_only=True)
class _Session:
    location: str
    offset: int = 0
    chunk_bytes: int


class _ChunksRefused(Exception):
    """The registry does not take chunks; the blob goes in one request."""


class Uploader:
    """Pushes blobs; used by many threads."""

    def __init__(self, exchange: Exchange, policy: ChunkPolicy) -> None:
        self._exchange = exchange
        self._policy = policy

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
        chunked = descriptor.size >= self._policy.least_bytes
        session: _Session | None = None
        failures, began = 0, self._exchange.now()
        while True:
            before = session.offset if session else 0
            try:
                session = session or self._begin(target, meter)
                meter.stage, meter.done = Stage.UPLOADING, session.offset
                self._send(target, session, descriptor, source, meter, chunked=chunked)
            except _ChunksRefused:
                chunked, session = False, None
                continue
            except RegistryUnavailable as error:
                meter.stage = Stage.RETRYING
                if session is not None and session.offset > before:
                    failures, began = 0, self._exchange.now()
                if not self._exchange.wait(failures, error, began, meter.stop):
                    raise
                failures += 1
                if self._exists(target, meter.stop):  # the answer was lost, not the blob
                    break
                session = self._taken_up(target, session, meter) if chunked else None
            else:
                break
        meter.finish(Stage.DONE)

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
        request = Request(method="HEAD", url=target.blob_url, scopes=target.scopes, headers={})
        with self._exchange.send(request, stop=stop) as reply:
            return reply.status_code == _OK

    def _mount(self, target: UploadTarget, descriptor: Descriptor, path: str, stop: Stop) -> bool:
        query = urlencode({"mount": descriptor.digest, "from": path})
        request = Request(
            method="POST",
            url=f"{target.uploads_url}?{query}",
            scopes=target.scopes | {f"repository:{path}:pull"},
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

    def _begin(self, target: UploadTarget, meter: Meter) -> _Session:
        request = Request(
            method="POST",
            url=target.uploads_url,
            scopes=target.scopes,
            headers={"Content-Length": "0"},
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code != _ACCEPTED:
                raise error_of(reply, what=target.what, not_found=ManifestUnknown)
            least = reply.headers.get("OCI-Chunk-Min-Length", "")
            wanted = int(least) if least.isascii() and least.isdigit() and len(least) < 12 else 0  # noqa: PLR2004 - 100 GB
            return _Session(
                location=self._location(target, reply),
                chunk_bytes=max(self._policy.chunk_bytes, wanted),
            )

    def _send(
        self,
        target: UploadTarget,
        session: _Session,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
        *,
        chunked: bool,
    ) -> None:
        while chunked and session.offset < descriptor.size:
            self._send_chunk(target, session, descriptor, source, meter)
        rest = (session.offset, descriptor.size)
        separator = "&" if urlsplit(session.location).query else "?"
        url = f"{session.location}{separator}{urlencode({'digest': descriptor.digest})}"
        request = self._to(target, "PUT", url)
        request = replace(
            request,
            headers={**_OCTETS, "Content-Length": str(rest[1] - rest[0])},
            body=lambda: _Body(source.open(), rest, meter, descriptor),
            retried=False,
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code not in (_CREATED, _NO_CONTENT):
                raise self._lost_or(reply, target)

    def _send_chunk(
        self,
        target: UploadTarget,
        session: _Session,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
    ) -> None:
        start = session.offset
        end = min(start + session.chunk_bytes, descriptor.size)
        request = replace(
            self._to(target, "PATCH", session.location),
            headers={
                **_OCTETS,
                "Content-Length": str(end - start),
                "Content-Range": f"{start}-{end - 1}",
            },
            body=lambda: _Body(source.open(), (start, end), meter, descriptor),
            retried=False,
        )
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code != _ACCEPTED:
                if start == 0 and reply.status_code in (400, 404, 405, 411, 413, 416):
                    raise _ChunksRefused
                raise self._lost_or(reply, target)
            session.location = self._location(target, reply)
            session.offset = _received(reply, lowest=start + 1, highest=end)
        meter.done = session.offset

    def _taken_up(
        self, target: UploadTarget, session: _Session | None, meter: Meter
    ) -> _Session | None:
        """Returns the session where the registry says it is, or None if it is lost."""
        if session is None or session.offset == 0:
            return None
        request = self._to(target, "GET", session.location)
        with self._exchange.send(request, stop=meter.stop) as reply:
            if reply.status_code != _NO_CONTENT:
                return None
            offset = _received(reply, lowest=0, highest=session.offset)
            if offset != session.offset:
                return None
            if reply.headers.get("Location"):
                session.location = self._location(target, reply)
        return session

    def _to(self, target: UploadTarget, method: str, url: str) -> Request:
        return Request(
            method=method,
            url=url,
            scopes=target.scopes,
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


class _Body:
    """A part of a blob as the body of a request: counts, and stops when told to."""

    def __init__(
        self, file: BinaryIO, part: tuple[int, int], meter: Meter, descriptor: Descriptor
    ) -> None:
        self._file = file
        self._left = part[1] - part[0]
        self._meter = meter
        self._descriptor = descriptor
        file.seek(part[0])
        meter.done = part[0]

    def read(self, size: int = -1) -> bytes:
        self._meter.stop.check()
        wanted = min(self._left, size if size >= 0 else CHUNK_BYTES, CHUNK_BYTES)
        chunk = self._file.read(wanted)
        if len(chunk) < wanted and not chunk:
            raise ContentCorrupt(
                f"blob {self._descriptor.digest.short} is shorter than its size",
                metadata={"digest": self._descriptor.digest},
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
