"""What every registry promises the gateway: the real adapter on registry:2, and the fake."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from services.core.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import BlobsMissing, BlobUnknown, ContentCorrupt, ManifestUnknown
from services.core.reference import Reference
from services.registry_gateway.bootstrap import _open_parts
from services.registry_gateway.ports import Registry
from services.registry_gateway.progress import Meter, Stage
from services.registry_gateway.settings import GatewaySettings
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_store import MemorySource, MemoryStore
from tests.support.images import Built, build_image, build_index, random_bytes


@pytest.fixture(
    params=[pytest.param("oras", marks=pytest.mark.integration), "fake"],
)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Registry, str]]:
    """A registry and a host of it."""
    if request.param == "fake":
        yield FakeRegistry(), "127.0.0.1:1"
        return
    running = request.getfixturevalue("deletable_registry")
    settings = GatewaySettings.of_environment({"HOME": str(tmp_path)})
    with ExitStack() as stack:
        yield _open_parts(stack, tmp_path / "home", settings).registry, running.host


@pytest.fixture
def registry(subject: tuple[Registry, str]) -> Registry:
    return subject[0]


@pytest.fixture
def repository(subject: tuple[Registry, str]) -> Reference:
    return Reference.parse(f"{subject[1]}/c{time.time_ns()}/thing")


def blob(data: bytes) -> Descriptor:
    return Descriptor(media_type="a/b", digest=Digest.of(data), size=len(data))


async def push_blob(registry: Registry, repository: Reference, data: bytes, **more: Any) -> Meter:
    meter = Meter(Digest.of(data), len(data))
    source = MemorySource(data, Digest.of(data))
    await registry.push_blob(repository, blob(data), source, meter, **more)
    return meter


async def fetch_blob(
    registry: Registry, repository: Reference, data: bytes, store: MemoryStore | None = None
) -> tuple[bytes, Meter]:
    store = store or MemoryStore()
    meter = Meter(Digest.of(data), len(data))
    with closing(await store.ingest(blob(data), resume=True)) as ingest:
        await registry.fetch_blob(repository, ingest, meter)
    return store.blobs[Digest.of(data)], meter


async def push_image(registry: Registry, repository: Reference, built: Built, tag: str) -> None:
    for data in built.blobs.values():
        await push_blob(registry, repository, data)
    await registry.push_manifest(repository.tagged(tag), built.raw, built.media_type)


async def test_a_blob_goes_there_and_back(registry: Registry, repository: Reference) -> None:
    for data in (b"x", random_bytes(300_000, time.time_ns())):
        pushed = await push_blob(registry, repository, data)
        fetched, meter = await fetch_blob(registry, repository, data)

        assert fetched == data
        assert (pushed.stage, pushed.moved, pushed.done) == (Stage.DONE, len(data), len(data))
        assert (meter.moved, meter.done) == (len(data), len(data))


async def test_a_blob_that_exists_or_is_near_is_not_moved(
    registry: Registry, repository: Reference
) -> None:
    data = random_bytes(1000, time.time_ns())
    near = Reference.parse(f"{repository.host}/n{time.time_ns()}")
    assert await registry.offer_blob(repository, blob(data), mount_from=["absent"]) is None
    await push_blob(registry, repository, data)

    again = await push_blob(registry, repository, data)
    mounted = await push_blob(registry, near, data, mount_from=["absent", repository.path])

    assert (again.stage, again.moved) == (Stage.EXISTS, 0)
    assert (mounted.stage, mounted.moved, mounted.done) == (Stage.MOUNTED, 0, len(data))
    assert await registry.offer_blob(near, blob(data), mount_from=[]) is Stage.EXISTS
    assert (await fetch_blob(registry, near, data))[0] == data


async def test_a_fetch_brings_only_what_does_not_exist(
    registry: Registry, repository: Reference
) -> None:
    data = random_bytes(200_000, time.time_ns())
    await push_blob(registry, repository, data)
    store = MemoryStore(parts={Digest.of(data): data[:150_000]})

    fetched, meter = await fetch_blob(registry, repository, data, store)

    assert (fetched, meter.moved, meter.done) == (data, 50_000, len(data))


async def test_a_blob_that_does_not_exist_is_unknown(
    registry: Registry, repository: Reference
) -> None:
    await push_blob(registry, repository, b"something")

    with pytest.raises(BlobUnknown):
        await fetch_blob(registry, repository, b"absent")


async def test_a_source_that_is_not_the_blob_is_refused(
    registry: Registry, repository: Reference
) -> None:
    meter = Meter(Digest.of(b"announced"), 9)
    source = MemorySource(b"otherwise", Digest.of(b"announced"))

    with pytest.raises(ContentCorrupt):
        await registry.push_blob(repository, blob(b"announced"), source, meter)
    assert await registry.offer_blob(repository, blob(b"announced"), mount_from=[]) is None


async def test_a_manifest_goes_there_and_back_by_tag_and_digest(
    registry: Registry, repository: Reference
) -> None:
    built = build_image(random_bytes(100, time.time_ns()), indent=5)
    await push_image(registry, repository, built, "v1")

    for reference in (repository.tagged("v1"), repository.pinned(built.digest)):
        sent = await registry.fetch_manifest(reference)
        assert (sent.raw, sent.media_type) == (built.raw, OCI_MANIFEST)
        assert await registry.resolve(reference) == built.digest


async def test_an_index_names_manifests_that_exist(
    registry: Registry, repository: Reference
) -> None:
    child = build_image(random_bytes(100, time.time_ns()))
    index = build_index(("amd64", child))
    with pytest.raises(BlobsMissing):
        await registry.push_manifest(repository.tagged("v1"), index.raw, OCI_INDEX)

    await push_image(registry, repository, child, "child")
    await registry.push_manifest(repository.tagged("v1"), index.raw, OCI_INDEX)

    assert (await registry.fetch_manifest(repository.tagged("v1"))).raw == index.raw


async def test_a_manifest_names_blobs_that_exist(registry: Registry, repository: Reference) -> None:
    built = build_image(random_bytes(100, time.time_ns()))

    with pytest.raises(BlobsMissing):
        await registry.push_manifest(repository.tagged("v1"), built.raw, OCI_MANIFEST)


async def test_what_was_never_pushed_is_unknown(registry: Registry, repository: Reference) -> None:
    absent = repository.pinned(Digest.of(b"absent"))
    await push_image(registry, repository, build_image(b"x"), "v1")
    nowhere = Reference.parse(f"{repository.host}/never/pushed")

    for reference in (repository.tagged("v2"), absent, nowhere):
        with pytest.raises(ManifestUnknown):
            await registry.fetch_manifest(reference)
        with pytest.raises(ManifestUnknown):
            await registry.resolve(reference)
    with pytest.raises(ManifestUnknown):
        await registry.delete_manifest(absent)
    with pytest.raises(ManifestUnknown):
        await registry.list_tags(nowhere)


async def test_tags_are_listed_sorted_and_vanish_with_their_manifest(
    registry: Registry, repository: Reference
) -> None:
    one, two = build_image(b"1"), build_image(b"2")
    for tag, built in (("b", one), ("a", one), ("c", two)):
        await push_image(registry, repository, built, tag)
    assert list(await registry.list_tags(repository)) == ["a", "b", "c"]

    await registry.delete_manifest(repository.pinned(one.digest))

    assert list(await registry.list_tags(repository)) == ["c"]
    with pytest.raises(ManifestUnknown):
        await registry.fetch_manifest(repository.tagged("a"))


async def test_a_registry_without_the_referrers_api_says_so(
    registry: Registry, repository: Reference
) -> None:
    built = build_image(b"x")
    await push_image(registry, repository, built, "v1")
    subject = {"mediaType": OCI_MANIFEST, "digest": built.digest, "size": len(built.raw)}
    referrer = build_image(b"y", subject=subject, annotations={})
    for data in referrer.blobs.values():
        await push_blob(registry, repository, data)

    indexed = await registry.push_manifest(
        repository.pinned(referrer.digest), referrer.raw, OCI_MANIFEST
    )

    assert json.loads(referrer.raw)["subject"]["digest"] == built.digest
    assert indexed is False
    assert await registry.list_referrers(repository.pinned(built.digest)) is None
