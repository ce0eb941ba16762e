"""The gateway's store and index in memory; `tests/contract/registry_gateway` keeps them honest."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import BinaryIO

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, CapacityExhausted, ContentCorrupt, LimitExceeded
from services.core.reference import Reference
from services.registry_gateway.login_ports import Credential, StoredLogin
from services.registry_gateway.ports import BlobSource, Ingest, StoredLease, StoredTag


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Implements `BlobSource`."""

    data: bytes | None
    digest: Digest

    def open(self) -> BinaryIO:
        """See `BlobSource`."""
        if self.data is None:
            raise BlobUnknown(f"blob {self.digest} is not in the store")
        return io.BytesIO(self.data)


@dataclass(slots=True)
class MemoryIngest:
    """Implements `Ingest`."""

    descriptor: Descriptor
    store: "MemoryStore"
    data: bytearray
    resume: bool
    committed: bool = False

    @property
    def position(self) -> int:
        """See `BlobSink`."""
        return len(self.data)

    def write(self, chunk: bytes | memoryview) -> None:
        """See `BlobSink`."""
        if len(self.data) + len(chunk) > self.descriptor.size:
            self.restart()
            raise ContentCorrupt(f"blob {self.descriptor.digest} is longer than its size")
        self.data += chunk

    def restart(self) -> None:
        """See `BlobSink`."""
        self.data.clear()

    def commit(self) -> None:
        """See `Ingest`."""
        whole = bytes(self.data)
        if len(whole) != self.descriptor.size or not (self.descriptor.digest.is_of(whole)):
            self.restart()
            raise ContentCorrupt(f"what came is not {self.descriptor.digest}")
        self.store.blobs[self.descriptor.digest] = whole
        self.committed = True

    def close(self) -> None:
        """See `Ingest`."""
        self.store.at_work.discard(self.descriptor.digest)
        if self.resume and self.data and not self.committed:
            self.store.parts[self.descriptor.digest] = bytes(self.data)
        else:
            self.store.parts.pop(self.descriptor.digest, None)


