"""What is pushed of a source outside of the store."""

from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2 as pb

from services.chassis.machine import own_platform
from services.core import errors
from tests.support.gateway_world import REFERENCE, World
from tests.support.images import Built, build_image, build_index, write_layout

OURS = own_platform().architecture
OTHER = "arm64" if OURS == "amd64" else "amd64"


async def pushed(world: World, source: str) -> str:
    call = world.stub.PushImage(pb.PushImageRequest(source=source, reference=REFERENCE))
    return [answer async for answer in call][-1].result.descriptor.digest


@pytest.mark.parametrize("label", [None, OURS])
async def test_of_an_index_the_manifest_of_this_machine_is_pushed(
    world: World, tmp_path: Path, label: str | None
) -> None:
    ours, other = build_image(b"1", architecture=OURS), build_image(b"2", architecture=OTHER)
    write_layout(tmp_path, build_index((None, other), (label, ours)), "v1")

    assert await pushed(world, f"oci:{tmp_path}:v1") == ours.digest


@pytest.mark.parametrize("label", [None, OTHER])
async def test_an_index_without_this_machine_is_refused_with_what_it_offers(
    world: World, tmp_path: Path, label: str | None
) -> None:
    other: Built = build_image(b"2", architecture=OTHER)
    write_layout(tmp_path, build_index((label, other)), "v1")

    with pytest.raises(errors.PlatformUnsupported, match=f"offers linux/{OTHER}") as caught:
        await pushed(world, f"oci:{tmp_path}:v1")
    assert "--all-platforms" in caught.value.hint  # push has no --platform
