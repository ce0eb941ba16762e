"""What every index of the store promises."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from services.core.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import SettingsInvalid
from services.core.reference import Reference
from services.registry_gateway.adapters.store.sqlite_index import SqliteIndex
from services.registry_gateway.ports import StoredLease, StoredTag, StoreIndex
from tests.fakes.registry_store import MemoryIndex

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
A, B = Digest.of(b"a"), Digest.of(b"b")


@pytest.fixture(params=["sqlite", "memory"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreIndex]:
    if request.param == "memory":
        yield MemoryIndex()
        return
    opened = SqliteIndex(tmp_path / "gateway" / "index.sqlite")
    yield opened
    opened.close()


def tag(reference: str, *, digest: Digest = A, manifest: Digest | None = None) -> StoredTag:
    return StoredTag(
        reference=reference,
        root=Descriptor(media_type=OCI_INDEX, digest=digest, size=3, artifact_type="x/y"),
        manifest=manifest and Descriptor(media_type=OCI_MANIFEST, digest=manifest, size=4),
        family="agent",
        total_bytes=1 << 50,
        created=NOW,
    )


def lease(lease_id: str, *, expires: datetime | None = None) -> StoredLease:
    return StoredLease(lease_id=lease_id, holder="höld'er", digests=(A, B), expires=expires)


async def test_tags_are_found_listed_replaced_and_removed(index: StoreIndex) -> None:
    assert await index.get_tag("h/a:v") is None
    first, second = tag("h/b:v", manifest=B), tag("h/a:v")
    for one in (first, second):
        await index.put_tag(one)

    assert await index.get_tag("h/b:v") == first
    assert list(await index.list_tags()) == [second, first]

    moved = tag("h/b:v", digest=B)
    await index.put_tag(moved)
    assert list(await index.list_tags()) == [second, moved]

    await index.remove_tags(["h/b:v", "h/absent:v"])
    assert list(await index.list_tags()) == [second]


async def test_a_lease_holds_until_it_is_removed_or_runs_out(index: StoreIndex) -> None:
    elsewhere = timezone(timedelta(hours=-7))
    for one in (
        lease("for good"),
        lease("an hour", expires=(NOW + timedelta(hours=1)).astimezone(elsewhere)),
        lease("a moment", expires=NOW + timedelta(microseconds=1)),
    ):
        await index.put_lease(one)

    async def held(after: timedelta) -> list[str]:
        return [one.lease_id for one in await index.list_leases(NOW + after)]

    assert await held(timedelta()) == ["a moment", "an hour", "for good"]
    assert await held(timedelta(microseconds=1)) == ["an hour", "for good"]
    assert await held(timedelta()) == ["an hour", "for good"], "what ran out is gone"
    (found,) = [one for one in await index.list_leases(NOW) if one.lease_id == "an hour"]
    assert (found.holder, found.digests) == ("höld'er", (A, B))
    assert found.expires == NOW + timedelta(hours=1)

    for _ in range(2):
        await index.remove_lease("for good")
    assert await held(timedelta()) == ["an hour"]


async def test_a_lease_of_the_same_id_takes_the_place_of_the_first(index: StoreIndex) -> None:
    await index.put_lease(lease("l", expires=NOW + timedelta(seconds=1)))
    await index.put_lease(StoredLease(lease_id="l", holder="", digests=(B,), expires=None))

    (found,) = await index.list_leases(NOW + timedelta(days=1))
    assert found == StoredLease(lease_id="l", holder="", digests=(B,), expires=None)


async def test_origins_are_by_host_and_the_latest_comes_first(index: StoreIndex) -> None:
    for reference in ("h.example/one", "h.example/two", "i.example/three", "h.example/one"):
        await index.add_origin([A, B], Reference.parse(reference))

    assert list(await index.origins(A, "h.example")) == ["one", "two"]
    assert list(await index.origins(B, "i.example")) == ["three"]
    assert list(await index.origins(A, "j.example")) == []


async def test_an_index_of_sqlite_is_read_back_and_none_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with closing(SqliteIndex(path)) as index:
        await index.put_tag(tag("h/a:v"))
    with closing(SqliteIndex(path)) as index:
        assert await index.get_tag("h/a:v") == tag("h/a:v")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsInvalid):
        SqliteIndex(path)


async def test_an_index_of_sqlite_keeps_few_origins_of_a_blob(tmp_path: Path) -> None:
    with closing(SqliteIndex(tmp_path / "index.sqlite")) as index:
        for number in range(20):
            await index.add_origin([A], Reference.parse(f"h.example/r{number:02}"))

        assert list(await index.origins(A, "h.example")) == [f"r{n:02}" for n in range(19, 11, -1)]
