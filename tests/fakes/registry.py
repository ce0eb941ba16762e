"""Registries in memory; `tests/contract/registry_gateway` keeps them honest.

A test scripts failures with `fail`, and holds a download with `gate`.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    BlobsMissing,
    BlobUnknown,
    ContentCorrupt,
    LnsError,
    ManifestUnknown,
    RegistryUnauthenticated,
)
from services.core.manifest import Index, parse_manifest
from services.core.reference import Reference
from services.registry_gateway.login_ports import Credential
from services.registry_gateway.ports import AuthoritySchemas, BlobSource, Ingest, RawManifest
from services.registry_gateway.progress import Meter, Stage

_STEP = 64 * 1024


@dataclass(slots=True)
class Repository:
    """One repository: what it has, by digest, and what its tags name."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, RawManifest] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


class FakeRegistry:
    """Implements `Registry` and `LoginCheck`; every host is one of its registries.

    Attributes:
        repositories: what there is, by `host/path`.
        calls: how often each method was called.
        gate: downloads wait for it; open at first.
        passwords: the password of each host that wants a login.
    """

    def __init__(self) -> None:
        self.repositories: defaultdict[str, Repository] = defaultdict(Repository)
        self.calls: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.passwords: dict[str, str] = {}
        self.resolves_fallback_tags = False
        """Whether the tag `sha256-HEX` names the digest itself, as GitLab's registry has it."""
        self.takes_foreign_layers = False
        """Whether manifests may name foreign layers that it lacks."""
        self._failures: defaultdict[str, deque[LnsError]] = defaultdict(deque)

    def fail(self, method: str, *errors: LnsError) -> None:
        """Has the next calls of a method fail, one with each error."""
        self._failures[method].extend(errors)

    def put(
        self, reference: str, raw: bytes, media_type: str, blobs: Mapping[Digest, bytes]
    ) -> None:
        """Puts a manifest and its blobs there without asking anybody."""
        parsed = Reference.parse(reference)
        repository = self.repositories[parsed.repository]
        repository.blobs |= blobs
        digest = Digest.of(raw)
        repository.manifests[digest] = RawManifest(raw=raw, media_type=media_type)
        if parsed.tag:
            repository.tags[parsed.tag] = digest

    async def resolve(self, reference: Reference) -> Digest | None:
        """See `Registry`."""
        self._called("resolve")
        return self._digest(reference)

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """See `Registry`."""
        self._called("fetch_manifest")
        digest = self._digest(reference)
        sent = self.repositories[reference.repository].manifests[digest]
        if reference.digest is not None and not reference.digest.is_of(sent.raw):
            raise ContentCorrupt(f"{reference}: other bytes")
        return sent

    async def fetch_blob(self, repository: Reference, sink: Ingest, meter: Meter) -> None:
        """See `Registry`."""
        self._called("fetch_blob")
        data = self.repositories[repository.repository].blobs.get(sink.descriptor.digest)
        if data is None:
            raise BlobUnknown(f"{repository.repository} has no {sink.descriptor.digest}")
        meter.stage = Stage.DOWNLOADING
        meter.done = sink.position
        try:
            while sink.position < len(data):
                await self.gate.wait()
                step = data[sink.position : sink.position + _STEP]
                sink.write(step)
                meter.advance(len(step))
                await asyncio.sleep(0)
            sink.commit()
        except asyncio.CancelledError:
            meter.stop.set()
            raise

    async def offer_blob(
        self, repository: Reference, descriptor: Descriptor, *, mount_from: Sequence[str]
    ) -> Stage | None:
        """See `Registry`."""
        self._called("offer_blob")
        here = self.repositories[repository.repository]
        if descriptor.digest in here.blobs:
            return Stage.EXISTS
        for path in mount_from:
            data = self.repositories[f"{repository.host}/{path}"].blobs.get(descriptor.digest)
            if data is not None:
                here.blobs[descriptor.digest] = data
                return Stage.MOUNTED
        return None

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
        self._called("push_blob")
        there = await self.offer_blob(repository, descriptor, mount_from=mount_from)
        if there is not None:
            meter.finish(there)
            return
        with source.open() as file:
            data = file.read()
        meter.stage = Stage.UPLOADING
        if not descriptor.digest.is_of(data):
            raise ContentCorrupt(f"the source is not {descriptor.digest}")
        meter.advance(len(data))
        self.repositories[repository.repository].blobs[descriptor.digest] = data
        meter.finish(Stage.DONE)

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> bool:
        """See `Registry`."""
        self._called("push_manifest")
        repository = self.repositories[reference.repository]
        manifest = parse_manifest(raw, media_type=media_type)
        if isinstance(manifest, Index):
            lacking = [e.digest for e in manifest.manifests if e.digest not in repository.manifests]
        else:
            named = [
                blob
                for blob in (manifest.config, *manifest.layers)
                if not (self.takes_foreign_layers and blob.is_foreign)
            ]
            lacking = [blob.digest for blob in named if blob.digest not in repository.blobs]
        if lacking:
            raise BlobsMissing(f"{reference} names {lacking[0]}, which is not there")
        digest = reference.digest or Digest.of(raw)
        repository.manifests[digest] = RawManifest(raw=raw, media_type=media_type)
        if reference.tag is not None and reference.digest is None:
            repository.tags[reference.tag] = digest
        return False

    async def list_tags(self, repository: Reference) -> Sequence[str]:
        """See `Registry`."""
        self._called("list_tags")
        if repository.repository not in self.repositories:
            raise ManifestUnknown(f"there is no {repository.repository}")
        return sorted(self.repositories[repository.repository].tags)

    async def list_referrers(self, subject: Reference) -> Sequence[Descriptor] | None:
        """See `Registry`; like registry 2.8 it lacks the API."""
        self._called("list_referrers")
        return None

    async def delete_manifest(self, reference: Reference) -> None:
        """See `Registry`."""
        self._called("delete_manifest")
        digest = self._digest(reference)
        repository = self.repositories[reference.repository]
        del repository.manifests[digest]
        repository.tags = {t: d for t, d in repository.tags.items() if d != digest}

    async def verify(self, host: str, credential: Credential) -> None:
        """See `LoginCheck`."""
        if self.passwords.get(host) != credential.secret:
            raise RegistryUnauthenticated(f"{host} refused the login")

    def forget(self, host: str) -> None:
        """See `LoginCheck`."""

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        if self._failures[method]:
            raise self._failures[method].popleft()

    def _digest(self, reference: Reference) -> Digest:
        repository = self.repositories.get(reference.repository, Repository())
        tag = reference.tag or ""
        digest = reference.digest or repository.tags.get(tag)
        if digest is None and self.resolves_fallback_tags and tag.startswith("sha256-"):
            digest = next((d for d in repository.manifests if d == tag.replace("-", ":")), None)
        if digest is None or digest not in repository.manifests:
            raise ManifestUnknown(f"there is no {reference}")
        return digest


class NoAuthority:
    """Implements `TypeAuthority` for registries that have no types of their own."""

    async def schemas(self, host: str, *, offline: bool = False) -> AuthoritySchemas | None:
        """See `TypeAuthority`."""
        return None
