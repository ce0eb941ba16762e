"""Pruning keeps what tags, leases and pins reach, and nothing else."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.descriptor import OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, ImageUnknown, InUse, RequestInvalid
from services.core.reference import Reference
from services.registry_gateway.pins import Pins
from services.registry_gateway.ports import StoredTag
from services.registry_gateway.stored_images import StoredImages
from tests.fakes.registry_store import MemoryIndex, MemoryStore
from tests.support.images import Built, build_image, build_index

START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A store with images, and a clock."""

    def __init__(self) -> None:
        self.now = START
        self.store, self.index, self.pins = MemoryStore(), MemoryIndex(), Pins()
        self.images = StoredImages(
            store=self.store, index=self.index, pins=self.pins, now=lambda: self.now
        )

    def put(self, *builts: Built) -> None:
        """Puts images into the store."""
        for built in builts:
            self.store.blobs |= {built.digest: built.raw, **built.all_blobs}
            self.put(*built.children)

    async def tag(self, reference: str, built: Built) -> None:
        """Gives an image a name."""
        root = Descriptor(media_type=built.media_type, digest=built.digest, size=len(built.raw))
        await self.index.put_tag(
            StoredTag(
                reference=str(Reference.parse(reference)),
                root=root,
                manifest=None,
                family="",
                total_bytes=0,
                created=START,
            )
        )

    async def prune(self, *, include_tagged: bool = False) -> set[Digest]:
        """Prunes; returns what is left."""
        await self.images.prune(dry_run=False, include_tagged=include_tagged)
        return set(self.store.blobs)


def everything(*builts: Built) -> set[Digest]:
    found: set[Digest] = set()
    for built in builts:
        found |= {built.digest, *built.blobs} | everything(*built.children)
    return found


IMAGE, OTHER = build_image(b"1", b"2"), build_image(b"2", b"3")
INDEX = build_index(("amd64", IMAGE), ("arm64", OTHER))


async def test_a_lease_holds_until_its_time_is_over() -> None:
    world = World()
    world.put(IMAGE)
    await world.images.acquire("l", holder="", digests=[IMAGE.digest], life=timedelta(minutes=1))

    world.now = START + timedelta(seconds=59)
    assert await world.prune() == everything(IMAGE)
    world.now = START + timedelta(seconds=60)
    assert await world.prune() == set()


async def test_a_written_blob_is_kept_for_an_hour() -> None:
    world = World()
    digest = await world.store.write(b"layer")
    await world.images.keep_written(digest)

    world.now = START + timedelta(minutes=59)
    assert await world.prune(include_tagged=True) == {digest}
    world.now = START + timedelta(minutes=61)
    assert await world.prune() == set()


async def test_a_lease_on_what_does_not_exist_is_refused_and_pins_nothing() -> None:
    world = World()
    with pytest.raises(BlobUnknown):
        await world.images.acquire("l", holder="", digests=[IMAGE.digest], life=None)

    assert world.pins.all() == frozenset()
    assert await world.index.list_leases(START) == []


async def test_tags_that_a_lease_needs_stay_when_tags_go_too() -> None:
    world = World()
    world.put(INDEX, build_image(b"9"))
    await world.tag("h.example/index:v", INDEX)
    await world.tag("h.example/lonely:v", build_image(b"9"))
    await world.images.acquire("l", holder="", digests=[INDEX.digest], life=None)

    assert await world.prune(include_tagged=True) == everything(INDEX)
    assert [tag.reference for tag in await world.index.list_tags()] == ["h.example/index:v"]


async def test_the_last_name_of_what_a_lease_needs_is_not_removed() -> None:
    world = World()
    world.put(IMAGE)
    await world.tag("h.example/one:v", IMAGE)
    await world.tag("h.example/two:v", IMAGE)
    await world.images.acquire("l", holder="run quiet", digests=[IMAGE.digest], life=None)

    await world.images.remove(Reference.parse("h.example/one:v"))
    with pytest.raises(InUse, match="is needed by run quiet"):
        await world.images.remove(Reference.parse("h.example/two:v"))
    await world.images.release("l")
    await world.images.remove(Reference.parse("h.example/two:v"))

    assert await world.index.list_tags() == []


async def test_an_index_of_which_platforms_are_missing_keeps_those_that_exist() -> None:
    world = World()
    world.put(IMAGE)
    world.store.blobs[INDEX.digest] = INDEX.raw
    await world.tag("h.example/index:v", INDEX)

    assert await world.prune() == {INDEX.digest, *everything(IMAGE)}


