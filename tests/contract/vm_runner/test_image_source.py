"""What every image store promises vm_runner: the materializer's, and the fake of other tests."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lns.materializer.v1 import materializer_service_pb2 as pb

from services.core.errors import ImageUnknown
from services.vm_runner.adapters.materializer_client import MaterializerImages
from services.vm_runner.ports import ImageSource
from tests.fakes.vm_outside import FakeImages
from tests.support.materializer import served
from tests.support.outcomes import passes
from tests.support.runs import DIGEST
from tests.support.tars import archive, entry

RUN = "0123456789abcdef" * 2
ABSENT = "sha256:" + "b" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An implementer with one image, of one layer with objects.

    Attributes:
        leases: says which images are leased.
    """

    images: ImageSource
    digest: str
    leases: Callable[[], Awaitable[set[str]]]


@contextlib.asynccontextmanager
async def fake(_: Path) -> AsyncIterator[Subject]:
    images = FakeImages()

    async def leases() -> set[str]:
        return set(images.leased.values())

    yield Subject(images=images, digest=DIGEST, leases=leases)


@contextlib.asynccontextmanager
async def materializer(home: Path) -> AsyncIterator[Subject]:
    async with served(home) as client:
        manifest = client.blobs.image(archive(entry(b"file", b"content " * 1000)))
        made = await client.materialize(manifest)

        async def leases() -> set[str]:
            """What a prune would spare is leased."""
            listed = (await client.stub.ListImages(pb.ListImagesRequest())).images
            doomed = await client.stub.PruneImages(pb.PruneImagesRequest(dry_run=True))
            return {one.composefs_digest for one in listed} - set(doomed.images)

        yield Subject(
            images=MaterializerImages(client.stub, root=home),
            digest=made.image.composefs_digest,
            leases=leases,
        )


@pytest.fixture(params=[fake, materializer])
async def subject(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Subject]:
    async with request.param(short_directory) as made:
        yield made


async def test_a_lease_says_where_the_files_of_the_image_are(subject: Subject) -> None:
    image = await subject.images.lease(RUN, subject.digest)

    assert image.metadata_path.is_absolute()
    assert image.metadata_path.suffix == ".cfs"
    assert [path.name for path in image.pack_paths] == ["objects.erofs"]
    assert all(path.is_absolute() for path in image.pack_paths)
    assert (image.read_only_paths, image.has_acl) == ((), False)


async def test_an_image_is_leased_until_its_lease_is_released(subject: Subject) -> None:
    before = await subject.leases()
    await subject.images.lease(RUN, subject.digest)
    await subject.images.lease(RUN, subject.digest)
    leased = await subject.leases()
    await subject.images.release(RUN)
    after = await subject.leases()

    assert (before, leased, after) == (set(), {subject.digest}, set())


async def test_an_unknown_image_is_refused_and_leaves_no_lease(subject: Subject) -> None:
    with pytest.raises(ImageUnknown):
        await subject.images.lease(RUN, ABSENT)

    assert await subject.leases() == set()


async def test_a_lease_that_does_not_exist_may_be_released(subject: Subject) -> None:
    with passes():
        await subject.images.release(RUN)
        await subject.images.release(RUN)
