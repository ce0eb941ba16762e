"""What is asked of a repository is answered by the registry, and a delete spares other tags."""

import json

import pytest

from services.core.descriptor import OCI_INDEX
from services.core.digest import Digest
from services.core.errors import InUse, ManifestUnknown, ReferenceInvalid
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.manifests import Manifests
from services.registry_gateway.pins import Pins
from services.registry_gateway.repositories import Repositories
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_store import MemoryIndex, MemoryStore
from tests.support.images import Built, build_image, build_index

PLACE = Reference.parse("registry.example/team/app:1")
AMD = build_image(b"amd")
ARM = build_image(b"arm", architecture="arm64")
INDEX = build_index(("amd64", AMD), ("arm64", ARM))


class World:
    """Repositories over fakes."""

    def __init__(self) -> None:
        self.registry, self.store = FakeRegistry(), MemoryStore()
        fetcher = BlobFetcher(self.registry, self.store)
        manifests = Manifests(
            registry=self.registry,
            store=self.store,
            index=MemoryIndex(),
            fetcher=fetcher,
            machine=Platform(os="linux", architecture="amd64"),
        )
        self.repositories = Repositories(registry=self.registry, manifests=manifests, pins=Pins())

    def put(self, built: Built, *tags: str) -> None:
        for child in built.children:
            self.registry.put(
                str(PLACE.pinned(child.digest)), child.raw, child.media_type, child.all_blobs
            )
        for tag in tags:
            self.registry.put(str(PLACE.tagged(tag)), built.raw, built.media_type, built.all_blobs)

    @property
    def tags(self) -> dict[str, Digest]:
        return self.registry.repositories[PLACE.repository].tags


@pytest.fixture
def world() -> World:
    return World()


async def test_a_platform_and_the_config_come_only_where_they_are_asked_for(world: World) -> None:
    world.put(INDEX, "1")
    arm = Platform(os="linux", architecture="arm64")

    whole, nothing = await world.repositories.get(PLACE, platform=None, config=True, offline=False)
    one, config = await world.repositories.get(PLACE, platform=arm, config=True, offline=False)

    assert (whole.shown.raw, nothing) == (INDEX.raw, b"")  # an index has no config
    assert (one.root.raw, one.shown.raw) == (INDEX.raw, ARM.raw)
    assert b"arm64" in config


async def test_offline_the_store_alone_answers(world: World) -> None:
    world.put(AMD, "1")

    with pytest.raises(ManifestUnknown, match="the store has no"):
        await world.repositories.get(PLACE, platform=None, config=False, offline=True)

    assert world.registry.calls == {}


async def test_a_stranger_is_described_without_a_family(world: World) -> None:
    world.put(AMD, "1")

    assert (await world.repositories.inspect(PLACE, None)).family == ""


async def test_tags_come_in_pages_that_leave_none_out(world: World) -> None:
    world.put(AMD, *"abcde")
    seen, after, pages = [], "", 0
    while pages == 0 or after:
        page, after = await world.repositories.list_tags(PLACE, after=after, limit=2)
        seen += page
        pages += 1

    assert (seen, pages) == (list("abcde"), 3)


async def test_a_page_goes_on_where_it_was_though_its_tag_is_gone(world: World) -> None:
    world.put(AMD, *"ace")

    assert await world.repositories.list_tags(PLACE, after="b", limit=5) == (["c", "e"], "")


async def test_a_tag_is_one_more_name_of_the_same_bytes(world: World) -> None:
    world.put(AMD, "1")

    named, descriptor = await world.repositories.tag(PLACE, "stable")

    assert (named, descriptor.digest) == (PLACE.tagged("stable"), AMD.digest)
    assert world.tags == {"1": AMD.digest, "stable": AMD.digest}
    with pytest.raises(ReferenceInvalid):
        await world.repositories.tag(PLACE, "no tag")


async def test_a_delete_that_would_take_other_tags_with_it_is_refused(world: World) -> None:
    world.put(AMD, "1", "stable")
    world.put(ARM, "2")

    with pytest.raises(InUse, match="stable"):
        await world.repositories.delete(PLACE, force=False)
    assert set(world.tags) == {"1", "stable", "2"}

    await world.repositories.delete(PLACE, force=True)
    assert set(world.tags) == {"2"}


async def test_a_delete_by_digest_counts_every_tag(world: World) -> None:
    world.put(AMD, "1")

    with pytest.raises(InUse):
        await world.repositories.delete(PLACE.pinned(AMD.digest), force=False)
    await world.repositories.delete(PLACE, force=False)

    assert world.tags == {}


async def test_a_tag_that_goes_while_they_are_looked_at_is_no_reason(world: World) -> None:
    world.put(AMD, "1")
    world.put(ARM, "0")
    world.registry.fail("resolve", ManifestUnknown("gone"))

    await world.repositories.delete(PLACE, force=False)

    assert set(world.tags) == {"0"}


async def test_what_the_store_remembers_is_not_deleted_in_its_place(world: World) -> None:
    world.put(AMD, "1")
    await world.repositories.get(PLACE, platform=None, config=False, offline=False)
    world.tags.clear()

    with pytest.raises(ManifestUnknown):
        await world.repositories.delete(PLACE, force=False)


async def test_referrers_of_the_fallback_tag_are_filtered_by_type(world: World) -> None:
    world.put(AMD, "1")
    assert await world.repositories.referrers(PLACE, "") == []
    text = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [ARM.descriptor | {"artifactType": "application/signed"}],
        }
    )
    fallback = PLACE.tagged(AMD.digest.replace(":", "-"))
    world.registry.put(str(fallback), text.encode(), OCI_INDEX, {})

    (found,) = await world.repositories.referrers(PLACE, "")
    assert (found.digest, found.artifact_type) == (ARM.digest, "application/signed")
    assert list(await world.repositories.referrers(PLACE, "application/signed")) == [found]
    assert await world.repositories.referrers(PLACE, "application/none") == []
