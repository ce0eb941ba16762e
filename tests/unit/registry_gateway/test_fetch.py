"""A blob is fetched once for all who ask, and one's failing source is not another's."""

import asyncio

import pytest

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, ContentCorrupt, RegistryUnavailable
from services.core.reference import Reference
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.progress import Board, Stage
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_store import MemoryStore

DATA = b"x" * 200_000
BLOB = Descriptor(media_type="a/b", digest=Digest.of(DATA), size=len(DATA))
HERE, THERE = Reference.parse("a.example/one"), Reference.parse("b.example/two")


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    for reference in (HERE, THERE):
        made.repositories[reference.repository].blobs[BLOB.digest] = DATA
    return made


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def fetcher(registry: FakeRegistry, store: MemoryStore) -> BlobFetcher:
    return BlobFetcher(registry, store)


async def started(work: "asyncio.Future[None]", registry: FakeRegistry, calls: int) -> None:
    """Returns when the registry was asked so often."""
    while registry.calls["fetch_blob"] < calls:
        assert not work.done()
        await asyncio.sleep(0)


async def test_all_who_wait_see_the_one_transfer(
    fetcher: BlobFetcher, registry: FakeRegistry, store: MemoryStore
) -> None:
    registry.gate.clear()
    boards = [Board() for _ in range(3)]
    works = [asyncio.ensure_future(fetcher.fetch_all(HERE, [BLOB], board)) for board in boards]
    await started(works[0], registry, 1)
    late = Board()
    joining = asyncio.ensure_future(fetcher.fetch_all(THERE, [BLOB], late))
    await asyncio.sleep(0)
    registry.gate.set()
    await asyncio.gather(*works, joining)

    assert registry.calls["fetch_blob"] == 1
    assert store.blobs == {BLOB.digest: DATA}
    for board in (*boards, late):
        (last,) = board.changes()
        assert (last.stage, last.done) == (Stage.DONE, len(DATA))


async def test_a_failing_source_of_another_is_not_one_s_own(
    fetcher: BlobFetcher, registry: FakeRegistry, store: MemoryStore
) -> None:
    registry.fail("fetch_blob", RegistryUnavailable("down"))
    first = asyncio.ensure_future(fetcher.fetch_all(HERE, [BLOB], Board()))
    same = asyncio.ensure_future(fetcher.fetch_all(HERE, [BLOB], Board()))
    other = asyncio.ensure_future(fetcher.fetch_all(THERE, [BLOB], Board()))

    results = await asyncio.gather(first, same, other, return_exceptions=True)

    assert isinstance(results[0], RegistryUnavailable)
    assert results[2] is None
    assert store.blobs == {BLOB.digest: DATA}


async def test_the_last_who_leaves_ends_the_transfer_and_the_next_takes_it_up(
    fetcher: BlobFetcher, registry: FakeRegistry, store: MemoryStore
) -> None:
    registry.gate.clear()
    works = [asyncio.ensure_future(fetcher.fetch_all(HERE, [BLOB], Board())) for _ in range(2)]
    await started(works[0], registry, 1)
    works[0].cancel()
    await asyncio.sleep(0)
    assert not works[1].done()
    works[1].cancel()
    await asyncio.gather(*works, return_exceptions=True)
    assert store.at_work == set()

    registry.gate.set()
    board = Board()
    await fetcher.fetch_all(HERE, [BLOB], board)

    assert store.blobs == {BLOB.digest: DATA}
    assert board.changes()[0].stage is Stage.DONE


async def test_the_first_failure_ends_the_others(
    fetcher: BlobFetcher, registry: FakeRegistry, store: MemoryStore
) -> None:
    absent = Descriptor(media_type="a/b", digest=Digest.of(b"absent"), size=6)
    registry.gate.clear()

    with pytest.raises(BlobUnknown):
        await fetcher.fetch_all(HERE, [BLOB, absent], Board())

    assert store.blobs == {}
    assert store.at_work == set()


async def test_a_descriptor_that_lies_about_the_size_of_a_known_blob_is_refused(
    fetcher: BlobFetcher, store: MemoryStore
) -> None:
    lying = Descriptor(media_type="a/b", digest=BLOB.digest, size=5)
    store.blobs[BLOB.digest] = DATA

    with pytest.raises(ContentCorrupt):
        await fetcher.fetch(HERE, lying, Board())


@pytest.mark.parametrize(
    "foreign",
    [
        Descriptor(
            media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            digest=Digest.of(b"windows"),
            size=7,
        ),
        Descriptor(
            media_type="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            digest=Digest.of(b"windows"),
            size=7,
        ),
        Descriptor(media_type="a/b", digest=Digest.of(b"windows"), size=7, has_urls=True),
    ],
    ids=["docker", "oci", "urls"],
)
async def test_a_foreign_layer_that_the_registry_lacks_is_named_as_one(
    fetcher: BlobFetcher, registry: FakeRegistry, foreign: Descriptor
) -> None:
    with pytest.raises(BlobUnknown, match=r"a\.example does not distribute the foreign layer"):
        await fetcher.fetch_all(HERE, [foreign], Board())

    registry.repositories[HERE.repository].blobs[foreign.digest] = b"windows"
    await fetcher.fetch_all(HERE, [foreign], Board())


async def test_a_layer_of_this_registry_that_is_missing_is_not_called_foreign(
    fetcher: BlobFetcher,
) -> None:
    absent = Descriptor(media_type="a/b", digest=Digest.of(b"absent"), size=6)

    with pytest.raises(BlobUnknown) as caught:
        await fetcher.fetch_all(HERE, [absent], Board())

    assert "foreign" not in caught.value.message
