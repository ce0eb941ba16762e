"""What the gateway's use cases need from the world.

Bytes of blobs do not pass through these calls: a registry reads and writes them in threads, from a
`BlobSource` or into a `BlobSink` that the store made. Every call may raise what its docstring
lists; calls on a registry may raise RegistryUnavailable, TooManyRequests, RegistryUnauthenticated,
RegistryDenied, RegistryProtocol and LimitExceeded besides.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Protocol

from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.progress import Meter, Stage


class BlobSink(Protocol):
    """Where the bytes of one blob go, in order; used by one thread at a time."""

    @property
    def position(self) -> int:
        """How many bytes it has: where the next one belongs."""

    def write(self, chunk: bytes | memoryview) -> None:
        """Appends bytes.

        Raises:
            ContentCorrupt: there are more than the blob has.
            CapacityExhausted: the disk is full.
        """

    def restart(self) -> None:
        """Forgets all bytes: what comes next is the beginning."""


class BlobSource(Protocol):
    """Where the bytes of one blob come from."""

    def open(self) -> BinaryIO:
        """Opens the blob for reading and seeking; called once a try, in a thread."""


class Ingest(BlobSink, Protocol):
    """A blob on its way into the store."""

    @property
    def descriptor(self) -> Descriptor:
        """What it must become."""

    def commit(self) -> None:
        """Verifies size and digest and makes the blob visible; called in a thread.

        Raises:
            ContentCorrupt: the bytes are not the blob's; they are forgotten.
            CapacityExhausted: the disk is full.
        """

    def close(self) -> None:
        """Leaves what arrived for a later ingest of the same blob; does nothing after a commit."""


class BlobStore(Protocol):
    """The node's blobs, whole and verified."""

    async def size(self, digest: Digest) -> int | None:
        """Returns the size of a blob in bytes, or None if the store does not have it."""

    async def missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Returns those that the store does not have."""

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """Returns a small blob whole.

        Raises:
            BlobUnknown: the store does not have it.
            LimitExceeded: it has more than `limit` bytes.
            ContentCorrupt: it is damaged on the disk; it is removed.
        """

    async def verify(self, digest: Digest) -> bool:
        """Reads a blob and says whether it exists and is whole; a damaged one is removed."""

    async def write(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """Stores a small blob under its digest by an algorithm, and returns that.

        Raises:
            CapacityExhausted: the disk is full.
        """

    def source(self, descriptor: Descriptor) -> BlobSource:
        """Returns a source for a blob; opening it raises BlobUnknown if it is not there."""

    async def ingest(self, descriptor: Descriptor, *, resume: bool) -> Ingest:
        """Starts, or with `resume` takes up again, the ingest of a blob; one at a time for each.

        Raises:
            CapacityExhausted: the disk is full.
        """

    async def remove(self, digests: Iterable[Digest]) -> Mapping[Digest, int]:
        """Removes blobs and returns the size of each that went."""

    async def list(self) -> Mapping[Digest, int]:
        """Returns every blob with its size."""

    async def settle(self) -> None:
        """Sees to it that a power failure takes no name from what was stored so far.

        Whoever records that the store has something settles it before.
        """

    async def sweep_ingests(self, *, keep: Iterable[Digest]) -> int:
        """Removes what ingests left that are not at work, but those of `keep`; returns bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawManifest:
    """A manifest as a registry sent it, its digest verified where one was asked for."""

    raw: bytes
    media_type: str


