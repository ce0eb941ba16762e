"""Mirrors are asked in order for what is read, and for nothing that is written or listed."""

import pytest

from services.core.descriptor import OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import (
    CapacityExhausted,
    ContentCorrupt,
    DeadlineExceeded,
    LnsError,
    ManifestUnknown,
    RegistryDenied,
    RegistryProtocol,
    RegistryUnauthenticated,
    RegistryUnavailable,
)
from services.core.reference import Reference
from services.registry_gateway.adapters.registry.mirrored_registry import MirroredRegistry
from services.registry_gateway.progress import Meter
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_store import MemorySource, MemoryStore
from tests.support.images import build_image

IMAGE = build_image(b"layer")
LAYER = Descriptor(media_type="a/b", digest=Digest.of(b"layer"), size=5)
NAME = Reference.parse("registry.example/team/app:1")
HOSTS = ("near.example", "far.example")


@pytest.fixture
def registry() -> FakeRegistry:
    """The registry itself has the image; each test adds what its mirrors have."""
    made = FakeRegistry()
    made.put(str(NAME), IMAGE.raw, OCI_MANIFEST, IMAGE.all_blobs)
    return made


@pytest.fixture
def mirrored(registry: FakeRegistry) -> MirroredRegistry:
    return MirroredRegistry(registry, {NAME.host: HOSTS})


def mirror(registry: FakeRegistry, host: str) -> None:
    """Gives a mirror the image, too."""
    registry.put(f"{host}/{NAME.path}:1", IMAGE.raw, OCI_MANIFEST, IMAGE.all_blobs)


async def test_the_first_mirror_that_has_it_answers(
    registry: FakeRegistry, mirrored: MirroredRegistry
) -> None:
    mirror(registry, HOSTS[1])

    assert (await mirrored.fetch_manifest(NAME)).raw == IMAGE.raw
    assert await mirrored.resolve(NAME) == IMAGE.digest
    assert registry.calls == {"fetch_manifest": 2, "resolve": 2}  # near has none, far has it


@pytest.mark.parametrize(
    "failure",
    [
        ManifestUnknown("none"),
        RegistryUnavailable("down"),
        RegistryUnauthenticated("wants a login"),
        RegistryDenied("no"),
        RegistryProtocol("nonsense"),
        ContentCorrupt("a lie"),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_what_a_mirror_fails_at_is_asked_of_the_next(
    registry: FakeRegistry, mirrored: MirroredRegistry, failure: LnsError
) -> None:
    registry.fail("fetch_manifest", failure, failure)

    assert (await mirrored.fetch_manifest(NAME)).raw == IMAGE.raw
    assert registry.calls["fetch_manifest"] == 3


@pytest.mark.parametrize("failure", [CapacityExhausted("full"), DeadlineExceeded("late")])
async def test_a_failure_of_this_machine_is_not_one_of_the_mirror(
    registry: FakeRegistry, mirrored: MirroredRegistry, failure: LnsError
) -> None:
    registry.fail("fetch_manifest", failure)

    with pytest.raises(type(failure)):
        await mirrored.fetch_manifest(NAME)
    assert registry.calls["fetch_manifest"] == 1


async def test_the_error_that_is_shown_is_the_registrys_own(
    registry: FakeRegistry, mirrored: MirroredRegistry
) -> None:
    unknown = NAME.tagged("absent")

    with pytest.raises(ManifestUnknown, match=NAME.host):
        await mirrored.fetch_manifest(unknown)


async def test_a_blob_comes_from_a_mirror(
    registry: FakeRegistry, mirrored: MirroredRegistry
) -> None:
    mirror(registry, HOSTS[0])
    registry.repositories[NAME.repository].blobs.clear()
    store = MemoryStore()

    ingest = await store.ingest(LAYER, resume=False)
    await mirrored.fetch_blob(NAME, ingest, Meter(LAYER.digest, LAYER.size))

    assert store.blobs == {LAYER.digest: b"layer"}


async def test_other_registries_have_no_mirror(
    registry: FakeRegistry, mirrored: MirroredRegistry
) -> None:
    with pytest.raises(ManifestUnknown):
        await mirrored.fetch_manifest(Reference.parse("other.example/team/app:1"))

    assert registry.calls["fetch_manifest"] == 1


async def test_what_is_written_listed_or_deleted_is_the_registrys(
    registry: FakeRegistry, mirrored: MirroredRegistry
) -> None:
    for host in HOSTS:
        mirror(registry, host)
    there = registry.repositories[NAME.repository]

    meter = Meter(LAYER.digest, LAYER.size)
    await mirrored.push_blob(NAME, LAYER, MemorySource(b"layer", LAYER.digest), meter)
    await mirrored.push_manifest(NAME.tagged("2"), IMAGE.raw, OCI_MANIFEST)
    assert await mirrored.list_tags(NAME) == ["1", "2"]
    assert await mirrored.offer_blob(NAME, LAYER, mount_from=()) is not None
    assert await mirrored.list_referrers(NAME.pinned(IMAGE.digest)) is None
    await mirrored.delete_manifest(NAME.pinned(IMAGE.digest))

    assert there.tags == {}
    for host in HOSTS:
        assert registry.repositories[f"{host}/{NAME.path}"].tags == {"1": IMAGE.digest}
