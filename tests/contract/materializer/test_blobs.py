"""What every way to the gateway's blobs must do: from a shared store, and over its RPCs."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2

from services.chassis.blocking import Blocking
from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core.digest import Digest
from services.core.errors import BlobsMissing, ContentCorrupt, LimitExceeded, ServiceUnavailable
from services.materializer.adapters.gateway_blobs import GatewayBlobs
from services.materializer.adapters.shared_blobs import SharedBlobs
from services.materializer.adapters.store_files import StoreFiles
from services.materializer.ports import Blobs
from tests.support.gateway import run_gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An implementer of the port, and the directory that its blobs come from."""

    blobs: Blobs
    directory: Path
    work: Path | None = None

    def put(self, data: bytes) -> Digest:
        """Stores a blob behind the port."""
        digest = Digest.of(data)
        (self.directory / digest.hex).write_bytes(data)
        return digest


@contextlib.asynccontextmanager
async def shared(home: Path) -> AsyncIterator[Subject]:
    directory = home / "blobs" / "sha256"
    directory.mkdir(parents=True)
    with Blocking(1) as blocking:
        yield Subject(blobs=SharedBlobs(home, blocking), directory=directory)


@contextlib.asynccontextmanager
async def over_rpcs(home: Path) -> AsyncIterator[Subject]:
    async with (
        run_gateway(home) as gateway,
        open_channel(
            PeerSettings(target=f"unix:{home}/gateway.sock"), registry_service_pb2.DESCRIPTOR
        ) as channel,
    ):
        files = StoreFiles(home / "own")
        yield Subject(
            blobs=GatewayBlobs(channel, files),
            directory=gateway.home / "blobs" / "sha256",
            work=home / "own" / "materializer" / "work",
        )


@pytest.fixture(params=[shared, over_rpcs])
async def subject(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Subject]:
    async with request.param(short_directory) as made:
        yield made


async def test_a_small_blob_is_read_whole(subject: Subject) -> None:
    for data in (b"", b"x", b"y" * 3_000_000):
        assert await subject.blobs.read(subject.put(data), limit=4_000_000) == data


async def test_a_blob_of_exactly_the_limit_is_read(subject: Subject) -> None:
    assert await subject.blobs.read(subject.put(b"12345"), limit=5) == b"12345"


async def test_a_blob_beyond_the_limit_is_not_read(subject: Subject) -> None:
    with pytest.raises(LimitExceeded):
        await subject.blobs.read(subject.put(b"123456"), limit=5)


async def test_a_large_blob_is_a_file_while_it_is_used(subject: Subject) -> None:
    data = b"large" * 1_000_000

    async with subject.blobs.file(subject.put(data)) as path:
        assert path.read_bytes() == data

    assert subject.work is None or not list(subject.work.iterdir())


async def test_a_missing_blob_is_named(subject: Subject) -> None:
    digest = Digest.of(b"nobody has this")

    with pytest.raises(BlobsMissing) as read:
        await subject.blobs.read(digest, limit=100)
    with pytest.raises(BlobsMissing) as opened:
        async with subject.blobs.file(digest):
            pass

    for caught in (read, opened):
        assert [(one.subject, one.type) for one in caught.value.violations] == [(digest, "MISSING")]
        assert "lns pull" in caught.value.hint


async def test_a_damaged_small_blob_is_not_given_out(subject: Subject) -> None:
    digest = subject.put(b"sound")
    (subject.directory / digest.hex).write_bytes(b"wrong")

    with pytest.raises(ContentCorrupt):
        await subject.blobs.read(digest, limit=100)


async def test_a_gateway_that_does_not_answer_is_reported(short_directory: Path) -> None:
    peer = PeerSettings(target=f"unix:{short_directory}/nobody.sock", stream_timeout=5)
    async with open_channel(peer, registry_service_pb2.DESCRIPTOR) as channel:
        blobs = GatewayBlobs(channel, StoreFiles(short_directory))

        with pytest.raises(ServiceUnavailable):
            await blobs.read(Digest.of(b"x"), limit=10)


async def test_a_damaged_large_blob_of_a_gateway_is_not_given_out(short_directory: Path) -> None:
    async with over_rpcs(short_directory) as subject:
        digest = subject.put(b"sound")
        (subject.directory / digest.hex).write_bytes(b"wrong")

        with pytest.raises(ContentCorrupt):
            async with subject.blobs.file(digest):
                pass

        assert subject.work is not None
        assert not list(subject.work.iterdir())