@dataclass(slots=True)
class MemoryStore:
    """Implements `BlobStore`.

    Attributes:
        blobs: what there is; a test may change or damage it.
        parts: what interrupted ingests left.
        room: bytes that a blob may have; None for any number.
        settled: what outlasts a power failure.
    """

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    parts: dict[Digest, bytes] = field(default_factory=dict)
    at_work: set[Digest] = field(default_factory=set)
    room: int | None = None
    settled: set[Digest] = field(default_factory=set)

    async def size(self, digest: Digest) -> int | None:
        """See `BlobStore`."""
        data = self.blobs.get(digest)
        return None if data is None else len(data)

    async def settle(self) -> None:
        """See `BlobStore`."""
        self.settled = set(self.blobs)

    async def missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """See `BlobStore`."""
        return frozenset(digest for digest in digests if digest not in self.blobs)

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """See `BlobStore`."""
        data = self.blobs.get(digest)
        if data is None:
            raise BlobUnknown(f"blob {digest} is not in the store")
        if len(data) > limit:
            raise LimitExceeded(f"blob {digest} has more than {limit} bytes")
        if not digest.is_of(data):
            del self.blobs[digest]
            raise ContentCorrupt(f"blob {digest} was damaged")
        return data

    async def verify(self, digest: Digest) -> bool:
        """See `BlobStore`."""
        if digest in self.blobs and digest.is_of(self.blobs[digest]):
            return True
        self.blobs.pop(digest, None)
        return False

    async def write(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """See `BlobStore`."""
        digest = Digest.of(data, algorithm=algorithm)
        self._check_room(len(data))
        self.blobs[digest] = bytes(data)
        return digest

    def source(self, descriptor: Descriptor) -> BlobSource:
        """See `BlobStore`."""
        return MemorySource(self.blobs.get(descriptor.digest), descriptor.digest)

    async def ingest(self, descriptor: Descriptor, *, resume: bool) -> Ingest:
        """See `BlobStore`."""
        self._check_room(descriptor.size)
        part = self.parts.get(descriptor.digest, b"") if resume else b""
        self.at_work.add(descriptor.digest)
        return MemoryIngest(
            descriptor, self, bytearray(part if len(part) <= descriptor.size else b""), resume
        )

    async def remove(self, digests: Iterable[Digest]) -> Mapping[Digest, int]:
        """See `BlobStore`."""
        return {digest: len(self.blobs.pop(digest)) for digest in digests if digest in self.blobs}

    async def list(self) -> Mapping[Digest, int]:
        """See `BlobStore`."""
        return {digest: len(data) for digest, data in self.blobs.items()}

    async def sweep_ingests(self, *, keep: Iterable[Digest]) -> int:
        """See `BlobStore`."""
        kept = {*keep, *self.at_work}
        gone = {digest: data for digest, data in self.parts.items() if digest not in kept}
        for digest in gone:
            del self.parts[digest]
        return sum(map(len, gone.values()))

    def _check_room(self, size: int) -> None:
        if self.room is not None and size > self.room:
            raise CapacityExhausted(f"the store has no room for {size} bytes")


@dataclass(slots=True)
class MemoryIndex:
    """Implements `StoreIndex`."""

    tags: dict[str, StoredTag] = field(default_factory=dict)
    leases: dict[str, StoredLease] = field(default_factory=dict)
    places: dict[tuple[Digest, str], list[str]] = field(default_factory=dict)

    async def put_tag(self, tag: StoredTag) -> None:
        """See `StoreIndex`."""
        self.tags[tag.reference] = tag

    async def get_tag(self, reference: str) -> StoredTag | None:
        """See `StoreIndex`."""
        return self.tags.get(reference)

    async def list_tags(self) -> Sequence[StoredTag]:
        """See `StoreIndex`."""
        return [self.tags[reference] for reference in sorted(self.tags)]

    async def remove_tags(self, references: Iterable[str]) -> None:
        """See `StoreIndex`."""
        for reference in references:
            self.tags.pop(reference, None)

    async def put_lease(self, lease: StoredLease) -> None:
        """See `StoreIndex`."""
        self.leases[lease.lease_id] = replace(lease)

    async def remove_lease(self, lease_id: str) -> None:
        """See `StoreIndex`."""
        self.leases.pop(lease_id, None)

    async def list_leases(self, now: datetime) -> Sequence[StoredLease]:
        """See `StoreIndex`."""
        self.leases = {
            key: lease
            for key, lease in sorted(self.leases.items())
            if lease.expires is None or lease.expires > now
        }
        return list(self.leases.values())

    async def add_origin(self, digests: Iterable[Digest], repository: Reference) -> None:
        """See `StoreIndex`."""
        for digest in digests:
            paths = self.places.setdefault((digest, repository.host), [])
            if repository.path in paths:
                paths.remove(repository.path)
            paths.insert(0, repository.path)

    async def origins(self, digest: Digest, host: str) -> Sequence[str]:
        """See `StoreIndex`."""
        return list(self.places.get((digest, host), ()))


@dataclass(slots=True)
class MemoryLogins:
    """Implements `LoginStore`."""

    logins: dict[str, Credential] = field(default_factory=dict)

    def put(self, host: str, credential: Credential) -> StoredLogin:
        """See `LoginStore`."""
        self.logins[host] = credential
        return StoredLogin(
            registry=host, username=credential.username, stored_in="file", location="memory"
        )

    def remove(self, host: str) -> bool:
        """See `LoginStore`."""
        return self.logins.pop(host, None) is not None

    def list_logins(self) -> Sequence[StoredLogin]:
        """See `LoginStore`."""
        return [
            StoredLogin(registry=host, username=one.username, stored_in="file")
            for host, one in sorted(self.logins.items())
        ]
