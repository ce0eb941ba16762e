"""What every blob store promises: whole and verified, or not there."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis.blocking import Blocking
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, CapacityExhausted, ContentCorrupt, LimitExceeded
from services.registry_gateway.adapters.store.disk_store import DiskStore
from services.registry_gateway.ports import BlobStore
from tests.fakes.registry_store import MemoryStore


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    with Blocking(2) as blocking:
        yield DiskStore(tmp_path / "blobs", blocking)


def descriptor(data: bytes, *, size: int | None = None) -> Descriptor:
    return Descriptor(
        media_type="a/b", digest=Digest.of(data), size=len(data) if size is None else size
    )


DATA = b"some bytes of a blob"
DIGEST = Digest.of(DATA)


async def test_an_empty_store_has_nothing(store: BlobStore) -> None:
    assert await store.size(DIGEST) is None
    assert await store.missing([DIGEST]) == {DIGEST}
    assert await store.list() == {}
    assert await store.remove([DIGEST]) == {}
    with pytest.raises(BlobUnknown):
        await store.read(DIGEST, limit=100)
    with pytest.raises(BlobUnknown):
        store.source(descriptor(DATA)).open()


@pytest.mark.parametrize("data", [b"", b"x", DATA])
async def test_what_is_written_is_found(store: BlobStore, data: bytes) -> None:
    for _ in range(2):  # writing again changes nothing
        assert await store.write(data) == Digest.of(data)

    assert await store.size(Digest.of(data)) == len(data)
    assert await store.missing([Digest.of(data), Digest.of(b"absent")]) == {Digest.of(b"absent")}
    assert await store.read(Digest.of(data), limit=len(data)) == data
    assert await store.list() == {Digest.of(data): len(data)}
    with store.source(descriptor(data)).open() as file:
        file.seek(len(data) // 2)
        assert file.read() == data[len(data) // 2 :]


async def test_a_blob_is_kept_under_the_algorithm_of_its_digest(store: BlobStore) -> None:
    long = Digest.of(DATA, algorithm="sha512")
    wanted = Descriptor(media_type="", digest=long, size=len(DATA))

    for data, kept in ((DATA[::-1], False), (DATA, True)):
        with closing(await store.ingest(wanted, resume=False)) as ingest:
            ingest.write(data)
            if kept:
                ingest.commit()
            else:
                with pytest.raises(ContentCorrupt):
                    ingest.commit()
    assert await store.write(b"another", algorithm="sha512") == Digest.of(
        b"another", algorithm="sha512"
    )

    assert await store.read(long, limit=100) == DATA
    assert await store.verify(long)
    assert await store.size(DIGEST) is None
    assert set(await store.list()) == {long, Digest.of(b"another", algorithm="sha512")}
    assert await store.remove([long]) == {long: len(DATA)}


async def test_a_blob_above_the_limit_is_not_read(store: BlobStore) -> None:
    await store.write(DATA)

    with pytest.raises(LimitExceeded):
        await store.read(DIGEST, limit=len(DATA) - 1)


async def test_an_ingest_shows_nothing_before_its_commit(store: BlobStore) -> None:
    ingest = await store.ingest(descriptor(DATA), resume=False)
    ingest.write(DATA[:5])
    ingest.write(memoryview(DATA[5:]))
    assert (ingest.position, await store.size(DIGEST)) == (len(DATA), None)

    ingest.commit()
    ingest.close()

    assert await store.read(DIGEST, limit=100) == DATA


@pytest.mark.parametrize(
    ("sent", "announced"),
    [
        (DATA[:-1], descriptor(DATA)),
        (b"", descriptor(DATA)),
        (DATA[::-1], descriptor(DATA)),
        (DATA, descriptor(DATA, size=len(DATA) + 1)),
    ],
    ids=["short", "nothing", "other", "another size"],
)
@pytest.mark.parametrize("resume", [False, True])
async def test_what_is_not_the_blob_is_refused_and_forgotten(
    store: BlobStore, sent: bytes, announced: Descriptor, *, resume: bool
) -> None:
    with closing(await store.ingest(announced, resume=resume)) as ingest:
        ingest.write(sent)
        with pytest.raises(ContentCorrupt):
            ingest.commit()
        assert ingest.position == 0

    assert await store.list() == {}
    assert await store.sweep_ingests(keep=[]) == 0


async def test_more_bytes_than_announced_are_refused_at_once(store: BlobStore) -> None:
    with closing(await store.ingest(descriptor(DATA), resume=True)) as ingest:
        ingest.write(DATA)
        with pytest.raises(ContentCorrupt):
            ingest.write(b"x")
        assert ingest.position == 0


async def test_an_interrupted_ingest_is_taken_up(store: BlobStore) -> None:
    with closing(await store.ingest(descriptor(DATA), resume=True)) as first:
        first.write(DATA[:7])

    with closing(await store.ingest(descriptor(DATA), resume=True)) as second:
        assert second.position == 7
        second.write(DATA[7:])
        second.commit()

    assert await store.read(DIGEST, limit=100) == DATA
    assert await store.sweep_ingests(keep=[]) == 0


async def test_an_ingest_that_is_not_to_be_taken_up_begins_at_nothing(store: BlobStore) -> None:
    with closing(await store.ingest(descriptor(DATA), resume=True)) as first:
        first.write(DATA[:7])

    with closing(await store.ingest(descriptor(DATA), resume=False)) as second:
        assert second.position == 0
        second.write(DATA)
        second.commit()

    assert await store.read(DIGEST, limit=100) == DATA


async def test_an_ingest_begins_anew_where_that_is_wanted(store: BlobStore) -> None:
    with closing(await store.ingest(descriptor(DATA), resume=True)) as ingest:
        ingest.write(b"wrong")
        ingest.restart()
        assert ingest.position == 0
        ingest.write(DATA)
        ingest.commit()

    assert await store.read(DIGEST, limit=100) == DATA


async def test_a_part_that_is_longer_than_the_blob_does_not_count(store: BlobStore) -> None:
    with closing(await store.ingest(descriptor(DATA, size=1000), resume=True)) as first:
        first.write(b"x" * 999)

    with closing(await store.ingest(descriptor(DATA), resume=True)) as second:
        assert second.position == 0


async def test_sweeping_removes_what_nobody_works_on(store: BlobStore) -> None:
    kept, other = b"kept", b"other"
    for data in (DATA, kept):
        with closing(await store.ingest(descriptor(data), resume=True)) as ingest:
            ingest.write(data[:3])
    with closing(await store.ingest(descriptor(other), resume=True)) as at_work:
        at_work.write(other)

        assert await store.sweep_ingests(keep=[Digest.of(kept)]) == 3
        at_work.commit()

    assert await store.read(Digest.of(other), limit=100) == other
    with closing(await store.ingest(descriptor(kept), resume=True)) as again:
        assert again.position == 3


async def test_removing_says_what_went(store: BlobStore) -> None:
    await store.write(DATA)

    assert await store.remove([DIGEST, Digest.of(b"absent")]) == {DIGEST: len(DATA)}
    assert await store.list() == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    data=st.binary(max_size=60),
    cuts=st.lists(st.integers(min_value=0, max_value=60), max_size=5),
)
def test_a_blob_arrives_in_any_pieces_and_sittings(data: bytes, cuts: list[int]) -> None:
    async def arrive(store: BlobStore) -> bytes:
        await store.remove([Digest.of(data)])
        await store.sweep_ingests(keep=[])
        for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            with closing(await store.ingest(descriptor(data), resume=True)) as ingest:
                ingest.write(data[ingest.position : max(end, ingest.position)])
                if ingest.position == len(data):
                    ingest.commit()
                    break
        return await store.read(Digest.of(data), limit=100)

    assert asyncio.run(arrive(MemoryStore())) == data


async def test_a_store_without_room_says_so_before_anything_is_fetched(tmp_path: Path) -> None:
    with Blocking(1) as blocking:
        disk = DiskStore(tmp_path / "blobs", blocking, reserve_bytes=1 << 60)
        for store in (disk, MemoryStore(room=10)):
            with pytest.raises(CapacityExhausted):
                await store.ingest(descriptor(DATA), resume=True)
            with pytest.raises(CapacityExhausted):
                await store.write(DATA)
            assert await store.list() == {}


@pytest.mark.parametrize("how", ["read", "verify"])
@pytest.mark.parametrize("kind", ["disk", "memory"])
async def test_a_damaged_blob_is_found_when_it_is_read_and_removed(
    tmp_path: Path, kind: str, how: str
) -> None:
    with Blocking(1) as blocking:
        disk, memory = DiskStore(tmp_path / "blobs", blocking), MemoryStore()
        store: BlobStore = disk if kind == "disk" else memory
        await store.write(DATA)
        memory.blobs[DIGEST] = DATA[::-1]
        if kind == "disk":
            disk.path(DIGEST).chmod(0o600)
            disk.path(DIGEST).write_bytes(DATA[::-1])

        if how == "read":
            with pytest.raises(ContentCorrupt):
                await store.read(DIGEST, limit=100)
        else:
            assert await store.verify(DIGEST) is False
        assert await store.size(DIGEST) is None


async def test_a_whole_blob_is_verified_and_an_absent_one_is_not(store: BlobStore) -> None:
    for data in (DATA, b""):
        assert await store.verify(Digest.of(data)) is False
        await store.write(data)
        assert await store.verify(Digest.of(data)) is True


async def test_a_blob_on_the_disk_cannot_be_written_to(tmp_path: Path) -> None:
    with Blocking(2) as blocking:
        store = DiskStore(tmp_path / "blobs", blocking)
        await store.write(DATA)
        with closing(await store.ingest(descriptor(DATA[::-1]), resume=False)) as ingest:
            ingest.write(DATA[::-1])
            ingest.commit()
    modes = {
        path.read_bytes(): path.stat().st_mode & 0o7777
        for path in (tmp_path / "blobs").rglob("*")
        if path.is_file()
    }

    assert modes == {DATA: 0o444, DATA[::-1]: 0o444}
