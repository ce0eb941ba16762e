"""All registries: manifests, blobs, tags and referrers, each with the repository that has it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar

from services.core.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from services.core.digest import Digest
from services.core.errors import (
    ContentCorrupt,
    DigestInvalid,
    LimitExceeded,
    RegistryDenied,
    RegistryProtocol,
    RequestInvalid,
)
from services.core.manifest import MAX_MANIFEST_BYTES, Index, parse_manifest
from services.core.reference import Reference
from services.registry_gateway.adapters.credentials.authenticator import Access
from services.registry_gateway.adapters.registry.blob_offer import UploadTarget
from services.registry_gateway.adapters.registry.download import Downloader
from services.registry_gateway.adapters.registry.exchange import Exchange, Request
from services.registry_gateway.adapters.registry.oras_repository import GOOD, OrasRepository
from services.registry_gateway.adapters.registry.paging import Paging
from services.registry_gateway.adapters.registry.registry_errors import error_of
from services.registry_gateway.adapters.registry.shares import Shares
from services.registry_gateway.adapters.registry.upload import Uploader
from services.registry_gateway.adapters.transport.origin import Locator
from services.registry_gateway.login_ports import Credential
from services.registry_gateway.ports import BlobSource, Ingest, RawManifest
from services.registry_gateway.progress import Meter, Stage, Stop

P = ParamSpec("P")
T = TypeVar("T")

_ACCEPT: Final = {"Accept": ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX))}
_MAX_REFERRERS: Final = 10_000
_NOT_FOUND: Final = 404
_OPERATOR: Final = "report it to the registry's operator; the client cannot correct it"
_NO_REFERRERS: Final = frozenset({400, 404, 405, 406, 501})
_NO_DELETION: Final = frozenset({400, 405})


@dataclass(frozen=True, slots=True)
class _One:
    """One credential for whoever asks: a login that is being verified."""

    credential: Credential

    def find(self, host: str, repository: str = "") -> Credential | None:
        return self.credential

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        return ()

    def forget(self, host: str) -> None:
        pass


class OrasRegistry:
    """All registries; implements `Registry` and `LoginCheck`."""

    def __init__(
        self,
        *,
        exchange: Exchange,
        locator: Locator,
        downloader: Downloader,
        uploader: Uploader,
        calls: Shares,
        transfers: Shares,
    ) -> None:
        """Puts the parts together.

        Args:
            exchange: sends requests.
            locator: says where a host is spoken to.
            downloader: brings blobs.
            uploader: takes blobs.
            calls: threads for small requests.
            transfers: threads for blobs, apart so that large ones do not hold up small requests.
        """
        self._exchange = exchange
        self._locator = locator
        self._downloader = downloader
        self._uploader = uploader
        self._calls = calls
        self._transfers = transfers

    async def resolve(self, reference: Reference) -> Digest | None:
        """See `Registry`."""
        return await self._call(reference.host, self._resolve, reference)

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """See `Registry`."""
        return await self._call(reference.host, self._fetch_manifest, reference)

    async def fetch_blob(self, repository: Reference, sink: Ingest, meter: Meter) -> None:
        """See `Registry`."""
        digest = sink.descriptor.digest

        def fetch() -> None:
            at = self._open(repository, "pull", meter.stop)
            request = Request(
                method="GET",
                url=at.blob_url(digest),
                access=at.access,
                headers={},
            )
            self._downloader.fetch(request, repository.repository, sink, meter)

        with self._speaking():
            await self._transfers.run(repository.host, meter.stop, fetch)

    async def push_blob(
        self,
        repository: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
        *,
        mount_from: Sequence[str] = (),
    ) -> None:
        """See `Registry`."""

        def push() -> None:
            target = self._upload_target(meter.stop, repository, descriptor)
            self._uploader.push(target, descriptor, source, meter, mount_from=mount_from)

        with self._speaking():
            await self._transfers.run(repository.host, meter.stop, push)

    async def offer_blob(
        self, repository: Reference, descriptor: Descriptor, *, mount_from: Sequence[str]
    ) -> Stage | None:
        """See `Registry`."""

        def offer(stop: Stop) -> Stage | None:
            target = self._upload_target(stop, repository, descriptor)
            return self._uploader.offer(target, descriptor, mount_from, stop)

        return await self._call(repository.host, offer)

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> bool:
        """See `Registry`."""
        return await self._call(reference.host, self._push_manifest, reference, raw, media_type)

    async def list_tags(self, repository: Reference) -> Sequence[str]:
        """See `Registry`."""
        return await self._call(repository.host, self._list_tags, repository)

    async def list_referrers(self, subject: Reference) -> Sequence[Descriptor] | None:
        """See `Registry`."""
        return await self._call(subject.host, self._list_referrers, subject)

    async def delete_manifest(self, reference: Reference) -> None:
        """See `Registry`."""
        await self._call(reference.host, self._delete_manifest, reference)

    async def verify(self, host: str, credential: Credential) -> None:
        """See `LoginCheck`."""
        origin = self._locator.origin(host)
        alone = self._exchange.with_credentials(_One(credential))

        def verify(stop: Stop) -> None:
            request = Request(method="GET", url=f"{origin}/v2/", access=Access(), headers={})
            with alone.send(request, stop=stop) as reply:
                if reply.status_code not in GOOD:
                    raise error_of(reply, what=host, not_found=RegistryProtocol)
            if not alone.authenticator.is_challenged(origin):
                raise RequestInvalid(
                    f"{host} asks for no login, so this one cannot be verified",
                    hint="use the registry without a login",
                    metadata={"registry": host},
                )

        await self._call(host, verify)

    def forget(self, host: str) -> None:
        """See `LoginCheck`."""
        self._exchange.authenticator.forget(host)

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Makes errors fit to be shown: without what was sent, and with whose fault they are."""
        with self._exchange.http.secrets.masking():
            try:
                yield
            except RegistryProtocol as error:
                error.hint = error.hint or _OPERATOR
                raise

    async def _call(
        self, host: str, work: Callable[Concatenate[Stop, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        stop = Stop()
        with self._speaking():
            return await self._calls.run(host, stop, work, stop, *args, **kwargs)

    def _open(self, reference: Reference, actions: str, stop: Stop) -> OrasRepository:
        return OrasRepository(self._exchange, self._locator, reference, actions, stop)

    def _upload_target(
        self, stop: Stop, repository: Reference, descriptor: Descriptor
    ) -> UploadTarget:
        at = self._open(repository, "pull,push", stop)
        return UploadTarget(
            what=repository.repository,
            blob_url=at.blob_url(descriptor.digest),
            uploads_url=at.uploads_url,
            access=at.access,
        )

    def _resolve(self, stop: Stop, reference: Reference) -> Digest | None:
        at = self._open(reference, "pull", stop)
        with at.request("HEAD", at.manifest_url(reference.selector), _ACCEPT) as reply:
            if reply.status_code == _NOT_FOUND:
                raise at.error(reply)
            text = reply.headers.get("Docker-Content-Digest", "")
            try:
                return Digest(text) if reply.status_code in GOOD else None
            except DigestInvalid:
                return None

    def _fetch_manifest(self, stop: Stop, reference: Reference) -> RawManifest:
        at = self._open(reference, "pull", stop)
        with at.checked("GET", at.manifest_url(reference.selector), _ACCEPT) as reply:
            if reply.length is not None and reply.length > MAX_MANIFEST_BYTES:
                raise LimitExceeded(
                    f"{reference}: a manifest of {reply.length} bytes; at most 4 MiB are accepted",
                    metadata={"reference": str(reference)},
                )
            raw = reply.content(MAX_MANIFEST_BYTES)
            media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip()
        if reference.digest is not None and not reference.digest.is_of(raw):
            found = Digest.of(raw, algorithm=reference.digest.algorithm)
            raise ContentCorrupt(
                f"{reference}: the registry sent other bytes, with the digest {found}",
                hint="the registry is damaged or hostile; nothing was kept",
                metadata={"reference": str(reference), "digest": found},
            )
        return RawManifest(raw=raw, media_type=media_type)

    def _push_manifest(self, stop: Stop, reference: Reference, raw: bytes, media_type: str) -> bool:
        at = self._open(reference, "pull,push", stop)
        headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
        url = at.manifest_url(reference.selector)
        with at.checked("PUT", url, headers, raw) as reply:
            accepted = reply.headers.get("Docker-Content-Digest", "")
            if accepted and not _names(accepted, raw):
                raise RegistryProtocol(
                    f"{reference}: the registry changed the manifest, it has {accepted[:80]} now",
                    metadata={"reference": str(reference)},
                )
            return bool(reply.headers.get("OCI-Subject"))

    def _list_tags(self, stop: Stop, repository: Reference) -> Sequence[str]:
        masked = self._exchange.http.secrets.masked
        return [masked(tag) for tag in self._open(repository, "pull", stop).list_tags()]

    def _list_referrers(self, stop: Stop, subject: Reference) -> Sequence[Descriptor] | None:
        at = self._open(subject, "pull", stop)
        url = at.referrers_url(subject.selector)
        found: list[Descriptor] = []
        paging = Paging(f"the referrers of {subject}")
        while url:
            paging.turn(url)
            with at.request("GET", url, {"Accept": OCI_INDEX}) as reply:
                if reply.status_code in _NO_REFERRERS and not found:
                    return None
                if reply.status_code not in GOOD:
                    raise at.error(reply)
                raw = reply.content(min(MAX_MANIFEST_BYTES, paging.room))
                index = parse_manifest(raw, media_type=OCI_INDEX)
                if not isinstance(index, Index):
                    raise RegistryProtocol(f"{subject}: the list of referrers is not an index")
                paging.took(len(raw), entries=len(index.manifests))
                found.extend(index.manifests)
                url = at.next_page(reply)
            if len(found) > _MAX_REFERRERS:
                raise LimitExceeded(f"{subject} has more than {_MAX_REFERRERS} referrers")
        return found

    def _delete_manifest(self, stop: Stop, reference: Reference) -> None:
        at = self._open(reference, "pull,push,delete", stop)
        with at.request("DELETE", at.manifest_url(reference.selector), {}) as reply:
            if reply.status_code in _NO_DELETION:
                raise RegistryDenied(
                    f"{reference.host} does not delete manifests",
                    hint="its administrator can switch deletion on",
                    metadata={"registry": reference.host},
                )
            if reply.status_code not in GOOD:
                raise at.error(reply)


def _names(text: str, raw: bytes) -> bool:
    """Says whether a registry's digest, by whichever algorithm, is that of these bytes."""
    try:
        return Digest(text).is_of(raw)
    except DigestInvalid:
        return False