async def test_a_blob_that_looks_like_a_manifest_is_not_followed() -> None:
    world = World()
    victim = build_image(b"9")
    hostile = build_image(victim.raw)  # a layer whose bytes are a manifest
    world.put(hostile, victim)
    await world.tag("h.example/hostile:v", hostile)

    assert await world.prune() == everything(hostile) | {victim.digest}


async def test_a_tag_whose_manifest_is_damaged_stops_no_prune() -> None:
    world = World()
    world.put(IMAGE, OTHER)
    await world.tag("h.example/a:v", IMAGE)
    await world.tag("h.example/b:v", OTHER)
    world.store.blobs[IMAGE.digest] = b"damaged"

    assert await world.prune() == everything(OTHER)


async def test_cyclic_and_deep_indexes_end() -> None:
    # A digest cannot name itself, but a store that was tampered with can hold such a thing.
    world = World()
    entry = {"mediaType": OCI_MANIFEST, "digest": INDEX.digest, "size": 1}
    world.store.blobs[INDEX.digest] = json.dumps({"manifests": [entry]}).encode()
    await world.tag("h.example/a:v", INDEX)

    assert await world.prune() == set(), "what is damaged is removed when it is read"


IMAGES = [build_image(bytes([n]), bytes([n + 1])) for n in range(5)]


@given(
    tagged=st.sets(st.integers(min_value=0, max_value=4)),
    leased=st.sets(st.integers(min_value=0, max_value=4)),
    pinned=st.sets(st.integers(min_value=0, max_value=4)),
)
async def test_a_prune_keeps_exactly_what_is_reached(
    tagged: set[int], leased: set[int], pinned: set[int]
) -> None:
    world = World()
    world.put(*IMAGES)
    for number in tagged:
        await world.tag(f"h.example/i{number}:v", IMAGES[number])
    for number in leased:
        await world.images.acquire(
            f"l{number}", holder="", digests=[IMAGES[number].digest], life=None
        )
    async with world.pins.session() as pins:
        await pins.add(IMAGES[number].digest for number in pinned)

        left = await world.prune()

    assert left == everything(*(IMAGES[number] for number in tagged | leased | pinned))


async def test_an_image_gets_one_more_name_without_any_registry() -> None:
    world = World()
    world.put(IMAGE)
    await world.tag(f"r.example/i@{IMAGE.digest}", IMAGE)

    tag = await world.images.tag(
        Reference.parse(f"r.example/i@{IMAGE.digest}"), Reference.parse("mine:2")
    )

    assert (tag.reference, tag.root.digest) == ("docker.io/library/mine:2", IMAGE.digest)
    assert await world.prune() == everything(IMAGE)
    await world.images.remove(Reference.parse("mine:2"))
    assert [one.reference for one in await world.index.list_tags()] == [
        f"r.example/i@{IMAGE.digest}"
    ]


async def test_a_name_that_leads_to_an_image_by_its_index_stays() -> None:
    """What `lns pull` recorded knows the other platforms too; a run must not take that away."""
    world = World()
    world.put(INDEX)
    await world.tag("r.example/i:1", INDEX)
    (index_tag,) = await world.index.list_tags()
    manifest = Descriptor(media_type=OCI_MANIFEST, digest=IMAGE.digest, size=len(IMAGE.raw))
    await world.index.put_tag(replace(index_tag, manifest=manifest))

    tag = await world.images.tag(
        Reference.parse(f"r.example/i@{IMAGE.digest}"), Reference.parse("r.example/i:1")
    )

    assert tag.root.digest == INDEX.digest


async def test_what_the_store_lacks_gets_no_name_and_a_digest_is_not_one() -> None:
    world = World()
    await world.tag("r.example/i:1", IMAGE)

    with pytest.raises(ImageUnknown):
        await world.images.tag(Reference.parse("r.example/j:1"), Reference.parse("a:1"))
    with pytest.raises(RequestInvalid):
        await world.images.tag(
            Reference.parse("r.example/i:1"), Reference.parse(f"a@{IMAGE.digest}")
        )


async def test_leases_are_listed_by_the_beginning_of_their_id() -> None:
    world = World()
    world.put(IMAGE)
    for lease_id in ("lock b", "run 1", "lock a"):
        await world.images.acquire(lease_id, holder="", digests=[IMAGE.digest], life=None)

    assert [one.lease_id for one in await world.images.list_leases("lock ")] == ["lock a", "lock b"]