class Registry(Protocol):
    """The OCI registries of the world, each by the host of a reference."""

    async def resolve(self, reference: Reference) -> Digest | None:
        """Returns the digest that a registry says its tag has, or None if it does not say.

        Raises:
            ManifestUnknown: there is no such tag or repository.
        """

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Returns a manifest's bytes, verified if the reference has a digest.

        Raises:
            ManifestUnknown: the registry has no such manifest.
            ContentCorrupt: the bytes are not those of the digest.
        """

    async def fetch_blob(self, repository: Reference, sink: Ingest, meter: Meter) -> None:
        """Brings the bytes from `sink.position` to the end, and commits them.

        Raises:
            BlobUnknown: the repository does not have it.
            ContentCorrupt: what came is not the blob.
        """

    async def push_blob(
        self,
        repository: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
        *,
        mount_from: Sequence[str] = (),
    ) -> None:
        """Sees to it that a repository has a blob; `meter.stage` says how it came there.

        Args:
            repository: where it goes.
            descriptor: which blob.
            source: its bytes; opened only if the registry does not have them.
            meter: counts what crosses the network.
            mount_from: paths of repositories of the same registry that may have it.
        """

    async def offer_blob(
        self, repository: Reference, descriptor: Descriptor, *, mount_from: Sequence[str]
    ) -> Stage | None:
        """Says whether a repository has a blob (EXISTS) or could mount it (MOUNTED); else None."""

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> bool:
        """Puts a manifest, byte for byte; returns whether the registry indexed its subject.

        Raises:
            ArtifactInvalid: the registry validates artifacts and refused this one.
            BlobsMissing: it names a blob or manifest that the repository lacks.
        """

    async def list_tags(self, repository: Reference) -> Sequence[str]:
        """Returns every tag of a repository, sorted.

        Raises:
            ManifestUnknown: there is no such repository.
        """

    async def list_referrers(self, subject: Reference) -> Sequence[Descriptor] | None:
        """Returns what refers to a digest, or None where the registry lacks the API."""

    async def delete_manifest(self, reference: Reference) -> None:
        """Deletes the manifest of a digest.

        Raises:
            ManifestUnknown: the registry has no such manifest.
            RegistryDenied: the registry does not delete.
        """


@dataclass(slots=True, kw_only=True)
class UploadSession:
    """An upload that a registry has begun.

    Attributes:
        location: where it goes on.
        offset: how many bytes the registry has.
    """

    location: str
    offset: int = 0


class UploadSessions(Protocol):
    """Remembers uploads under way beyond the life of the process; used in threads."""

    def load(self, key: str) -> UploadSession | None:
        """Returns the session of a key, or None."""

    def save(self, key: str, session: UploadSession) -> None:
        """Remembers a session."""

    def drop(self, key: str) -> None:
        """Forgets a session; does nothing if none is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTag:
    """A reference in the store and what it names.

    Attributes:
        reference: normalised text, with tag or digest.
        root: what it names; an index where it names one.
        manifest: the platform's manifest, where `root` is an index and one was pulled.
        family: slug of the artifact's family; empty for an image.
        total_bytes: sum of the sizes of its blobs.
        created: when it came; UTC.
    """

    reference: str
    root: Descriptor
    manifest: Descriptor | None
    family: str
    total_bytes: int
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """Keeps blobs, and what manifests among them name, from being pruned."""

    lease_id: str
    holder: str
    digests: tuple[Digest, ...]
    expires: datetime | None


class StoreIndex(Protocol):
    """What the store knows beside the blobs: tags, leases and where blobs came from; durable."""

    async def put_tag(self, tag: StoredTag) -> None:
        """Records a tag, in the place of an earlier one of the same reference."""

    async def get_tag(self, reference: str) -> StoredTag | None:
        """Returns a tag, or None."""

    async def list_tags(self) -> Sequence[StoredTag]:
        """Returns every tag, sorted by reference."""

    async def remove_tags(self, references: Iterable[str]) -> None:
        """Forgets tags."""

    async def put_lease(self, lease: StoredLease) -> None:
        """Records a lease, in the place of an earlier one of the same id."""

    async def remove_lease(self, lease_id: str) -> None:
        """Forgets a lease; one that is not there is forgotten already."""

    async def list_leases(self, now: datetime) -> Sequence[StoredLease]:
        """Returns the leases that hold at `now` and forgets those that ran out."""

    async def add_origin(self, digests: Iterable[Digest], repository: Reference) -> None:
        """Records that a repository has these blobs."""

    async def origins(self, digest: Digest, host: str) -> Sequence[str]:
        """Returns paths of repositories of a host that have a blob, latest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """An image outside of the store that can be pushed.

    Attributes:
        root: what is pushed: a manifest or an index.
        manifests: bytes of the manifests and indexes that the source has, by digest.
        blobs: sources of the other blobs that it has, by digest.
        platforms: what manifests are made for whose index does not say so, by digest.
    """

    root: Descriptor
    manifests: Mapping[Digest, bytes]
    blobs: Mapping[Digest, BlobSource]
    platforms: Mapping[Digest, Platform] = field(default_factory=dict)


class ImageSources(Protocol):
    """Images outside of the store: layouts, archives, a Docker daemon."""

    def accepts(self, text: str) -> bool:
        """Says whether the text names such an image rather than a reference."""

    def open(self, text: str) -> AbstractAsyncContextManager[OpenedSource]:
        """Opens an image; closing removes temporary files.

        Raises:
            RequestInvalid: the source cannot be read, or is not an image.
            ImageUnknown: it has no image of that name.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySchemas:
    """The schemas of a registry that is the authority for its artifacts, by slug of the family."""

    texts: Mapping[str, str]
    validators: Mapping[str, SchemaValidator]


class TypeAuthority(Protocol):
    """Registries that validate artifacts themselves, by `GET /ext/v1/types`."""

    async def schemas(self, host: str, *, offline: bool = False) -> AuthoritySchemas | None:
        """Returns a registry's schemas, or None where it is no authority.

        With `offline` only what is remembered counts.
        """
