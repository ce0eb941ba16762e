"""What is recorded is on the disk under its name: no record outlasts what it names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as pb

from services.core.digest import Digest
from services.core.reference import STORE_HOST
from services.registry_gateway.ports import StoredLease, StoredTag
from tests.fakes.registry_store import MemoryIndex
from tests.support.gateway_world import REFERENCE, World
from tests.support.images import build_image, write_layout

IMAGE = build_image(b"layer")


@pytest.fixture
def recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> list[set[Digest]]:
    """What of each record a power failure right behind it would lose."""
    lost: list[set[Digest]] = []

    def watched(name: str, named: Callable[[Any], set[Digest]]) -> None:
        put = getattr(MemoryIndex, name)

        async def record(index: MemoryIndex, value: Any) -> None:
            lost.append((named(value) & world.store.blobs.keys()) - world.store.settled)
            await put(index, value)

        monkeypatch.setattr(MemoryIndex, name, record)

    def of_tag(tag: StoredTag) -> set[Digest]:
        manifest = json.loads(world.store.blobs[tag.root.digest])
        below = [manifest["config"], *manifest["layers"]]
        return {tag.root.digest, *(Digest(one["digest"]) for one in below)}

    def of_lease(lease: StoredLease) -> set[Digest]:
        return set(lease.digests)

    watched("put_tag", of_tag)
    watched("put_lease", of_lease)
    return lost


async def pull(world: World, place: Path) -> None:
    world.put(IMAGE)
    await world.pull()


async def push_into_the_store(world: World, place: Path) -> None:
    write_layout(place, IMAGE, "v1")
    target = f"{STORE_HOST}/app:1"
    async for _ in world.stub.PushImage(
        pb.PushImageRequest(source=f"oci:{place}", reference=target)
    ):
        pass


async def push_from_the_store(world: World, place: Path) -> None:
    await pull(world, place)
    target = "registry.example/other/app:1"
    async for _ in world.stub.PushImage(pb.PushImageRequest(source=REFERENCE, reference=target)):
        pass


async def push_artifact(world: World, place: Path) -> None:
    document = {
        "apiVersion": "lens.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "m"},
        "spec": {"provider": "p", "model": "m"},
    }
    await world.stub.PushArtifact(
        pb.PushArtifactRequest(
            document=json.dumps(document).encode(), reference="registry.example/models/m:1"
        )
    )


async def lease(world: World, place: Path) -> None:
    world.store.blobs |= IMAGE.blobs
    await world.stub.AcquireLease(
        pb.AcquireLeaseRequest(lease_id="run 1", holder="run", digests=list(IMAGE.blobs))
    )


@pytest.mark.parametrize(
    "act", [pull, push_into_the_store, push_from_the_store, push_artifact, lease]
)
async def test_what_a_record_names_is_settled_before(
    world: World, recorded: list[set[Digest]], tmp_path: Path, act: Callable[..., Any]
) -> None:
    await act(world, tmp_path)

    assert recorded
    assert all(lost == set() for lost in recorded)
